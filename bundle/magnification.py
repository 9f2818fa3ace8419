"""What an image shows, and how far lengths that suit the human body are too long for it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from bundle.intensity import foreground
from bundle.spatial import Grid

__all__ = ["magnification", "magnified", "shown", "shown_box"]

OUTERMOST = 0.0005  # share of what an image shows that may lie beyond either end of an axis: specks in the air

SMALL_MM = 45.0
"""What an image shows is small below this: heads scaled down to it are still aligned within 1/200 of their length by
lengths in mm that suit heads, at 36 mm within 1/70, at 16 mm within 1/12, each in 80 to 225 voxels."""
COARSE_MM = 0.5  # voxels from here up show human anatomy, a crop of it perhaps, or too little to gain by a factor
ROUNDED = 1e-3  # share that the rounding of headers may take of a voxel
USUAL_MM = 200.0  # the length of a head
USUAL_SPACING_MM = 2.0  # finer voxels than these an alignment averages: no factor makes them coarser


def magnification(images: Sequence[tuple[npt.ArrayLike, Grid]]) -> float:
    """Find the factor that makes two images of a small animal, or of a small part, as large as human anatomy.

    Lengths in mm that suit people, such as how far an alignment searches, suit both images magnified so; divided by the
    factor they suit them as they are.

    Args:
        images: each (H, W, L), with its grid.

    Returns:
        1 where either image shows ``SMALL_MM`` or more along an axis, or all voxels are of ``COARSE_MM`` or more: for
        whatever is human-sized. Else what brings the longer one to ``USUAL_MM``, or the finest voxels to
        ``USUAL_SPACING_MM`` if that is less.
    """
    finest = min(float(grid.spacing_mm.min()) for _, grid in images)
    if finest > COARSE_MM * (1 - ROUNDED):
        return 1.0
    grids = [shown(torch.from_numpy(np.ascontiguousarray(image))[None], grid) for image, grid in images]
    length = max(float((np.array(grid.shape) * grid.spacing_mm).max()) for grid in grids)
    return 1.0 if length >= SMALL_MM else min(USUAL_MM / length, USUAL_SPACING_MM / finest)


def magnified(grid: Grid, factor: float) -> Grid:
    """Stretch a grid from the origin of space by a factor; the same grid by 1."""
    return grid if factor == 1 else Grid(grid.shape, np.diag([factor, factor, factor, 1.0]) @ grid.affine)


def shown(image: torch.Tensor, grid: Grid) -> Grid:
    """Cut the grid of an image, (1, H, W, L), to its foreground, but for specks; a constant image keeps all of it."""
    box = shown_box(image)
    return grid if box is None else grid.crop(*box)


def shown_box(image: torch.Tensor) -> tuple[list[int], list[int]] | None:
    """Find the first and the last index of the foreground of an image, (1, H, W, L), but for specks.

    Returns:
        Both along each axis; None for a constant image.
    """
    inside = foreground(image[0])
    if not inside.any():
        return None
    first, last = [], []
    for axis in range(3):
        share = inside.sum([i for i in range(3) if i != axis]).double().cumsum(0) / inside.sum()
        first.append(int((share <= OUTERMOST).sum()))
        last.append(int((share < 1 - OUTERMOST).sum()))
    return first, last
