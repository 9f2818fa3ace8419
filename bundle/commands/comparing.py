"""What the commands of the benchmark check and look up alike, before any work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bundle.commands.register import check_affine, check_device
from bundle.data import draw_pairs, open_dataset
from bundle.failures import PairsFailedError
from bundle.options import check_numbers
from bundle.pairs import refuse_unread
from bundle.spatial import LABEL_MODES
from bundle.transforms.extent import check_spacing

__all__ = [
    "check_common",
    "check_comparison",
    "check_finished",
    "checked_spacing",
    "drawn_pairs",
    "labelled_images",
    "labelled_pairs",
    "three_sides",
    "torch_device",
]


def check_common(device: str, **counts: int | None) -> None:
    """Refuse bad values before any work."""
    check_device(device)
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"--{name} takes a whole number from 1 up, not '{value}'.")


def check_comparison(affine: str, label_interpolation: str, syn_iterations: Sequence[int]) -> None:
    """Refuse an unknown pre-alignment or interpolation, and iterations that are no three whole numbers."""
    check_affine(affine)
    if label_interpolation not in LABEL_MODES:
        raise ValueError(f"--label_interpolation is one of {', '.join(LABEL_MODES)}, not '{label_interpolation}'.")
    steps = syn_iterations if isinstance(syn_iterations, list | tuple) else []
    if len(steps) != 3 or not all(isinstance(n, int) and n >= 0 for n in steps):
        raise ValueError(f"--syn_iterations takes three whole numbers, 100,70,20 say, not '{syn_iterations}'.")


def checked_spacing(spacing_mm: float | None) -> float | None:
    """Read a voxel size; None where it is left open."""
    check_numbers(spacing_mm=spacing_mm)
    check_spacing(spacing_mm, "--spacing_mm")
    return None if spacing_mm is None else float(spacing_mm)


def check_finished(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Say in the end that registrations failed, if any did: what a command returns then is no whole comparison.

    Args:
        rows: from ``bundle.benchmark.accuracy.compare``.
        folder: with the tables of the others.

    Raises:
        PairsFailedError: some failed.
    """
    failed = [row for row in rows if row.get("error")]
    if failed:
        first = failed[0]
        rest = f"the tables of the others: {folder}" if len(failed) < len(rows) else "none is left to compare"
        raise PairsFailedError(
            f"{len(failed)} of {len(rows)} registrations failed, {first['method']} of {first['pair']} first "
            f"({first['error'].rstrip('.')}); {rest}. The next call tries them again."
        )


def three_sides(option: str, value: Sequence[int]) -> tuple[int, int, int]:
    """Read the sides of a volume, in voxels."""
    sides = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sides) != 3 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ValueError(f"--{option} takes three sides in voxels, 160,192,160 say, not '{value}'.")
    return sides


def drawn_pairs(dataset: str, split: str, pairs: int | None, seed: int) -> list[dict[str, Any]]:
    """Draw pairs; listed ones must come without what benchmarks do not read."""
    drawn = draw_pairs(open_dataset(dataset, split), pairs, seed, split)
    refuse_unread(drawn, f"A benchmark reads images, labels and landmarks alone, but a pair of {dataset}")
    return drawn


def labelled_pairs(dataset: str, split: str, pairs: int | None, seed: int) -> list[dict[str, Any]]:
    """Draw pairs that have label maps on both sides."""
    return _labelled(drawn_pairs(dataset, split, pairs, seed), ("moving_label", "fixed_label"), dataset)


def labelled_images(dataset: str, split: str, images: int) -> list[dict[str, Any]]:
    """List the first images of a split, which must have label maps."""
    return _labelled(open_dataset(dataset, split)[:images], ("label",), dataset)


def _labelled(items: list[dict[str, Any]], keys: Sequence[str], dataset: str) -> list[dict[str, Any]]:
    if any(key not in item for item in items for key in keys):
        raise ValueError(f"The benchmark needs a label map for every image, but {dataset} lists images without one.")
    return items


def torch_device(device: str) -> str:
    """Choose what torch runs on."""
    return "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
