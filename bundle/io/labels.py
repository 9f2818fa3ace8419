"""Label maps: whole numbers of any size, exact in memory and in files, in the order of their image's axes."""

import numpy as np
import torch
from bundle.spatial import Grid

__all__ = ["check_labelled", "compact", "for_file", "in_order_of", "whole_numbers"]

IN_MEMORY = (torch.uint8, torch.int16, torch.int32, torch.int64)
IN_FILES = (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64)  # torch computes in few
LARGEST = float(2**63)
NOISE = 1e-4  # of a label times a header's scale in float32


def whole_numbers(labels: torch.Tensor, where: str) -> torch.Tensor:
    """Check a label map and return it as whole numbers, in the smallest type that holds them.

    Args:
        labels: of any shape and dtype.
        where: what the message calls it.

    Raises:
        ValueError: no voxels, no numbers (NaN), fractions, numbers below 0, or of more than 63 bits.
    """
    if not labels.numel():
        raise ValueError(f"{where} is no label map: it holds no voxel: take another file.")
    if labels.is_floating_point():
        if labels.isnan().any():
            raise ValueError(f"{where} is no label map: it must hold whole numbers, but holds NaN: make that 0.")
        rounded = labels.round()
        fractions = (labels - rounded).abs() > NOISE + 1e-6 * rounded.abs()
        if fractions.any():
            raise ValueError(
                f"{where} is no label map: it must hold whole numbers, but holds {float(labels[fractions][0]):g}: "
                "threshold a probability map first, and resample labels by nearest neighbour."
            )
        labels = rounded
    low, high = labels.min(), labels.max()
    if low < 0 or (labels.is_floating_point() and high >= LARGEST):
        raise ValueError(
            f"{where} is no label map: it must hold whole numbers from 0 to 2^63 - 1, but holds "
            f"{(low if low < 0 else high).item():.0f}: give its regions other numbers."
        )
    return compact(labels)


def check_labelled(labels: torch.Tensor, name: str) -> None:
    """Refuse a label map without any label where nothing else of its image counts; ``name`` is what messages call it.

    Raises:
        ValueError: nothing is above 0.
    """
    if not (labels > 0).any():
        raise ValueError(f"The {name} holds no label, zeros alone: label its image, or take that out of the list.")


def compact(labels: torch.Tensor) -> torch.Tensor:
    """Convert whole numbers from 0 up to the smallest integer type that torch computes in and that holds them."""
    return labels.to(_smallest(labels, IN_MEMORY))


def for_file(labels: torch.Tensor) -> torch.Tensor:
    """Convert whole numbers from 0 up to the smallest integer type that holds them and that image files have.

    Of two types of one size the signed one, which more programs read; 64 bits are always signed.
    """
    return labels.to(_smallest(labels, IN_FILES))


def _smallest(labels: torch.Tensor, dtypes: tuple[torch.dtype, ...]) -> torch.dtype:
    largest = int(labels.max()) if labels.numel() else 0
    return next(dtype for dtype in dtypes if largest <= torch.iinfo(dtype).max)


def in_order_of(label: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor | None:
    """Bring a label map to its image's grid where both have the same voxels, their axes perhaps in another order.

    Args:
        label: (C, H, W, L) on ``grid``.
        grid: where its voxels are.
        target: where the image's voxels are.

    Returns:
        The same values, (C, *target.shape): axes permuted and turned around, nothing interpolated. None where the
        voxels are not the same.
    """
    if grid.is_close(target):
        return label
    steps = target.inverse[:3, :3] @ grid.affine[:3, :3]  # of the label's axes in voxels of the image
    order = np.abs(steps).argmax(1)
    if sorted(order) != [0, 1, 2]:
        return None
    signs = np.sign(steps[range(3), order])
    affine = grid.affine.copy()
    affine[:, :3] = grid.affine[:, order] * signs
    shape = tuple(grid.shape[axis] for axis in order)
    last = (np.array(shape) - 1) * (signs < 0)
    affine[:3, 3] = grid.origin_mm - affine[:3, :3] @ last
    if not Grid(shape, affine).is_close(target):  # type: ignore[arg-type]
        return None
    ordered = label.permute(0, *(int(axis) + 1 for axis in order))
    return ordered.flip([axis for axis, sign in enumerate(signs, 1) if sign < 0]).contiguous()
