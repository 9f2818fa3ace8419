"""What the numbers among a training's options may be: said before any work, in a sentence."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from bundle.failures import OutcomeError

__all__ = ["check_ranges"]

SHARES = (
    *(f"{what}_probability" for what in ("mask", "affine", "misalignment", "bias_field", "zoom", "appearance")),
    *(f"{what}_share" for what in ("real", "alike", "one_real", "curve", "sequence", "lesion")),
    *(f"{what}_share" for what in ("rescan", "changed", "posed", "shapes")),
    *("average_momentum", "cache_rate"),
)
WEIGHTS = ("learning_rate", "alpha", "beta", "label_weight", "synthetic_alpha", "known_weight", "moved_weight")
COUNTS = (
    *("epochs", "steps_per_epoch", "val_interval", "val_pairs", "patience", "repeats", "batch_size"),
    *("regions", "cascades"),
)
LISTS = {"flip_probability": (3, 1.0), "peak": (2, math.inf), "common_pose": (2, math.inf)}
"""How many numbers from 0 up to what."""
SIZES = ("spatial_size", "roi_size")  # -1 for a side as it is
LEFT_OPEN = ("val_pairs", "steps_per_epoch", "seed")  # None has a meaning


def check_ranges(settings: Mapping[str, Any], **more: Any) -> None:
    """Refuse numbers that no training can have: text, shares above 1, no epochs.

    Args:
        settings: options of a training by their names; those that have no range here pass.
        more: further ones.

    Raises:
        OutcomeError: one that is out of its range; the sentence says which, and what it takes.
    """
    for name, value in {**settings, **more}.items():
        if not (value is None and name in LEFT_OPEN):
            takes = _misfit(name, value)
            if takes:
                raise OutcomeError(f"{name} takes {takes}, not '{value}'.")


def _misfit(name: str, value: Any) -> str:
    """Say what an option takes if the value is none of it; empty otherwise."""
    if name in COUNTS:
        return "" if _is_whole(value, 1) else "a whole number from 1 up"
    if name in ("num_workers", "seed"):
        return "" if _is_whole(value, 0) else "a whole number from 0 up"
    if name in SHARES:
        return "" if _is_within(value, 0, 1) else "a number from 0 to 1"
    if name in WEIGHTS:
        return "" if _is_within(value, 0) else "a number from 0 up"
    if name == "largest_zoom":
        return "" if _is_within(value, 1) else "a number from 1 up"
    if name in LISTS:
        count, high = LISTS[name]
        fits = _is_list(value, count) and all(_is_within(one, 0, high) for one in value)
        return "" if fits else f"{count} numbers from 0 {f'to {high:g}' if high < math.inf else 'up'} in brackets"
    if name in SIZES:
        fits = all(_is_whole(one, -1) for one in (value if _is_list(value, 3) else [value]))
        return "" if fits else "three whole numbers in brackets"
    return ""


def _is_list(value: Any, count: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == count


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_within(value: Any, low: float, high: float = math.inf) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high
