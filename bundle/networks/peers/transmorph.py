"""TransMorph: a Swin transformer over both images at once, decoded by convolutions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from bundle.networks.peers.pair_network import FieldHead, PairNetwork, UpBlock, convolutions
from bundle.shapes import DDF, Features
from monai.networks.nets.swin_unetr import PatchMergingV2, SwinTransformerBlock, compute_mask
from torch import nn

__all__ = ["TransMorph"]


class SwinStage(nn.Module):
    """The blocks of one resolution: MONAI's, in pairs of plain and shifted windows.

    The features are padded to whole windows, one at least: MONAI's block would make a window as small as the features
    instead, and then take the position bias of other offsets.

    Args:
        channels: of the features.
        depth: number of blocks.
        heads: of the attention.
        window: sides of a window, in patches.
    """

    def __init__(self, channels: int, depth: int, heads: int, window: Sequence[int]) -> None:
        super().__init__()
        self.window, self.shift = tuple(window), tuple(side // 2 for side in window)
        shifts = [(0, 0, 0) if i % 2 == 0 else self.shift for i in range(depth)]
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(channels, heads, self.window, shift, qkv_bias=False) for shift in shifts
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (B, h, w, l, C) to the same shape."""
        sides = [int(side) for side in tokens.shape[1:4]]
        padding = [n for side, w in zip(reversed(sides), reversed(self.window)) for n in (0, -side % w)]
        tokens = F.pad(tokens, [0, 0, *padding])
        mask = compute_mask(list(tokens.shape[1:4]), self.window, self.shift, tokens.device)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tokens[:, : sides[0], : sides[1], : sides[2]]


class TransMorph(PairNetwork):
    """Predict a field by a Swin transformer over the concatenated images and a decoder like VoxelMorph's.

    Args:
        embedding: channels of the patches of 4×4×4 voxels; doubled from one stage to the next.
        depths: blocks of each stage, from a quarter of the resolution down.
        heads: of the attention in each stage.
        window: sides of an attention window, in patches; a 32nd of the image's sides in the publication.
        full_channels: of the skip connection at full resolution; at half resolution it has half of ``embedding``.

    Source:
        Chen et al., TransMorph: Transformer for unsupervised medical image registration, Medical Image Analysis 82,
        2022; what it leaves open is listed in ``docs/peers.md``.
    """

    PATCH = 4

    def __init__(
        self,
        embedding: int = 96,
        depths: Sequence[int] = (2, 2, 4, 2),
        heads: Sequence[int] = (4, 4, 8, 8),
        window: Sequence[int] = (5, 6, 7),
        full_channels: int = 16,
    ) -> None:
        super().__init__(divisor=self.PATCH, smallest=32)
        if len(depths) != len(heads):
            raise ValueError(f"Each stage needs its heads: {len(depths)} in depths, {len(heads)} in heads.")
        widths = [embedding * 2**i for i in range(len(depths))]
        self.embed = nn.Conv3d(2, embedding, self.PATCH, self.PATCH)
        self.embed_norm = nn.LayerNorm(embedding)
        self.stages = nn.ModuleList(SwinStage(c, d, h, window) for c, d, h in zip(widths, depths, heads))
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in widths)
        self.merges = nn.ModuleList(PatchMergingV2(c) for c in widths[:-1])
        self.full_skip = convolutions(2, full_channels)
        self.half_skip = convolutions(2, embedding // 2)
        narrower = [*reversed(widths[:-1]), embedding // 2, full_channels]
        self.decoder = nn.ModuleList(UpBlock(a, b, b) for a, b in zip([widths[-1], *narrower], narrower))
        self.head = FieldHead(full_channels)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def find_field(self, pair: torch.Tensor) -> DDF:
        """See ``PairNetwork``."""
        skips = [self.full_skip(pair), self.half_skip(F.avg_pool3d(pair, 2)), *self.encode(pair)]
        features = skips.pop()
        for step in self.decoder:
            features = step(features, skips.pop())
        field: DDF = self.head(features)
        return field

    def encode(self, pair: torch.Tensor) -> list[Features]:
        """Encode the pair at a quarter of the resolution and below: (B, C, h, w, l) of each stage."""
        tokens = self.embed_norm(self.embed(pair).movedim(1, -1))
        found: list[Features] = []
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms)):
            if i > 0:
                tokens = self.merges[i - 1](tokens)
            tokens = stage(tokens)
            found.append(norm(tokens).movedim(-1, 1).contiguous())
        return found
