"""MONAI's VoxelMorph behind the interface that this bundle's configs train, run and compare: a peer of PAN.

The only module of ``networks`` that imports MONAI, and therefore not imported by ``bundle.networks``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from bundle.shapes import Volume
from monai.networks import nets
from torch import nn

__all__ = ["VoxelMorph"]


class VoxelMorph(nn.Module):
    """Predict the field that aligns a moving image to a fixed one, as ``PAN`` does, by MONAI's ``VoxelMorph``.

    Any size: the images are padded with zeros at the end of each axis to what the U-Net can halve, and the result is
    cropped back. Fields of both networks have the same axes, units and direction.

    Args:
        channels: of the U-Net's blocks, from the finest down; an even number, at least 4.
        unet_out_channels: of the U-Net's output.
        final_conv_channels: of the convolutions after it.
        integration_steps: of the velocity field by scaling and squaring; 0 takes it for the field itself.
        half_res: integrate at half resolution.

    Source:
        Balakrishnan et al., VoxelMorph, IEEE TMI 2019; ``monai.networks.nets.VoxelMorph``.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 32, 32, 32, 32),
        unet_out_channels: int = 32,
        final_conv_channels: Sequence[int] = (16, 16),
        integration_steps: int = 7,
        half_res: bool = False,
    ) -> None:
        super().__init__()
        backbone = nets.VoxelMorphUNet(3, 2, unet_out_channels, tuple(channels), tuple(final_conv_channels))
        self.divisor = 2 ** (len(channels) // 2)
        self.network = nets.VoxelMorph(backbone, integration_steps, half_res)

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
        pair = moving if fixed is None else torch.cat([moving, fixed], 1)
        if pair.dim() != 5 or pair.shape[1] != 2:
            raise ValueError(f"VoxelMorph takes one moving and one fixed channel, (B, 2, H, W, L), got {pair.shape}.")
        pair = pair.as_subclass(torch.Tensor)
        sides = pair.shape[2:]
        padded = F.pad(pair, [n for side in reversed(sides) for n in (0, -side % self.divisor)])
        pred = torch.cat(self.network(padded[:, :1], padded[:, 1:]), 1)
        return pred[..., : sides[0], : sides[1], : sides[2]]
