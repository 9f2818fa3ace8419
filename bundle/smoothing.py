"""Smooth images and fields on a grid of voxels, halve their resolution and bring it back."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d

__all__ = ["halve", "restore", "smooth", "voxel_ratio"]


def smooth(x: torch.Tensor, sigma: float, dims: Sequence[int] = (2, 3, 4)) -> torch.Tensor:
    """Filter (B, C, H, W, L) by a Gaussian of width ``sigma`` voxels along ``dims``; what is constant stays.

    Edges are replicated.
    """
    gaussian = gaussian_1d(torch.tensor(float(sigma)), truncated=3.0)
    weights = (gaussian / gaussian.sum()).tolist()  # MONAI's does not add up to 1
    radius = len(weights) // 2
    for dim in dims:  # sums of slices: a convolution of one channel takes three times as long on a CPU
        margin = [radius * (axis == dim) for axis in (4, 4, 3, 3, 2, 2)]
        padded, n = F.pad(x, margin, mode="replicate"), x.shape[dim]
        x = weights[radius] * padded.narrow(dim, radius, n)
        for i in range(radius):
            x.add_(padded.narrow(dim, i, n) + padded.narrow(dim, 2 * radius - i, n), alpha=weights[i])
    return x


def voxel_ratio(sides: Sequence[int]) -> list[int]:
    """How many voxels ``halve`` averages along each side: 2, or 1 along those of fewer than four."""
    return [2 if n >= 4 else 1 for n in sides]


def halve(volume: torch.Tensor) -> torch.Tensor:
    """Average (B, C, H, W, L) to half the resolution; the last voxel of an odd side stays by itself.

    The values of a field stay in its own voxels: divide them by ``voxel_ratio``.
    """
    return F.avg_pool3d(volume, voxel_ratio(volume.shape[2:]), ceil_mode=True)


def restore(halved: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """Interpolate what ``halve`` made of a volume of ``sides`` at its voxels: (B, C, *sides).

    The middle of a halved voxel lies between two: no corners are aligned, as ``bundle.fields.upsample`` has them.
    """
    whole = [n * ratio for n, ratio in zip(halved.shape[2:], voxel_ratio(sides))]
    volume = F.interpolate(halved, whole, mode="trilinear", align_corners=False)
    return volume[:, :, : sides[0], : sides[1], : sides[2]]
