"""Read an image at physical points, and smooth it before it is read at fewer."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from bundle.spatial.grid import Grid
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

__all__ = ["FWHM", "SplineSampler", "antialias", "is_inside", "sample", "sample_at"]

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""


def antialias(image: torch.Tensor, grid: Grid, target: Grid, pointwise: bool = False) -> torch.Tensor:
    """Smooth an image before it is sampled on a coarser grid, along the axes whose spacing grows by over 10 %.

    Takes the width (FWHM) of the blur from √(S² − s²), what a voxel of S mm has that one of s mm has not.

    Args:
        image: (C, H, W, L) on ``grid``.
        grid: where its voxels are.
        target: the grid to be sampled; what counts is its spacing in the direction of each axis of the image.
        pointwise: the values are of points, as a field's are, not of voxels: the width is S.
    """
    steps = np.linalg.norm(target.inverse[:3, :3] @ grid.direction, axis=0)  # target voxels per mm along each axis
    ratio = 1 / (steps * grid.spacing_mm)
    if (ratio <= 1.1).all():
        return image
    sigma = np.where(ratio > 1.1, np.sqrt(np.maximum(ratio**2 - (not pointwise), 0)) / FWHM, 0)
    smooth = [gaussian_filter(channel.float().cpu().numpy(), sigma, mode="nearest") for channel in image]
    return torch.from_numpy(np.stack(smooth)).to(image.device)


def sample(
    image: torch.Tensor, grid: Grid, points: torch.Tensor, mode: str = "linear", fill: float | None = 0.0
) -> torch.Tensor:
    """Read an image at physical points.

    The border is ITK's: voxels reach half their size beyond their centres, and the outermost value counts up to there.

    Args:
        image: (C, H, W, L) on ``grid``.
        grid: where its voxels are.
        points: (…, 3), mm, float64.
        mode: ``"linear"`` or ``"nearest"``.
        fill: value beyond the border; None goes on with the outermost voxels' values for ever.

    Returns:
        (C, …): float64 for linear interpolation, the image's dtype for the nearest voxel.
    """
    matrix, origin = torch.from_numpy(grid.inverse[:3, :3]), torch.from_numpy(grid.origin_mm)
    return sample_at(image, ((points.reshape(-1, 3) - origin) @ matrix.T).view(points.shape), mode, fill)


def sample_at(image: torch.Tensor, index: torch.Tensor, mode: str = "linear", fill: float | None = 0.0) -> torch.Tensor:
    """Read an image, (C, H, W, L), at indices (…, 3), fractions too, float64: see ``sample``."""
    index = index.to(image.device)
    sides = torch.tensor(image.shape[1:], dtype=index.dtype, device=index.device)
    values = (_nearest if mode == "nearest" else _linear)(image, index, sides)
    if fill is not None:
        values = torch.where(is_inside(index, image.shape[1:]), values, torch.tensor(fill, dtype=values.dtype))
    return values


def is_inside(index: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Tell which indices (…, 3) lie in a grid's voxels, half a voxel around the outermost centres included: (…)."""
    within = [(i >= -0.5) & (i < n - 0.5) for i, n in zip(index.unbind(-1), shape)]
    return within[0] & within[1] & within[2]


class SplineSampler:
    """Interpolate an image by cubic B-splines that pass through its voxels, mirrored at the border as in ITK.

    Args:
        image: (C, H, W, L).
        grid: where its voxels are.
        fill: value beyond the border.

    Source:
        Unser, Splines: a perfect fit for signal and image processing, IEEE Signal Processing Magazine 16 (1999).
    """

    def __init__(self, image: torch.Tensor, grid: Grid, fill: float = 0.0) -> None:
        channels = image.double().cpu().numpy()
        self.coefficients = [spline_filter(channel, order=3, mode="mirror") for channel in channels]
        self.grid, self.fill = grid, fill

    def __call__(self, index: torch.Tensor) -> torch.Tensor:
        """Read at indices (…, 3), fractions too, float64: (C, …), float64."""
        places = index.movedim(-1, 0).numpy()
        read = [map_coordinates(c, places, order=3, mode="mirror", prefilter=False) for c in self.coefficients]
        values = torch.from_numpy(np.stack(read))
        return torch.where(is_inside(index, self.grid.shape), values, torch.tensor(self.fill, dtype=values.dtype))


def _nearest(image: torch.Tensor, index: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """Read the voxels nearest to indices (…, 3), the upper one of two equally near as in ITK: (C, …)."""
    nearest = torch.minimum((index + 0.5).floor().clamp(min=0), sides - 1).long()
    i, j, k = nearest.unbind(-1)
    return image[:, i, j, k]


def _linear(image: torch.Tensor, index: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """Interpolate at indices (…, 3), the outermost values going on beyond the border: (C, …), float64."""
    normalised = index.flip(-1) * (2 / (sides.flip(-1) - 1).clamp(min=1)) - 1  # grid_sample names the last axis first
    if not index.numel():
        return torch.empty(len(image), *index.shape[:-1], dtype=torch.float64, device=image.device)
    batch = math.prod(index.shape[:-2])  # every row is an item of it: grid_sample shares those out among the cores
    values = F.grid_sample(
        image.double().expand(batch, *image.shape),
        normalised.view(batch, 1, 1, -1, 3),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return values.movedim(1, 0).reshape(image.shape[0], *index.shape[:-1])
