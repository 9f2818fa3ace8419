"""The description that a training writes beside its weights, by that of those it starts from."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.io.files import write_text
from bundle.weights import SUITED, recommended

__all__ = ["describe_as"]

INHERITED = ("network", "spacing_mm", "align_top_mm", *SUITED)
"""What a description says that suits weights trained on from those it describes, too, on images like theirs."""
SAME_SIZE = 0.05  # by which two voxel sizes differ at most that are one: a grid within it is not resampled either


def describe_as(
    weights: str,
    path: str | os.PathLike[str],
    voxels_mm: Sequence[Sequence[float]],
    cascades: int = 1,
    trained_with: Mapping[str, Any] | None = None,
) -> None:
    """Give weights that a training is about to write the settings that suit those it starts from, and say which.

    Those were found for images with the voxels that the weights it starts from were trained at, ``trained_at_mm`` of
    their description, or ``spacing_mm`` where it lacks that. Of images with others the weights suit the voxels, and
    nothing is known of the rest.

    Args:
        weights: path of those it starts from; without a description, or empty, nothing is written but what it is
            itself trained with.
        path: of those it writes, ``NAME.pt``; a ``NAME.json`` that is there already stays.
        voxels_mm: three sides of the voxels of each data set that it trains on.
        cascades: how many networks in a row it trains, which those it starts from need not be.
        trained_with: settings by which the weights see images in this training, ``gamma`` of an imitation say: they
            suit them whatever the voxels, and come before those of the weights it starts from.
    """
    description, trained_with = Path(path).with_suffix(".json"), dict(trained_with or {})
    settings = {name: recommended(weights, name) for name in INHERITED} if weights else {}
    settings = {name: value for name, value in settings.items() if value is not None}
    if not (settings or trained_with) or description.exists():
        return
    before, own = recommended(weights, "trained_at_mm", settings.get("spacing_mm")), _one_size(voxels_mm)
    alike = before is None or (own is not None and math.isclose(before, own, rel_tol=SAME_SIZE))
    kept = {name: value for name, value in settings.items() if alike or name == "network"}
    dropped = {name: value for name, value in settings.items() if name not in {*kept, *trained_with}}
    kept |= {"spacing_mm": own, **kept, "trained_at_mm": own} if settings and own is not None else {}
    kept |= {"cascades": cascades} if cascades > 1 else {}
    write_text(description, json.dumps(kept | trained_with, indent=4) + "\n")
    if os.environ.get("RANK", "0") == "0":
        print(_taken(description, kept, dropped, trained_with, before))  # noqa: T201


def _one_size(voxels_mm: Sequence[Sequence[float]]) -> float | None:
    """Find the side in mm that all voxels have along all axes; None if they differ."""
    sides = [side for voxel in voxels_mm for side in voxel]
    if not sides or not math.isclose(min(sides), max(sides), rel_tol=SAME_SIZE):
        return None
    return float(f"{sum(sides) / len(sides):.5g}")


def _taken(
    description: Path,
    kept: Mapping[str, Any],
    dropped: Mapping[str, Any],
    trained_with: Mapping[str, Any],
    before: float | None,
) -> str:
    """Say in one sentence what a description took from that of the weights before, and what not."""
    size = f"spacing_mm {kept['spacing_mm']:g}" if "spacing_mm" in kept else "no spacing_mm (each image's own voxels)"
    rest = {name: value for name, value in kept.items() if name != "trained_at_mm" and name not in trained_with}
    told = [f"{_listed(trained_with)}, by which it is trained to see images"] if trained_with else []
    if dropped:
        told += [
            f"{size} by your images",
            f"not the {_listed(dropped)} of the weights it starts from, trained at {before:g} mm",
        ]
    elif rest:
        told += [f"{_listed(rest)}, as the weights it starts from, which suits images like those they were trained on"]
    said = ", and ".join(told)
    return f"note: {description} has {said}: edit that file to change what the commands use (docs/training.md)"


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
