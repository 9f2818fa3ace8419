"""Bring volumes onto the page's grid: linear maps of indices alone, faster than for any transform."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from bundle.spatial import Grid, Matrix
from scipy.ndimage import affine_transform

__all__ = ["interpolated", "lies_within", "placed", "thinned", "within"]

Volume = npt.NDArray[Any]


def placed(
    image: torch.Tensor, image_grid: Grid, grid: Grid, linear: Matrix | None = None, order: int = 1, fill: float = 0.0
) -> Volume:
    """Bring an image onto the grid through a linear map: (H, W, L).

    Args:
        image: (1, H, W, L) on ``image_grid``.
        image_grid: where its voxels are.
        grid: of the result.
        linear: 4×4, from the grid's space to the image's; None where they are one.
        order: 1 interpolates linearly, 0 takes the nearest voxel.
        fill: value beyond the image.
    """
    values = image[0].float().numpy() if order else image[0].numpy()
    matrix = image_grid.inverse @ (np.eye(4) if linear is None else linear) @ grid.affine
    steps, start = np.rint(matrix[:3, :3]), np.rint(matrix[:3, 3])
    if np.abs(matrix[:3] - np.column_stack([steps, start])).max() < 1e-4:  # the same voxels, the axes in another order
        ordered = _reordered(values, steps.astype(int), start, grid.shape)
        if ordered is not None:
            return ordered
    if order:
        found = interpolated(torch.from_numpy(values)[None], matrix, grid.shape)[0]
    else:
        found = affine_transform(values, matrix, output_shape=grid.shape, order=0, mode="nearest")
    if lies_within(matrix, grid.shape, values.shape):
        return found
    return np.where(within(matrix, grid.shape, values.shape), found, found.dtype.type(fill))


def interpolated(image: torch.Tensor, matrix: Matrix, shape: Sequence[int]) -> Volume:
    """Interpolate (C, H, W, L) linearly where a map of indices leads, the outermost values going on beyond.

    The same as SciPy's ``affine_transform`` up to rounding, and faster.
    """
    sides = np.maximum(np.array(image.shape[1:]) - 1.0, 1.0) / 2  # to -1 at one end and 1 at the other
    linear, start = matrix[:3, :3] / sides[:, None], matrix[:3, 3] / sides - 1
    i, j, k = (
        torch.arange(n, dtype=torch.float32).view([n if a == axis else 1 for a in range(3)])
        for axis, n in enumerate(shape)
    )
    where = [(a * i + b * j + c) + d * k for (a, b, d), c in zip(linear.tolist(), start.tolist())]
    lattice = torch.stack(where[::-1], -1)[None]  # grid_sample has the last axis first
    return F.grid_sample(image.float()[None], lattice, "bilinear", "border", align_corners=True)[0].numpy()


def lies_within(matrix: Matrix, shape: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether a map of indices leads into an image from everywhere: a box does if its corners do."""
    corners = np.array(list(product(*[(0, n - 1) for n in shape])))
    index = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return bool((index >= -0.5).all() and (index < np.array(sides) - 0.5).all())


def within(matrix: Matrix, shape: Sequence[int], sides: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Where a map of indices leads into an image, half a voxel around its outermost centres included, as in ITK."""
    i, j, k = np.ogrid[tuple(slice(n) for n in shape)]
    within = np.ones(shape, dtype=bool)
    for (a, b, c, start), n in zip(matrix[:3], sides):
        index = (a * i + b * j) + (c * k + start)
        within &= (index >= -0.5) & (index < n - 0.5)
    return within


def _reordered(values: Volume, steps: npt.NDArray[np.int64], start: Matrix, shape: Sequence[int]) -> Volume | None:
    """Put the axes into another order and direction, where that alone is the map: steps · index + start."""
    axes = np.abs(steps).argmax(0)
    turned = [axis for axis in range(3) if steps[axes[axis], axis] < 0]
    first = [n - 1 if steps[row].min() < 0 else 0 for row, n in enumerate(values.shape)]
    if sorted(axes) != [0, 1, 2] or values.transpose(axes).shape != tuple(shape) or not (start == first).all():
        return None
    return np.flip(values.transpose(axes), tuple(turned))


def thinned(image: torch.Tensor, image_grid: Grid, grid: Grid) -> tuple[torch.Tensor, Grid]:
    """Average whole blocks of voxels where the grid is that much coarser, a slab at a time: (1, H, W, L), its grid."""
    along = np.linalg.norm(grid.inverse[:3, :3] @ image_grid.affine[:3, :3], axis=0)  # of its voxels, in the grid's
    steps = [int(max(1, min(np.floor(1 / step + 1e-3), n))) for step, n in zip(along, image_grid.shape)]
    if steps == [1, 1, 1]:
        return image, image_grid
    slabs = image[:, : image.shape[1] // steps[0] * steps[0]].split(steps[0] * 8, dim=1)
    return torch.cat([F.avg_pool3d(slab.float(), steps) for slab in slabs], 1), image_grid.blocks(steps)
