"""The encoder shared by the moving and the fixed image: five levels of convolutions and squeeze-and-excitation."""

import torch
import torch.nn.functional as F
from torch import nn

from bundle.ops import instance_norm_leaky_relu
from bundle.shapes import Features

__all__ = ["EncoderLevel", "SqueezeExcitation"]


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
        self.norm = norm
        self.convolution = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=not norm)

    def forward(self, features: Features) -> Features:
        """Map (B, C_in, H, W, L) to (B, C_out, H, W, L)."""
        features = self.convolution(features)
        return instance_norm_leaky_relu(features, 0.1) if self.norm else F.leaky_relu_(features, 0.1)


class SqueezeExcitation(nn.Module):
    """Scale channels by what the whole volume holds: global average, C → C/16 → C, sigmoid.

    Args:
        channels: C, a multiple of 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 16, bias=False)
        self.excite = nn.Linear(channels // 16, channels, bias=False)

    def forward(self, features: Features) -> Features:
        """Return the features scaled, (B, C, H, W, L)."""
        scale = F.leaky_relu(self.squeeze(features.mean((2, 3, 4))), 0.01)
        scale = torch.sigmoid(self.excite(scale)).view(features.shape[0], -1, 1, 1, 1)
        if torch.is_grad_enabled():
            return features * scale
        return features.mul_(scale)  # the features are this level's own, and the largest tensor of the network


class EncoderLevel(nn.Module):
    """One level: halve the resolution (all but level 1), convolve, recalibrate the channels.

    Args:
        in_channels: channels of the level above, 1 (the image) for level 1.
        out_channels: channels of this level.
        finest: level 1, which keeps the resolution and opens with a convolution to half its channels without a norm.
    """

    def __init__(self, in_channels: int, out_channels: int, finest: bool = False) -> None:
        super().__init__()
        opening = [ConvolutionBlock(in_channels, out_channels // 2, norm=False)] if finest else []
        first = out_channels // 2 if finest else in_channels
        self.pool = nn.Identity() if finest else nn.AvgPool3d(2)
        self.blocks = nn.Sequential(
            *opening, ConvolutionBlock(first, out_channels), ConvolutionBlock(out_channels, out_channels)
        )
        self.recalibrate = SqueezeExcitation(out_channels)

    def forward(self, features: Features) -> Features:
        """Map (B, C_in, H, W, L) to (B, C_out, H/2, W/2, L/2), or the full size for level 1."""
        return self.recalibrate(self.blocks(self.pool(features)))
