"""The encoder shared by the moving and the fixed image: five levels of convolutions and squeeze-and-excitation."""

from typing import cast

import torch
import torch.nn.functional as F
from bundle.ops import (
    Activation,
    StreamedNorm,
    as_planes,
    convolve_by_slabs,
    halve,
    halve_by_slabs,
    instance_norm_leaky_relu,
)
from bundle.shapes import Features
from torch import nn

__all__ = ["EncoderLevel"]


class ConvolutionBlock(nn.Module):
    """Convolve 3×3×3, normalise each instance, apply a leaky ReLU.

    The instance norm has no parameters, so a bias before it would change nothing and only collect rounding noise; the
    block has a bias where no norm follows.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        norm: whether to normalise.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: bool = True) -> None:
        super().__init__()
        self.norm, self.slope = norm, 0.1
        self.convolution = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=not norm)

    def forward(self, features: Features) -> Features:
        """Map (B, C_in, H, W, L) to (B, C_out, H, W, L)."""
        features = self.convolution(features)
        return instance_norm_leaky_relu(features, self.slope) if self.norm else F.leaky_relu_(features, self.slope)

    @torch.jit.unused
    def stream(self, features: Features, before: Activation, out: torch.Tensor) -> tuple[Features, Activation]:
        """Convolve slab by slab (``convolve_by_slabs``): the result as the convolution leaves it, and what it needs."""
        weight, bias = self.convolution.weight, self.convolution.bias
        if self.norm:
            norm = StreamedNorm(self.slope)
            return convolve_by_slabs(features, weight, bias, out, before, norm.measure), norm.apply
        leaky_relu = torch.ops.aten.leaky_relu.out
        return convolve_by_slabs(features, weight, bias, out, before), lambda x, to: leaky_relu(x, self.slope, out=to)


class SqueezeExcitation(nn.Module):
    """Find a scale for every channel from what the whole volume holds: global average, C → C/16 → C, sigmoid.

    Args:
        channels: C, a multiple of 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 16, bias=False)
        self.excite = nn.Linear(channels // 16, channels, bias=False)

    def forward(self, average: torch.Tensor) -> torch.Tensor:
        """Map the averages over space, (B, C), to the scales, (B, C)."""
        return torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(average), 0.01)))


def _copy(planes: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(planes)


class EncoderLevel(nn.Module):
    """One level: convolve, recalibrate the channels, halve the resolution for the next.

    The recalibrated features themselves are never built: all that follows is linear, so the scale goes into the
    projection's weights and into the halved features, an eighth of the size.

    Args:
        in_channels: channels of the level above, 1 (the image) for level 1.
        out_channels: channels of this level.
        finest: level 1, which opens with a convolution to half its channels without a norm.
        deepest: the last level, whose features nothing halves.
    """

    def __init__(self, in_channels: int, out_channels: int, finest: bool = False, deepest: bool = False) -> None:
        super().__init__()
        self.deepest = deepest
        opening = [ConvolutionBlock(in_channels, out_channels // 2, norm=False)] if finest else []
        first = out_channels // 2 if finest else in_channels
        self.blocks = nn.Sequential(
            *opening, ConvolutionBlock(first, out_channels), ConvolutionBlock(out_channels, out_channels)
        )
        self.excitation = SqueezeExcitation(out_channels)

    def forward(self, features: Features) -> tuple[Features, torch.Tensor, Features]:
        """Run the level.

        Args:
            features: (B, C_in, H, W, L), sides even unless this is the deepest level.

        Returns:
            Features before recalibration (B, C_out, H, W, L), the scales (B, C_out), and the recalibrated features at
            half the resolution (the deepest level: at its own).
        """
        features = self.blocks(features)
        halved = features if self.deepest else halve(features)
        # of even sides, the average of averages is the average
        scale = self.excitation(halved.mean((2, 3, 4), dtype=self.excitation.squeeze.weight.dtype))
        return features, scale, halved * scale[:, :, None, None, None]

    @torch.jit.unused
    def stream(self, features: Features, room: torch.Tensor) -> tuple[Features, torch.Tensor, Features]:
        """Run the level slab by slab on what is ``streamable``.

        Args:
            features: as ``forward``, channels-last.
            room: C_out·H·W·L numbers or more: where the level's features come to lie, in their type of numbers.
        """
        rest: Activation = _copy
        blocks = cast("list[ConvolutionBlock]", list(self.blocks))
        sizes = [block.convolution.out_channels * features[0, 0].numel() for block in blocks]
        for block, size, following in zip(blocks, sizes, [*sizes[1:], sizes[-1]]):
            features, rest = block.stream(features, rest, room[following - size : following])
        halved = features if self.deepest else halve_by_slabs(features, rest)
        planes = as_planes(halved)
        if self.deepest:
            rest(planes, planes)
        # a plane at a time: torch copies what it averages in, or multiplies by, numbers of another type
        average = torch.stack([plane.mean((0, 1), dtype=torch.float32) for plane in planes]).mean(0)
        scale = self.excitation(average[None])
        if not self.deepest:  # whose features nothing halves, and nothing follows
            for plane in planes:
                plane.mul_(scale[0])
        return features, scale, halved
