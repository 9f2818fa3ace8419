"""What all peers share: the interface of ``PAN``, any size of image, and a decoder's step."""

from abc import ABC, abstractmethod
from typing import cast

import torch
import torch.nn.functional as F
from bundle.fields import warp
from bundle.networks.pair import as_pair
from bundle.shapes import DDF, Features, Volume
from monai.networks.blocks import Convolution
from torch import nn

__all__ = ["FieldHead", "PairNetwork", "UpBlock", "convolution", "convolutions"]

INITIAL_SD = 1e-5


class PairNetwork(nn.Module, ABC):
    """Predict the field that aligns a moving image to a fixed one, both on one grid, as ``PAN`` does.

    Any size: the images are padded with zeros at the end of each axis, and the field is cropped back. Fields of all
    networks have the same axes, units and direction.

    Args:
        divisor: that the padded sides are multiples of.
        smallest: side that is padded to at least: an instance norm cannot work on one voxel.
    """

    def __init__(self, divisor: int, smallest: int) -> None:
        super().__init__()
        self.divisor, self.smallest = divisor, smallest

    @abstractmethod
    def find_field(self, pair: torch.Tensor) -> DDF:
        """Map (B, 2, H, W, L), moving then fixed, of sides that suit the network, to (B, 3, H, W, L), voxels."""

    def forward(self, moving: Volume, fixed: Volume | None = None) -> torch.Tensor:
        """Register.

        Args:
            moving: (B, 1, H, W, L) in [0, 1]; or moving and fixed as one (B, 2, H, W, L) if ``fixed`` is None.
            fixed: (B, 1, H, W, L) in [0, 1], on the same grid.

        Returns:
            ``pred`` (B, 4, H, W, L): channel 0 the warped moving image, 1–3 the DDF, voxels.

        Raises:
            ValueError: an input of another shape.
        """
        pair = as_pair(moving, fixed, type(self).__name__).as_subclass(torch.Tensor)
        sides = [int(side) for side in pair.shape[2:]]
        padded = F.pad(pair, [n for side in reversed(sides) for n in (0, self._missing(side))])
        padded = padded.contiguous(memory_format=torch.channels_last_3d)  # convolutions take less time on a CPU
        ddf = self.find_field(padded)[:, :, : sides[0], : sides[1], : sides[2]].float()
        return torch.cat([warp(pair[:, :1], ddf), ddf], 1)

    def _missing(self, side: int) -> int:
        """Count the voxels that a side lacks."""
        return max(-(-side // self.divisor) * self.divisor, self.smallest) - side


def convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Build MONAI's convolution 3×3×3 with an instance norm and a leaky ReLU.

    The norm has no parameters and the convolution no bias, which the norm would take away.
    """
    norm, act = ("instance", {"affine": False}), ("leakyrelu", {"negative_slope": 0.1, "inplace": True})
    return cast(nn.Module, Convolution(3, in_channels, out_channels, stride, act=act, norm=norm, bias=False))


def convolutions(in_channels: int, out_channels: int) -> nn.Module:
    """Build two of them."""
    return nn.Sequential(convolution(in_channels, out_channels), convolution(out_channels, out_channels))


class UpBlock(nn.Module):
    """A step of a decoder: upsample to the next finer features, concatenate those if there are any, convolve twice.

    Args:
        in_channels: of the coarser features.
        skip_channels: of the finer ones, 0 for none.
        out_channels: of the result.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = convolutions(in_channels + skip_channels, out_channels)

    def forward(self, features: Features, skip: Features | None = None) -> Features:
        """Bring (B, C, h, w, l) to the sides of ``skip``, or to twice its own; (B, C_out, H, W, L)."""
        size = [2 * n for n in features.shape[2:]] if skip is None else list(skip.shape[2:])
        features = F.interpolate(features, size, mode="trilinear", align_corners=False)
        joined: Features = self.convolutions(features if skip is None else torch.cat([features, skip], 1))
        return joined


class FieldHead(nn.Conv3d):
    """Turn features into a field, of close to nothing at first: weights of standard deviation 1e-5, no bias yet.

    Args:
        in_channels: of the features.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 3, kernel_size=3, padding=1)
        nn.init.normal_(self.weight, std=INITIAL_SD)
        nn.init.zeros_(cast(torch.Tensor, self.bias))
