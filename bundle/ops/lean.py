"""Local attention by slabs, never unfolding K: memory traffic is its cost, so each slab stays in the cache.

A shift of a padded volume is an offset in memory. With K padded all around and Q padded to the same row length, the 27
neighbours of a run of voxels are 27 contiguous runs of K, and every step is one pass over contiguous vectors. The
backward pass keeps Q, K, φ and P only and computes the weights again, slab by slab.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from bundle.ops.reference import neighbour_offsets

__all__ = ["local_attention_lean"]

LOGITS_PER_SLAB = 2**21


@dataclass(frozen=True)
class _Layout:
    """Where voxels and their neighbours lie in the flattened, padded volumes of one head."""

    neighbourhood: int
    height: int
    width: int
    depth: int

    @property
    def row(self) -> int:
        return self.depth + self.neighbourhood - 1

    @property
    def plane(self) -> int:
        return (self.width + self.neighbourhood - 1) * self.row

    @property
    def shifts(self) -> list[int]:
        n = range(self.neighbourhood)
        return [i * self.plane + j * self.row + k for i in n for j in n for k in n]

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Yield (first plane, plane after the last) of runs of whole planes."""
        planes = max(1, LOGITS_PER_SLAB // (len(self.shifts) * self.plane))
        for first in range(0, self.height, planes):
            yield first, min(first + planes, self.height)

    def buffer(self, like: torch.Tensor) -> torch.Tensor:
        """Allocate the logits of the largest slab, (n³, voxels)."""
        return like.new_empty(len(self.shifts), self.voxels(*next(self.slabs())))

    def voxels(self, first: int, last: int) -> int:
        """Count the voxels of a slab, all of whose neighbours lie inside its padded volume."""
        return (last - first) * self.plane - (self.neighbourhood - 1) * (self.row + 1)

    def crop(self, flat: torch.Tensor, planes: int) -> torch.Tensor:
        """See a padded run as the volume that it holds, from its first voxel on: (d, voxels) → (d, planes, W, L)."""
        size = (len(flat), planes, self.width, self.depth)
        return flat.as_strided(size, (flat.stride(0), self.plane, self.row, 1))


class _Slab:
    """The padded slab of a volume (d, H, W, L), which is filled anew for each.

    One buffer serves all slabs: the system clears new memory first.

    Args:
        reach: planes, rows and voxels of zeros or neighbours before the slab; the rest of the padding follows it.
    """

    def __init__(self, volume: torch.Tensor, layout: _Layout, reach: int = 0) -> None:
        n, planes = layout.neighbourhood - 1, next(layout.slabs())[1]
        self.volume, self.reach = volume, reach
        self.padded = volume.new_zeros(len(volume), planes + 2 * reach, layout.width + n, layout.depth + n)

    def fill(self, first: int, last: int) -> torch.Tensor:
        """Copy a slab, and the planes that it reaches, beyond the border zeros: (d, at least its voxels)."""
        r, (_, height, width, depth) = self.reach, self.volume.shape
        begin, end = max(first - r, 0), min(last + r, height)  # of the planes that there are
        before, after = begin - (first - r), end - (first - r)
        self.padded[:, :before] = 0
        self.padded[:, after:] = 0
        self.padded[:, before:after, r : r + width, r : r + depth] = self.volume[:, begin:end]
        return self.padded.flatten(1)


def _exponentials(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor, shifts: list[int], buffer: torch.Tensor
) -> torch.Tensor:
    """Compute exp(logit − largest logit) of a run: query (d, m), key (d, m + largest shift) → (n³, m), in buffer."""
    m = query.shape[1]
    logits, channels = buffer[:, :m], query.unbind()
    for row, total, shift in zip(logits, bias, shifts):
        for q, k in zip(channels, key[:, shift : shift + m].unbind()):
            total = torch.addcmul(total, q, k, out=row)  # the first on the bias, the others on the row itself
    return logits.sub_(logits.amax(0)).exp_()


def _forward_head(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor, layout: _Layout) -> torch.Tensor:
    """Compute the sub-field of one head: query, key (d, H, W, L), bias (n³,) → (3, H, W, L)."""
    offsets = neighbour_offsets(layout.neighbourhood, query)
    # the fourth row sums the weights: numerators and denominator from one matrix product
    columns = torch.cat([offsets, torch.ones_like(offsets[:, :1])], 1).t().contiguous()
    out = query.new_empty(3, *query.shape[1:])
    q_slab, k_slab, buffer = _Slab(query, layout), _Slab(key, layout, layout.neighbourhood // 2), layout.buffer(query)
    for first, last in layout.slabs():
        q = q_slab.fill(first, last)[:, : layout.voxels(first, last)]
        sums = columns @ _exponentials(q, k_slab.fill(first, last), bias, layout.shifts, buffer)
        torch.div(*(layout.crop(part, last - first) for part in (sums[:3], sums[3:])), out=out[:, first:last])
    return out


def _backward_head(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor, field: torch.Tensor, grad: torch.Tensor, layout: _Layout
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the gradients of one head by q, k and P: dlogit_i = p_i (g·V_i − g·φ)."""
    offsets = neighbour_offsets(layout.neighbourhood, query)
    r, shifts = layout.neighbourhood // 2, layout.shifts
    grad_q, grad_bias = torch.empty_like(query), torch.zeros_like(bias)
    grad_k = query.new_zeros(len(key), (layout.height + 2 * r) * layout.plane)
    expected = (grad * field).sum(0, keepdim=True)
    slabs = [_Slab(volume, layout) for volume in (query, grad, expected)]
    k_slab, buffers = _Slab(key, layout, r), [layout.buffer(query) for _ in range(2)]
    for first, last in layout.slabs():
        m = layout.voxels(first, last)
        q, g, mean = (slab.fill(first, last)[:, :m] for slab in slabs)
        k = k_slab.fill(first, last)
        p = _exponentials(q, k, bias, shifts, buffers[0])
        grad_logits = torch.mm(offsets, g, out=buffers[1][:, :m]).sub_(mean).mul_(p).div_(p.sum(0))
        grad_bias += grad_logits.sum(1)
        gq, gk = torch.zeros_like(q), grad_k[:, first * layout.plane :]
        for row, shift in zip(grad_logits, shifts):
            gq.addcmul_(row, k[:, shift : shift + m])
            gk[:, shift : shift + m].addcmul_(row, q)
        grad_q[:, first:last] = layout.crop(gq, last - first)
    inner = grad_k[:, r * (layout.plane + layout.row + 1) :]
    return grad_q, layout.crop(inner, layout.height), grad_bias


class _LocalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        b, s = query.shape[:2]
        layout = _Layout(bias.shape[1], *query.shape[3:])
        out = query.new_empty(b, s, 3, *query.shape[3:])
        for i in range(b):
            for j in range(s):
                out[i, j] = _forward_head(query[i, j], key[i, j], bias[j].flatten(), layout)
        ctx.save_for_backward(query, key, bias, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
        query, key, bias, out = ctx.saved_tensors
        layout = _Layout(bias.shape[1], *query.shape[3:])
        grad_query, grad_key, grad_bias = torch.empty_like(query), torch.empty_like(key), torch.zeros_like(bias)
        for i in range(query.shape[0]):
            for j in range(query.shape[1]):
                grad_query[i, j], grad_key[i, j], one = _backward_head(
                    query[i, j], key[i, j], bias[j].flatten(), out[i, j], grad[i, j], layout
                )
                grad_bias[j] += one.view_as(bias[j])
        return grad_query, grad_key, grad_bias


def local_attention_lean(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute the expected offset of every head slab by slab; arguments as ``local_attention``, once differentiable."""
    return _LocalAttention.apply(query, key, bias).flatten(1, 2)
