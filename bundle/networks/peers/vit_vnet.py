"""ViT-V-Net: a vision transformer at the bottleneck of a convolutional encoder and decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from bundle.networks.peers.pair_network import FieldHead, PairNetwork, UpBlock, convolution, convolutions
from bundle.shapes import DDF, Features
from torch import nn

__all__ = ["ViTVNet"]


class ViT(nn.Module):
    """Cut features into patches, add where each lies, and let all patches attend to all.

    Torch's own layers: MONAI's need einops, and hold a norm of a cross-attention that is never used.

    Args:
        in_channels: of the features.
        patch: side of a patch.
        hidden: channels of a patch's token.
        layers: how many.
        heads: of the attention; they divide ``hidden``.
        mlp: width of the perceptron in each layer.
        position_grid: patches along each axis that a position embedding is learnt for; resampled for other images.
    """

    def __init__(
        self, in_channels: int, patch: int, hidden: int, layers: int, heads: int, mlp: int, position_grid: Sequence[int]
    ) -> None:
        super().__init__()
        self.embed = nn.Conv3d(in_channels, hidden, patch, patch)
        self.position = nn.Parameter(torch.empty(1, hidden, *position_grid))
        nn.init.trunc_normal_(self.position, std=0.02)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)

    def forward(self, features: Features) -> Features:
        """Map (B, C, H, W, L) to (B, hidden, H / patch, W / patch, L / patch)."""
        embedded = self.embed(features)
        embedded = embedded + self.positions(list(embedded.shape[2:]))
        tokens = self.layers(embedded.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(embedded.shape)

    def positions(self, sides: list[int]) -> torch.Tensor:
        """Bring the position embedding to a grid: averaged where it is coarser, interpolated where it is finer."""
        h, w, d = (min(side, n) for side, n in zip(sides, self.position.shape[2:]))
        averaged = F.adaptive_avg_pool3d(self.position, (h, w, d))
        return F.interpolate(averaged, sides, mode="trilinear", align_corners=False)


class ViTVNet(PairNetwork):
    """Predict a field by a V-Net over the concatenated images, with a vision transformer at its bottleneck.

    Args:
        channels: of the convolutional encoder, from full resolution down, halved by max pooling in between; all of it
            is handed to the decoder.
        patch_level: of the encoder, whose features are cut into patches; 0 is full resolution.
        patch: side of a patch, in voxels of that level.
        hidden: channels of the transformer.
        layers: of the transformer.
        heads: of its attention.
        mlp: width of its perceptrons.
        position_grid: of the learnt position embedding, in patches.
        decoder: channels of the decoder: at the bottleneck, then at each finer level.

    Raises:
        ValueError: patches of another resolution than one below the encoder's coarsest, or a decoder of other length.

    Source:
        Chen et al., ViT-V-Net: Vision transformer for unsupervised volumetric medical image registration, MIDL 2021
        (arXiv 2104.06468); what it leaves open is listed in ``docs/peers.md``.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 32, 32),
        patch_level: int = 1,
        patch: int = 8,
        hidden: int = 252,
        layers: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        position_grid: Sequence[int] = (10, 12, 14),
        decoder: Sequence[int] = (512, 96, 48, 32, 16),
    ) -> None:
        divisor = 2 ** len(channels)
        if patch_level >= len(channels) or patch * 2**patch_level != divisor or len(decoder) != len(channels) + 1:
            raise ValueError(
                f"{len(channels)} levels of the encoder take patches of {divisor} voxels of the image and "
                f"{len(channels) + 1} numbers in decoder, not {patch} voxels of level {patch_level} and {decoder}."
            )
        super().__init__(divisor, smallest=2 * divisor)
        self.patch_level = patch_level
        self.encoder = nn.ModuleList(convolutions(a, b) for a, b in zip([2, *channels], channels))
        self.transformer = ViT(channels[patch_level], patch, hidden, layers, heads, mlp, position_grid)
        self.bottleneck = convolution(hidden, decoder[0])
        steps = zip(decoder, reversed(channels), decoder[1:])
        self.decoder = nn.ModuleList(UpBlock(above, skip, width) for above, skip, width in steps)
        self.head = FieldHead(decoder[-1])
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def find_field(self, pair: torch.Tensor) -> DDF:
        """See ``PairNetwork``."""
        levels: list[Features] = []
        for block in self.encoder:
            levels.append(block(F.max_pool3d(levels[-1], 2) if levels else pair))
        features = self.bottleneck(self.transformer(levels[self.patch_level]))
        for step in self.decoder:
            features = step(features, levels.pop())
        field: DDF = self.head(features)
        return field
