"""Smooth images and fields on a grid of voxels."""

import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d

__all__ = ["smooth"]


def smooth(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Filter (B, C, H, W, L) by a Gaussian of width ``sigma`` voxels, edges replicated."""
    weights = gaussian_1d(torch.tensor(float(sigma)), truncated=3.0).tolist()
    radius = len(weights) // 2
    for dim in (2, 3, 4):  # sums of slices: a convolution of one channel takes three times as long on a CPU
        margin = [radius * (axis == dim) for axis in (4, 4, 3, 3, 2, 2)]
        padded, n = F.pad(x, margin, mode="replicate"), x.shape[dim]
        x = weights[radius] * padded.narrow(dim, radius, n)
        for i in range(radius):
            x.add_(padded.narrow(dim, i, n) + padded.narrow(dim, 2 * radius - i, n), alpha=weights[i])
    return x
