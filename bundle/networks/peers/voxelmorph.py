"""VoxelMorph: MONAI's, behind the interface of ``PAN``."""

from collections.abc import Sequence

import torch
from bundle.networks.peers.pair_network import PairNetwork
from bundle.shapes import DDF
from monai.networks import nets

__all__ = ["VoxelMorph"]


class VoxelMorph(PairNetwork):
    """Predict a field by MONAI's ``VoxelMorph``.

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
        divisor = 2 ** (len(channels) // 2)
        super().__init__(divisor, smallest=divisor)
        backbone = nets.VoxelMorphUNet(3, 2, unet_out_channels, tuple(channels), tuple(final_conv_channels))
        self.network = nets.VoxelMorph(backbone, integration_steps, half_res)

    def find_field(self, pair: torch.Tensor) -> DDF:
        """See ``PairNetwork``."""
        field: DDF = self.network(pair[:, :1], pair[:, 1:])[1]
        return field
