"""The local attention Transformer (LAT) of one level: from two projections to a residual field."""

import torch
import torch.nn.functional as F
from bundle.fields import warp_planes
from bundle.ops import as_planes, channels_last, local_attention, streamed_dtype
from bundle.shapes import DDF, Features, Volume
from torch import nn

__all__ = ["LocalAttentionTransformer", "Projection"]

INITIAL_SD = 1e-5
VOXELS_AT_A_TIME = 2**15  # of what is projected: they stay in the cache
VOXELS_PER_SLAB = 3 * 2**16  # of what is attended to: two planes more are read than are needed


class Projection(nn.Module):
    """Map concat(features, image) linearly to the heads' channels, without concatenating and without the bias.

    The map commutes with sampling, so the moving side is projected first and S·d channels are warped instead of C + 1.
    The bias is added by ``LocalAttentionTransformer``, after the warp: a warp pads with zeros. The layer norm that
    follows begins by taking the mean over the channels away; that is linear too, and done here on the weights.

    Args:
        channels: C of the features.
        out_channels: S·d.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, channels + 1))
        nn.init.normal_(self.weight, std=INITIAL_SD)

    def forward(self, features: Features, scale: torch.Tensor, image: Volume) -> Features:
        """Project features (B, C, H, W, L), scaled by (B, C), and image (B, 1, H, W, L) to (B, S·d, H, W, L)."""
        centred = self.weight - self.weight.mean(0, keepdim=True)
        projected = torch.bmm(centred[:, :-1] * scale.unsqueeze(1), features.flatten(2))
        projected = projected.addcmul_(centred[:, -1:], image.flatten(2).to(projected.dtype))
        return projected.reshape(image.shape[0], -1, image.shape[2], image.shape[3], image.shape[4])

    @torch.jit.unused
    def stream(self, features: Features, scale: torch.Tensor, image: Volume, within: torch.Tensor) -> Features:
        """Project what is ``streamable``, as ``forward``: channels-last, in the type that features are kept in.

        Args:
            features: as for ``forward``.
            scale: likewise.
            image: likewise.
            within: memory to write to, that of the features if need be; new memory if it is empty.
        """
        centred = self.weight - self.weight.mean(0, keepdim=True)
        weight, gray_weight = centred[:, :-1] * scale, centred[:, -1:]
        voxels, gray = as_planes(features).flatten(0, 2), image.flatten()
        size = len(gray), len(centred)
        projected = within.view(size) if within.numel() > 0 else image.new_empty(size, dtype=streamed_dtype())
        parts = projected.T.split(VOXELS_AT_A_TIME, 1)
        for part, run, values in zip(parts, voxels.split(VOXELS_AT_A_TIME), gray.split(VOXELS_AT_A_TIME)):
            part[:] = (weight @ run.to(weight.dtype).T).addcmul_(gray_weight, values)
        return projected.T.view(1, -1, *image.shape[2:])


class LocalAttentionTransformer(nn.Module):
    """Find how each voxel of the fixed image moves within its neighbourhood of the moving one.

    Args:
        heads: S.
        head_channels: d.
        neighbourhood: n, odd.

    Source:
        Section 2.3.1 of the paper, equations (2)–(5).
    """

    def __init__(self, heads: int, head_channels: int = 6, neighbourhood: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.projection_bias = nn.Parameter(torch.zeros(heads * head_channels))
        self.norm = nn.LayerNorm(heads * head_channels)
        self.position_bias = nn.Parameter(torch.zeros(heads, neighbourhood, neighbourhood, neighbourhood))
        self.merge = nn.Conv3d(3 * heads, 3, kernel_size=3, padding=1)
        nn.init.normal_(self.merge.weight, std=INITIAL_SD)
        nn.init.zeros_(self.merge.bias)  # type: ignore[arg-type]

    def forward(self, query: Features, key: Features) -> tuple[DDF, torch.Tensor]:
        """Turn two projections into this level's residual.

        Args:
            query: ``Projection`` of the fixed image, (B, S·d, H, W, L).
            key: ``Projection`` of the moving image, already warped by the field found so far. Without a graph both are
                overwritten.

        Returns:
            The residual (B, 3, H, W, L) in voxels of this level, and the Gram matrices of the heads of query and key,
            (2, B, S, S): empty outside training, where nothing asks for them, and for a single head.
        """
        q, k = self.embed(query), self.embed(key)
        gram = torch.empty(0)
        if self.training and self.heads > 1:
            gram = torch.stack([head_gram(q), head_gram(k)])
        sub_fields = local_attention(q, k, self.position_bias)
        return self.merge(channels_last(sub_fields)), gram

    @torch.jit.unused
    def stream(self, query: Features, key: Features, ddf: DDF) -> torch.Tensor:
        """Warp the key and attend to it some planes at a time: what is ``streamable``, as ``forward``.

        Args:
            query: as ``forward``, channels-last, in the type that features are kept in; overwritten.
            key: ``Projection`` of the moving image, not yet warped, channels-last.
            ddf: the field found so far, (1, 3, H, W, L), voxels of this level.

        Returns:
            What ``merge_streamed`` makes the residual of: the sub-fields, (1, 3·S, H, W, L), channels-last.
        """
        height, plane = query.shape[2], query[0, 0, 0].numel()
        reach, count = self.position_bias.shape[1] // 2, max(1, VOXELS_PER_SLAB // plane)
        sub_fields = self._sub_fields_within(query, ddf.dtype)
        for first in range(0, height, count):
            last = min(first + count, height)
            begin, end = max(first - reach, 0), min(last + reach, height)  # of the planes that the slab attends to
            q = ddf.new_zeros(1, query.shape[1], end - begin, *query.shape[3:])
            q[:, :, first - begin : last - begin] = query[:, :, first:last]
            k = warp_planes(key, ddf, begin, end)
            found = local_attention(self.embed(q), self.embed(k), self.position_bias)
            sub_fields[:, :, first:last] = found[:, :, first - begin : last - begin]
            del q, k, found  # before the next ones are made
        return sub_fields

    @torch.jit.unused
    def _sub_fields_within(self, query: Features, dtype: torch.dtype) -> torch.Tensor:
        """Take the query's own memory for the sub-fields if they fit: a voxel's overwrite none but those before it."""
        voxels = query[0, 0].numel()
        shape = (1, *query.shape[2:], 3 * self.heads)
        fits = query.is_contiguous(memory_format=torch.channels_last_3d) and dtype.itemsize % query.itemsize == 0
        if fits and 3 * self.heads * dtype.itemsize <= query.shape[1] * query.itemsize:
            memory = as_planes(query).view(-1)[: voxels * 3 * self.heads * dtype.itemsize // query.itemsize]
            return memory.view(dtype).view(shape).movedim(-1, 1)
        return query.new_empty(shape, dtype=dtype).movedim(-1, 1)

    @torch.jit.unused
    def merge_streamed(self, sub_fields: torch.Tensor) -> DDF:
        """Apply ``merge`` to what is ``streamable``.

        By name: for few channels and short first axes F.conv3d takes another way, which unfolds the volume.
        """
        one = (1, 1, 1)
        residual: DDF = torch.mkldnn_convolution(sub_fields, self.merge.weight, self.merge.bias, one, one, one, 1)
        return residual

    def embed(self, projected: Features) -> torch.Tensor:
        """Add the bias, normalise over all channels, split the heads: (B, S·d, H, W, L) → (B, S, d, H, W, L).

        Without a graph it overwrites its input.
        """
        shape = [1, -1, 1, 1, 1]
        x = projected.float() if projected.dtype != torch.float64 else projected
        bias = (self.projection_bias - self.projection_bias.mean()).view(shape)  # centred, as the projection is
        if torch.is_grad_enabled():
            x = x + bias
            x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + self.norm.eps)
            x = torch.addcmul(self.norm.bias.view(shape), x, self.norm.weight.view(shape))
        else:
            x.add_(bias)
            x.mul_(torch.rsqrt(mean_square(x) + self.norm.eps))
            x.mul_(self.norm.weight.view(shape)).add_(self.norm.bias.view(shape))
        return x.reshape(x.shape[0], self.heads, -1, x.shape[2], x.shape[3], x.shape[4])


def mean_square(x: torch.Tensor) -> torch.Tensor:
    """Average the squares of all channels, (B, C, H, W, L) → (B, 1, H, W, L), without building them."""
    total = x[:, :1].square()
    for i in range(1, x.shape[1]):
        total.addcmul_(x[:, i : i + 1], x[:, i : i + 1])
    return total.div_(x.shape[1])


def head_gram(embedded: torch.Tensor) -> torch.Tensor:
    """Compute the cosines between heads, each flattened to one vector: (B, S, d, H, W, L) → (B, S, S)."""
    vectors = F.normalize(embedded.flatten(2), dim=2)
    return vectors @ vectors.transpose(1, 2)
