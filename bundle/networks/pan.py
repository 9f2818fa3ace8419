"""The Pyramid Attention Network: one encoder for both images, one loop from coarse to fine."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from bundle.fields import compose, upsample, warp
from bundle.networks.encoder import EncoderLevel
from bundle.networks.lat import LocalAttentionTransformer, Projection
from bundle.networks.pair import as_pair
from bundle.ops import channels_last, streamable, streamed_dtype
from bundle.shapes import DDF, Features, Volume
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["PAN"]


class PAN(nn.Module):
    """Predict the field that aligns a moving image to a fixed one, both on one grid.

    Any size: inputs are padded to a multiple of 2^(levels − 1), at least 2^levels (an instance norm cannot work on one
    voxel), and the field is cropped back. A fresh network returns the identity, up to 1e-4 voxel.

    Args:
        channels: encoder channels, from level 1 (finest) down.
        heads: attention heads of each level, **from deep to shallow**, as the paper lists them.
        head_channels: channels of a head.
        neighbourhood: side of the attention window in voxels, odd.
        recomputed: how many levels, from the finest down, training encodes again on its way back instead of keeping
            what lies between: less memory, more time, the same gradients.

    Raises:
        ValueError: ``channels`` and ``heads`` differ in length, or an input has another shape than ``forward`` asks.

    Source:
        Wang, Wang, Wang: Pyramid Attention Network for Medical Image Registration, ISBI 2024, section 2; what the
        paper leaves open is listed in ``docs/paper.md``.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        heads: Sequence[int] = (8, 4, 2, 1, 1),
        head_channels: int = 6,
        neighbourhood: int = 3,
        recomputed: int = 0,
    ) -> None:
        super().__init__()
        if len(channels) != len(heads):
            raise ValueError(f"Each level needs its heads: {len(channels)} levels in channels, {len(heads)} in heads.")
        into = [1, *channels]
        self.recomputed, self.channels = recomputed, tuple(channels)
        self.divisor = 2 ** (len(channels) - 1)
        self.encoder = nn.ModuleList(
            EncoderLevel(into[i], c, finest=i == 0, deepest=i == len(channels) - 1) for i, c in enumerate(channels)
        )
        self.projection = nn.ModuleList(Projection(c, s * head_channels) for c, s in zip(channels, reversed(heads)))
        self.attention = nn.ModuleList(LocalAttentionTransformer(s, head_channels, neighbourhood) for s in heads)
        # convolutions run up to 2× faster
        self.encoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, moving: Volume, fixed: Volume | None = None) -> torch.Tensor:
        """Register.

        Args:
            moving: (B, 1, H, W, L) in [0, 1]; or moving and fixed as one (B, 2, H, W, L) if ``fixed`` is None.
            fixed: (B, 1, H, W, L) in [0, 1], on the same grid.

        Returns:
            ``pred`` (B, 4, H, W, L): channel 0 the warped moving image, 1–3 the DDF. In training a dict instead:
            ``pred``, and ``gram``: for each level with several heads the (2, B, S, S) Gram matrices of query and key.
        """
        if not torch.jit.is_scripting():
            if not torch.compiler.is_compiling():  # what stands in for the input while exporting must stay what it is
                # a subclass, such as MONAI's MetaTensor, would slow every operation down
                moving = moving.as_subclass(torch.Tensor)
                fixed = fixed.as_subclass(torch.Tensor) if fixed is not None else None
        return self.register(as_pair(moving, fixed, "PAN"))

    def register(self, pair: torch.Tensor) -> torch.Tensor:
        """Register the channels of a (B, 2, H, W, L) tensor, moving then fixed; result as ``forward``."""
        moving = pair[:, :1]
        queries, keys = self.project(self.pad_to_pyramid(pair))
        if not torch.jit.is_scripting():
            with torch.autocast(pair.device.type, enabled=False):  # logits, fields and grids in full precision
                pred, gram = self.decode(moving, queries, keys)
            if self.training:
                return {"pred": pred, "gram": gram}  # type: ignore[return-value]
            return pred
        return self.decode(moving, queries, keys)[0]

    def find_field(self, pair: torch.Tensor, prepare: Callable[[Volume], Volume] | None = None) -> DDF:
        """Find the field alone, for those who have another image to warp by it.

        Args:
            pair: (B, 2, H, W, L), moving and fixed.
            prepare: what to do to either image first, (B, 1, H, W, L); done when its turn comes, it takes less memory.

        Returns:
            (B, 3, H, W, L), voxels.
        """
        padded = [n + self.missing(n) for n in pair.shape[2:]]
        room = self.room(pair, padded) if streamable(pair) else torch.zeros(0)
        levels = []
        for image, last in ((pair[:, 1:], False), (pair[:, :1], True)):  # nothing but encode holds what is prepared
            levels.append(self.encode(self.pad_to_pyramid(prepare(image) if prepare else image), room, last))
        del room
        with torch.autocast(pair.device.type, enabled=False):
            ddf = self.decode_field(*levels)[0]
        return ddf[:, :, : pair.shape[2], : pair.shape[3], : pair.shape[4]]

    def pad_to_pyramid(self, image: torch.Tensor) -> torch.Tensor:
        """Pad with zeros, after the last voxel of each axis, to sides that the pyramid can halve."""
        h, w, d = self.missing(image.shape[2]), self.missing(image.shape[3]), self.missing(image.shape[4])
        if not torch.jit.is_scripting():
            if streamable(image) and h + w + d == 0:  # a copy of the pair less
                return image
        return F.pad(image, [0, d, 0, w, 0, h])

    def missing(self, n: int) -> int:
        """Count the voxels that a side of n lacks."""
        return max(2 * self.divisor, (n + self.divisor - 1) // self.divisor * self.divisor) - n

    def project(self, pair: torch.Tensor) -> tuple[list[Features], list[Features]]:
        """Encode both images and project each level: projections of fixed (query) and moving (key), from level 1 down.

        One image after the other: as one batch they would take more memory.
        """
        room = torch.zeros(0)
        if not torch.jit.is_scripting():
            if streamable(pair):
                room = self.room(pair, pair.shape[2:])
        return self.encode(pair[:, 1:], room, False), self.encode(pair[:, :1], room, True)

    @torch.jit.unused
    def room(self, pair: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
        """Allocate what every level of either image overwrites when it is streamed: the features of the largest."""
        voxels = math.prod(sides)
        return pair.new_empty(max(c * (voxels // 8**i) for i, c in enumerate(self.channels)), dtype=streamed_dtype())

    @torch.jit.unused
    def place_in(self, room: torch.Tensor, image: Volume) -> int:
        """Count the numbers of level 1's projections if they fit where the features were, beside the levels below.

        A voxel's projections overwrite none but its own features and those before it.
        """
        voxels, per_voxel = image[0, 0].numel(), cast(Projection, self.projection[0]).weight.shape[0]
        below = max((c * (voxels // 8**i) for i, c in enumerate(self.channels) if i), default=0)
        fits = per_voxel <= self.channels[0] and per_voxel * voxels + below <= room.numel()
        return per_voxel * voxels if fits else 0

    def encode(self, image: Volume, room: torch.Tensor, last: bool) -> list[Features]:
        """Project every level of one image, from level 1 down: (B, S·d, H, W, L) each, still without bias.

        Args:
            image: (B, 1, H, W, L), sides multiples of 2^(levels − 1).
            room: what the levels overwrite if they are streamed, see ``room``; empty if they are not.
            last: whether no other image needs the room: the projections of level 1 come to lie in it on the way.
        """
        projections: list[Features] = []
        features = channels_last(image)
        for level, projection in zip(self.encoder, self.projection):
            if len(projections) > 0:  # not once more after the deepest level: exporters would see a side of 1 there
                image = F.avg_pool3d(image, 2)
            if not torch.jit.is_scripting():
                if self.training and len(projections) < self.recomputed:
                    projected, features = _recompute(level, projection, features, image)
                    projections.append(projected)
                    continue
                if room.numel() > 0:
                    full, scale, features = level.stream(features, room)  # type: ignore[operator]
                    place = self.place_in(room, image) if last and len(projections) == 0 else 0
                    within, room = room[:place], room[place:]
                    projected = projection.stream(full, scale, image, within)  # type: ignore[operator]
                    projections.append(projected)
                    continue
            full, scale, features = level(features)
            projections.append(projection(full, scale, image))
        if not torch.jit.is_scripting():
            if room.numel() > 0 and last:
                projections[0] = projections[0].clone()  # the room is let go, now that the features of all levels are
        return projections

    @torch.jit.unused
    def embeddings(self, image: Volume) -> list[torch.Tensor]:
        """Encode one image as the attention sees it: (B, S·d, H, W, L) of each level, from level 1 down.

        Args:
            image: (B, 1, H, W, L); padded as for registration.
        """
        projections = self.encode(self.pad_to_pyramid(image), torch.zeros(0), False)
        return [a.embed(p).flatten(1, 2) for p, a in zip(projections, reversed(self.attention))]  # type: ignore[operator]

    def decode(
        self, moving: Volume, queries: list[Features], keys: list[Features]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Find the field from coarse to fine and warp the moving image by it.

        Args:
            moving: the image, (B, 1, H, W, L), before padding.
            queries: projections of the fixed image, from level 1 down; consumed.
            keys: projections of the moving image; consumed.

        Returns:
            The prediction (B, 4, H, W, L) on the moving image's grid, and the Gram matrices of every level with more
            than one head, from deep to shallow.
        """
        ddf, gram = self.decode_field(queries, keys)
        ddf = ddf[:, :, : moving.shape[2], : moving.shape[3], : moving.shape[4]]
        return torch.cat([warp(moving, ddf), ddf], 1), gram

    def decode_field(self, queries: list[Features], keys: list[Features]) -> tuple[DDF, list[torch.Tensor]]:
        """Find the field from coarse to fine: as ``decode``, but the DDF alone, on the padded grid."""
        gram: list[torch.Tensor] = []
        ddf = torch.zeros(0)
        for i, attention in enumerate(self.attention):
            query, key = queries.pop(), keys.pop()  # from here on nothing else holds them
            if i > 0:
                ddf = upsample(ddf, [key.shape[2], key.shape[3], key.shape[4]])
                if not torch.jit.is_scripting():
                    if streamable(ddf):
                        ddf = channels_last(ddf)  # as the warp of compose wants it, while there is memory for two
                        sub_fields = attention.stream(query, key, ddf)  # type: ignore[operator]
                        del query, key  # as large as a field each, or two
                        residual = attention.merge_streamed(sub_fields)  # type: ignore[operator]
                        del sub_fields  # as large as a field for each head
                        ddf = compose(ddf, residual)
                        continue
                key = warp(key, ddf)
            residual, cosines = attention(query, key)
            ddf = residual if i == 0 else compose(ddf, residual)
            if cosines.numel() > 0:
                gram.append(cosines)
        return ddf, gram


def _recompute(level: nn.Module, projection: nn.Module, features: Features, image: Volume) -> tuple[Features, Features]:
    """Run a level and project its features, keeping for the backward pass what goes in alone."""

    def run(features: Features, image: Volume) -> tuple[Features, Features]:
        full, scale, halved = level(features)
        return projection(full, scale, image), halved

    found: tuple[Features, Features] = checkpoint(run, features, image, use_reentrant=False)
    return found
