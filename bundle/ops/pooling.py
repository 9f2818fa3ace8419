"""The layout that convolutions like, and halving a volume in it: ``F.avg_pool3d`` copies it to another and back."""

from itertools import product

import torch
import torch.nn.functional as F
from bundle.ops.streaming import Activation, as_planes
from bundle.shapes import Features

__all__ = ["channels_last", "halve", "halve_by_slabs"]

ELEMENTS_PER_CALL = 2**20  # of the planes that are averaged at a time
_CORNERS = tuple(product((0, 1), repeat=3))


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Features) -> Features:  # type: ignore[no-untyped-def]
        return _mean_of_corners(features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Features) -> Features:  # type: ignore[no-untyped-def]
        b, c, h, w, d = grad.shape
        result = grad.new_empty(b, c, 2 * h, 2 * w, 2 * d).contiguous(memory_format=torch.channels_last_3d)
        grad = grad.contiguous(memory_format=torch.channels_last_3d) / 8
        for i, j, k in _CORNERS:
            result[:, :, i::2, j::2, k::2] = grad
        return result


def _mean_of_corners(features: Features) -> Features:
    precise = torch.promote_types(features.dtype, torch.float32)
    total = features[:, :, ::2, ::2, ::2].to(precise, copy=True, memory_format=torch.channels_last_3d)
    for i, j, k in _CORNERS[1:]:
        total += features[:, :, i::2, j::2, k::2]
    return total.div_(8)


def channels_last(features: Features) -> Features:
    """Lay out features as the convolutions like them, except in a trace: exporters know nothing of layouts."""
    if not torch.jit.is_scripting():
        if torch.jit.is_tracing():
            return features
    return features.contiguous(memory_format=torch.channels_last_3d)


def halve(features: Features) -> Features:
    """Average each 2×2×2 block.

    Args:
        features: (B, C, H, W, L), sides even.

    Returns:
        (B, C, H/2, W/2, L/2), channels-last. Equals ``F.avg_pool3d(features, 2)``, which stands in while a graph is
        being scripted, traced or exported.
    """
    if not torch.jit.is_scripting():
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            if torch.is_grad_enabled():
                return _Halve.apply(features)
            return _mean_of_corners(features)
    return F.avg_pool3d(features, 2)


def halve_by_slabs(features: Features, before: Activation) -> Features:
    """Average each 2×2×2 block of a volume, without a graph, while its planes are in the cache.

    Args:
        features: (1, C, H, W, L), channels-last, sides even.
        before: what its planes still need, done in place first.

    Returns:
        As ``halve``, in the type of the features; sums are float32.
    """
    _, c, h, w, d = features.shape
    halved = features.new_empty(1, h // 2, w // 2, d // 2, c).movedim(-1, 1)
    rows = as_planes(features)
    count = 2 * max(1, ELEMENTS_PER_CALL // (2 * rows[0].numel()))
    for first in range(0, h, count):
        last = min(first + count, h)
        before(rows[first:last], rows[first:last])
        halved[:, :, first // 2 : last // 2] = _mean_of_corners(features[:, :, first:last])
    return halved
