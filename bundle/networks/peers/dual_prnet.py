"""Dual-PRNet++: a feature pyramid of each image, and a field refined from level to level by local correlation."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from bundle.fields import compose, upsample, warp
from bundle.networks.peers.pair_network import FieldHead, PairNetwork, convolution, convolutions
from bundle.shapes import DDF, Features
from torch import nn

__all__ = ["DualPRNet", "local_correlation"]


def local_correlation(fixed: Features, moving: Features, radius: int) -> torch.Tensor:
    """Correlate the features of each voxel with those around the same voxel of another image.

    c_o(x) = mean over channels of fixed(x) · moving(x + o), for every offset o of up to ``radius`` voxels along each
    axis; zero where x + o lies outside.

    Args:
        fixed: (B, C, H, W, L).
        moving: the same shape.
        radius: r, in voxels.

    Returns:
        (B, (2r + 1)³, H, W, L), the offset along the last axis running fastest, from −r to r.
    """
    h, w, d = fixed.shape[2:]
    padded = F.pad(moving, [radius] * 6)
    span = range(2 * radius + 1)
    products = [
        (fixed * padded[:, :, i : i + h, j : j + w, k : k + d]).mean(1) for i in span for j in span for k in span
    ]
    return torch.stack(products, 1)


class FeaturePyramid(nn.Module):
    """The stream that both images go through: an encoder and a decoder, whose levels are the pyramid.

    Args:
        channels: of each level, from full resolution down.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.opening = convolution(1, channels[0])
        self.halvings = nn.ModuleList(convolution(a, b, stride=2) for a, b in pairwise(channels))
        self.residuals = nn.ModuleList(convolutions(c, c) for c in channels[1:])
        self.narrowings = nn.ModuleList(convolution(b, a) for a, b in pairwise(channels))
        self.refinements = nn.ModuleList(convolution(c, c) for c in channels[:-1])

    def forward(self, image: torch.Tensor) -> list[Features]:
        """Map (B, 1, H, W, L) to the features of each level, from full resolution down."""
        levels = [self.opening(image)]
        for halving, residual in zip(self.halvings, self.residuals):
            halved = halving(levels[-1])
            levels.append(halved + residual(halved))
        for i in reversed(range(len(self.narrowings))):
            coarser = self.narrowings[i](levels[i + 1])
            finer = F.interpolate(coarser, scale_factor=2, mode="trilinear", align_corners=False)
            levels[i] = self.refinements[i](levels[i] + finer)
        return levels


class Registration(nn.Module):
    """The field of one level, from both features and their local correlation.

    Args:
        channels: of the features.
        radius: of the correlation.
    """

    def __init__(self, channels: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.convolutions = convolutions(2 * channels + (2 * radius + 1) ** 3, channels)
        self.head = FieldHead(channels)

    def forward(self, fixed: Features, warped: Features) -> DDF:
        """Map two (B, C, H, W, L) to (B, 3, H, W, L), voxels of this level."""
        correlation = local_correlation(fixed, warped, self.radius)
        field: DDF = self.head(self.convolutions(torch.cat([fixed, warped, correlation], 1)))
        return field


class DualPRNet(PairNetwork):
    """Predict a field from coarse to fine: each level warps the moving features by what is found so far.

    Args:
        channels: of the pyramid's levels, from full resolution down.
        radius: of the local correlation, in voxels of each level.

    Source:
        Kang et al., Dual-stream pyramid registration network, Medical Image Analysis 78, 2022 (Dual-PRNet++); what it
        leaves open is listed in ``docs/peers.md``.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32, 64, 128), radius: int = 1) -> None:
        super().__init__(divisor=2 ** (len(channels) - 1), smallest=2 ** len(channels))
        self.pyramid = FeaturePyramid(channels)
        self.registration = nn.ModuleList(Registration(c, radius) for c in channels)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def find_field(self, pair: torch.Tensor) -> DDF:
        """See ``PairNetwork``."""
        moving, fixed = self.pyramid(pair[:, :1]), self.pyramid(pair[:, 1:])
        field = self.registration[-1](fixed[-1], moving[-1])
        for i in reversed(range(len(fixed) - 1)):
            field = upsample(field, list(fixed[i].shape[2:]))
            field = compose(field, self.registration[i](fixed[i], warp(moving[i], field)))
        return field
