"""What the numbers of a registration say, in words, and where to look."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from bundle.plausibility import GAIN, OPTIONAL, judged_numbers

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


class Words(NamedTuple):
    """What a measure says beyond its bounds, true whatever the bounds are.

    Args:
        below: of a number below the least one.
        above: of a number above the greatest one.
        look: what to look at.
    """

    below: str
    above: str
    look: str


WORDS: Mapping[str, Words] = {
    "similarity_gain": Words(
        "The images did not become as much more alike as expected.",
        "The images became more alike than expected.",
        EDGES,
    ),
    "foreground_similarity": Words(
        "Structures inside the two images match less well than expected.",
        "Structures inside the two images match better than expected: are both from one scan?",
        EDGES,
    ),
    "foreground_dice": Words(
        "The outlines of what the two images show match less well than expected.",
        "The outlines of what the two images show match better than expected: are both from one scan?",
        OUTLINE,
    ),
    "common_view_percent": Words(
        "More of what the fixed image shows lies outside the moving image than expected.",
        "Less of what the fixed image shows lies outside the moving image than expected.",
        HEADERS,
    ),
    "rotation_degrees": Words(
        "One image was turned less onto the other than expected.",
        "One image had to be turned further onto the other than expected.",
        HEADERS,
    ),
    "stretch": Words(
        "The moving image was stretched more evenly than expected.",
        "The moving image was stretched less evenly, more along one direction than along another, than expected.",
        ALIGNED,
    ),
    "volume_ratio": Words(
        "The moving image was scaled up more, or down less, than expected.",
        "The moving image was scaled down more, or up less, than expected.",
        ALIGNED,
    ),
    "foreground_log_jacobian_sd": Words(
        "Volumes change more evenly from place to place than expected.",
        "Volumes change less evenly from place to place than expected.",
        VOLUMES,
    ),
    "max_nonrigid_displacement_mm": Words(
        "No place moves as far beyond a rigid motion as expected.",
        "Some places move further beyond a rigid motion than expected.",
        GRID,
    ),
    "max_displacement_mm": Words(
        "No place moves as far as expected.", "Some places move further than expected.", HEADERS
    ),
    "folding_percent": Words(
        "The field folds over itself less than expected.", "The field folds over itself more than expected.", VOLUMES
    ),
    "dice_after": Words(
        "The labels of the two images overlap less than expected.",
        "The labels of the two images overlap more than expected: are both of one label map?",
        LABELS,
    ),
    "aligned_share": Words(
        "The alignment alone accounts for less of the images' likeness than expected.",
        "The alignment alone accounts for more of the images' likeness than expected: if both are of one person, in "
        "two contrasts say, the field follows intensities and not anatomy; register again with --same_person.",
        EDGES,
    ),
}
LESS_ALIKE = "The images are less alike than before."
FLAGS: Mapping[str, tuple[str, str]] = {
    "field_dropped": ("The network's field made the images less alike and was dropped: warped is aligned.", EDGES)
}


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
        quality: numbers by the names of ``registration.json``; ``judged_numbers`` says what is made of them.
        failed: least and greatest value by name, None for no bound; beyond them, or not measurable, it failed.
        look_here: likewise; beyond them somebody should look.

    Example:
        >>> numbers = {"folding_percent": 0.2, "similarity_before": 0.3, "similarity_after": 0.6}
        >>> judge(numbers, {"folding_percent": (None, 0.5)}, {"folding_percent": (None, 0.1)}).level
        'look here'
    """
    numbers, failed = judged_numbers(quality), {**GAIN, **failed}
    findings = [_finding(name, FAILED, numbers, bounds) for name, bounds in failed.items()]
    names = {finding.measure for finding in findings if finding}
    findings += [_finding(name, LOOK_HERE, numbers, b) for name, b in look_here.items() if name not in names]
    findings += [Finding(name, LOOK_HERE, *words) for name, words in FLAGS.items() if quality.get(name)]
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
        if name not in WORDS:
            known = ", ".join(sorted(WORDS))
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
    words = WORDS[name]
    if math.isnan(value):
        return Finding(name, level, f"{name} could not be measured, so that nothing is known of it.", words.look)
    sentence, bound = (words.below, f"at least {low:.4g}") if value < low else (words.above, f"at most {high:.4g}")
    if name in GAIN and value < min(low, 0):
        sentence = LESS_ALIKE
    return Finding(name, level, f"{sentence} ({name} is {value:.4g}; {bound} is expected)", words.look)
