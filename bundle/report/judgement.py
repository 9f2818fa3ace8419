"""What the numbers of a registration say, in words, and where to look."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["FAILED", "GOOD", "LOOK_HERE", "Finding", "Judgement", "judge", "read_bounds"]

GOOD, LOOK_HERE, FAILED = "good", "look here", "failed"

Bounds = Mapping[str, Sequence[float | None]]

HEADLINES = {
    GOOD: "No number of this registration is out of the ordinary.",
    LOOK_HERE: "Something about this registration is out of the ordinary: look before you use it.",
    FAILED: "This registration cannot be right: do not use it.",
}

EDGES = "Flicker between fixed and warped: edges that jump are not aligned."
OUTLINE = "Checkerboard of fixed and warped: follow the outline of the body from tile to tile."
HEADERS = "Side by side, fixed and moving by its header: is it the same part of the body, the same way round?"
ALIGNED = "Side by side, fixed and aligned: turned, sheared or scaled beyond what one body part allows?"
GRID = "The deformed grid over the warped image: lines that leave the anatomy."
VOLUMES = "The Jacobian over the warped image: dark patches, and yellow where the field folds."
LABELS = "Contours of the labels over the warped image."

# what each measure says when it is out of bounds, and what to look at
WORDS: Mapping[str, tuple[str, str]] = {
    "similarity_gain": ("The images are less alike than before.", EDGES),
    "foreground_similarity": ("Structures inside the two images do not match well.", EDGES),
    "foreground_dice": ("The outlines of what the two images show do not match well.", OUTLINE),
    "common_view_percent": ("Much of what the fixed image shows lies outside the moving image.", HEADERS),
    "rotation_degrees": ("One image had to be turned far onto the other.", HEADERS),
    "stretch": ("The moving image was stretched far more along one direction than along another.", ALIGNED),
    "volume_ratio": ("The moving image was scaled far up or down.", ALIGNED),
    "foreground_log_jacobian_sd": ("Volumes change unevenly from place to place.", VOLUMES),
    "max_nonrigid_displacement_mm": ("Some places move far beyond what the alignment moves.", GRID),
    "max_displacement_mm": ("Some places move very far.", HEADERS),
    "folding_percent": ("The field folds over itself.", VOLUMES),
    "dice_after": ("The labels of the two images overlap little.", LABELS),
    "aligned_share": (
        "The aligned images were nearly as alike as the registered ones: if both are of one person, in two contrasts "
        "say, the field follows intensities and not anatomy; register again with --same_person.",
        EDGES,
    ),
    "field_dropped": ("The network's field made the images less alike and was dropped: warped is aligned.", EDGES),
}
FLAGS = ("field_dropped",)
OPTIONAL = ("dice_after", "aligned_share")  # of pairs with labels alone, and of those that a field was found for


@dataclass(frozen=True)
class Finding:
    """One number that is out of bounds.

    Args:
        measure: its name in ``registration.json``.
        level: ``"look here"`` or ``"failed"``.
        sentence: what it says, with value and bound.
        look: where in the page to look.
    """

    measure: str
    level: str
    sentence: str
    look: str


@dataclass(frozen=True)
class Judgement:
    """A registration in one word, one sentence, and what led to it: the worst first."""

    level: str
    headline: str
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """What ``registration.json`` holds."""
        return {"level": self.level, "headline": self.headline, "findings": [asdict(f) for f in self.findings]}


def judge(quality: Mapping[str, float], failed: Bounds, look_here: Bounds) -> Judgement:
    """Judge a registration by its numbers.

    Args:
        quality: numbers by the names of ``registration.json``; the difference of ``similarity_after`` and
            ``similarity_before`` is ``similarity_gain``, and ``similarity_aligned`` over ``similarity_after``, unless
            the field was dropped, ``aligned_share``.
        failed: least and greatest value by name, None for no bound; beyond them, or not measurable, it failed.
        look_here: likewise; beyond them somebody should look.

    Example:
        >>> numbers = {"folding_percent": 0.2, "similarity_before": 0.3, "similarity_after": 0.6}
        >>> judge(numbers, {"folding_percent": (None, 0.5)}, {"folding_percent": (None, 0.1)}).level
        'look here'
    """
    before, aligned, after = (quality.get(f"similarity_{stage}", math.nan) for stage in ("before", "aligned", "after"))
    numbers = {"similarity_gain": after - before, **quality}
    if aligned >= 0 and after > 0 and not quality.get("field_dropped"):
        numbers["aligned_share"] = aligned / after
    failed = {"similarity_gain": (0.0, None), **failed}
    findings = [_finding(name, FAILED, numbers, bounds) for name, bounds in failed.items()]
    names = {finding.measure for finding in findings if finding}
    findings += [_finding(name, LOOK_HERE, numbers, b) for name, b in look_here.items() if name not in names]
    findings += [Finding(name, LOOK_HERE, *WORDS[name]) for name in FLAGS if quality.get(name)]
    found = tuple(finding for finding in findings if finding)
    level = found[0].level if found else GOOD
    return Judgement(level, HEADLINES[level], found)


def read_bounds(bounds: Bounds) -> dict[str, tuple[float, float]]:
    """Read bounds as JSON has them: None for what is open.

    Raises:
        ValueError: a measure that there is not, or anything but two numbers in their order.
    """
    read = {}
    for name, pair in bounds.items():
        if name not in WORDS or name in FLAGS:
            known = ", ".join(sorted(set(WORDS) - set(FLAGS)))
            raise ValueError(f"A threshold is of one of {known}, not of '{name}'.")
        if isinstance(pair, str) or len(pair) != 2 or not _low(pair) <= _high(pair):
            raise ValueError(f"The threshold of {name} takes [least, greatest], null for none, not {pair}.")
        read[name] = _low(pair), _high(pair)
    return read


def _low(pair: Sequence[float | None]) -> float:
    return -math.inf if pair[0] is None else float(pair[0])


def _high(pair: Sequence[float | None]) -> float:
    return math.inf if pair[1] is None else float(pair[1])


def _finding(name: str, level: str, numbers: Mapping[str, float], bounds: Sequence[float | None]) -> Finding | None:
    """What a number out of its bounds says; nothing of one within them."""
    value, low, high = numbers.get(name, math.nan), _low(bounds), _high(bounds)
    if low <= value <= high or (name in OPTIONAL and name not in numbers):
        return None
    sentence, look = WORDS.get(name, (f"{name} is out of its bounds.", EDGES))
    if math.isnan(value):
        return Finding(name, level, f"{name} could not be measured, so that nothing is known of it.", look)
    bound = f"at least {low:.4g}" if value < low else f"at most {high:.4g}"
    return Finding(name, level, f"{sentence} ({name} is {value:.4g}; {bound} is expected)", look)
