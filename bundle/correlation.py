"""How well two images agree: the local squared correlation, with its gradient, and without one in parts."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from bundle.shapes import Volume

__all__ = ["local_ncc"]

ELEMENTS_PER_SLAB = 5 << 17  # 2.5 MB, which stay in the cache and which the allocator keeps (``bundle.memory``)
PLANES_PER_SLAB = 16

Parts: TypeAlias = list[torch.Tensor]


def window_sum(x: torch.Tensor, dim: int, window: int) -> torch.Tensor:
    """Sum ``window`` neighbours along one axis by doubling: sums of 1, 2, 4, 8 … elements, one for each binary digit.

    Cheaper than a convolution (log₂ instead of ``window`` additions) and more accurate. Shortens the axis by
    ``window − 1``.

    Example:
        >>> window_sum(torch.arange(6.0), 0, 5).tolist()
        [10.0, 15.0]
    """
    return _over_window([x], dim, window, lambda one, other, n, m: [one[0] + other[0]])[0]


def _over_window(parts: Parts, dim: int, window: int, merge: Callable[[Parts, Parts, int, int], Parts]) -> Parts:
    """Merge ``window`` neighbours along one axis by doubling, as ``window_sum`` adds them.

    Args:
        parts: volumes of one shape but for their channels, what is known of each neighbour.
        dim: the axis, of all of them.
        window: how many neighbours.
        merge: what is known of n and of m neighbours together.
    """
    length = parts[0].shape[dim] - window + 1

    def cut(parts: Parts, start: int, length: int) -> Parts:
        return [part.narrow(dim, start, length) for part in parts]

    def double(block: Parts, size: int) -> Parts:
        n = block[0].shape[dim] - size
        return merge(cut(block, 0, n), cut(block, size, n), size, size)

    block, size, lowest = parts, 1, window & -window  # of ``size`` neighbours, doubled up to each bit of the window
    while size < lowest:
        block, size = double(block, size), 2 * size
    total, start = cut(block, 0, length), lowest
    while 2 * size <= window:
        block, size = double(block, size), 2 * size
        if window & size:
            total = merge(total, cut(block, start, length), start, size)
            start += size
    return total


def _moments_of(i: Volume, j: Volume, padding: list[int]) -> Parts:
    """What is known of single voxels, zeros around them: I and J, (B, 2, H, W, L), and var_I, var_J and cross, of 0."""
    sums = F.pad(torch.cat([i, j], 1), padding)
    return [sums, sums.new_zeros(()).expand(len(sums), 3, *sums.shape[2:])]


def _moments_along(moments: Parts, dim: int, window: int, each: int) -> Parts:
    """Turn the moments of ``each`` voxels into those of ``window`` times as many, along one axis (Chan's formula).

    With ΣI² − (ΣI)²/n what an even, bright window leaves in float32 is noise, below 0 as often as above. Merged, the
    variances are sums of squares, and cross² is no more than their product, but for the last digit.
    """

    def merge(one: Parts, other: Parts, n: int, m: int) -> Parts:
        difference = one[0].sub(other[0], alpha=n / m)  # of the sums, were there n voxels on both sides
        share = m / (n * (n + m) * each)
        products = one[1] + other[1]
        products[:, :2].addcmul_(difference, difference, value=share)
        products[:, 2:].addcmul_(difference[:, :1], difference[:, 1:], value=share)
        return [one[0] + other[0], products]

    return _over_window(moments, dim, window, merge)


def local_ncc(warped: Volume, fixed: Volume, window: int = 9) -> Volume:
    """Compute the local squared correlation of two images, cc = cross² / (var_I · var_J + 1e-5), in [0, 1].

    Float32 at least, whatever autocast says. It holds where images are even, too: nothing cancels.

    Args:
        warped: (B, 1, H, W, L).
        fixed: same shape.
        window: side of the window in voxels, odd; zeros beyond the border.

    Returns:
        (B, 1, H, W, L).

    Raises:
        ValueError: shapes differ, or an even window.

    Source:
        VoxelMorph's local NCC. Departs from MONAI's ``LocalNormalizedCrossCorrelationLoss``, which clamps each
        variance instead and leaves [0, 1] where both images are flat.
    """
    if warped.shape != fixed.shape:
        raise ValueError(f"The images must have one shape, got {tuple(warped.shape)} and {tuple(fixed.shape)}.")
    if window % 2 == 0:
        raise ValueError(f"The window must be odd, got {window}.")
    precise = torch.float64 if fixed.dtype == torch.float64 else torch.float32
    asked = torch.is_grad_enabled() and (warped.requires_grad or fixed.requires_grad)
    compute = _LocalNCC.apply if asked or warped.device.type != "cpu" else _local_ncc_by_slabs
    warped, fixed = (image.as_subclass(torch.Tensor) for image in (warped, fixed))  # MONAI's takes as long as the sums
    with torch.autocast(warped.device.type, enabled=False):
        return compute(warped.to(precise), fixed.to(precise), window)


class _LocalNCC(torch.autograd.Function):
    """The local correlation with its gradient written out: three window sums instead of a graph of five.

    A sum over windows, Σ, is its own adjoint. With cc = cross²/D and w = cross/D: dcc/dcross = 2w, dcc/dvar_I =
    −w²·var_J, dcross = Σ(J·dI) − ΣJ·Σ(dI)/n and dvar_I = 2 Σ(I·dI) − 2 ΣI·Σ(dI)/n.
    """

    @staticmethod
    def forward(ctx, i: Volume, j: Volume, window: int) -> Volume:  # type: ignore[no-untyped-def]
        moments = _moments_of(i, j, [window // 2] * 6)
        for dim, each in ((4, 1), (3, window), (2, window**2)):
            moments = _moments_along(moments, dim, window, each)
        correlation, weight = _correlate(moments[1])
        ctx.window = window
        ctx.save_for_backward(i, j, *moments[0].chunk(2, 1), *moments[1].chunk(3, 1)[:2], weight)
        return correlation

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Volume) -> tuple[Volume | None, Volume | None, None]:  # type: ignore[no-untyped-def]
        i, j, sum_i, sum_j, var_i, var_j, weight = ctx.saved_tensors
        by_cross = 2 * grad * weight
        by_var = by_cross * weight  # of either image, but for the sign and the other one's variance

        def gradient(i: Volume, j: Volume, sum_i: Volume, sum_j: Volume, var_j: Volume) -> Volume:
            twice_by_var = by_var * var_j
            means = torch.addcmul(by_cross * sum_j, twice_by_var, sum_i, value=-1)
            a, b, c = _sum_windows(torch.cat([by_cross, twice_by_var, means], 1), ctx.window).chunk(3, 1)
            return (j * a).addcmul_(i, b, value=-1).sub_(c, alpha=1 / ctx.window**3)

        return (
            gradient(i, j, sum_i, sum_j, var_j) if ctx.needs_input_grad[0] else None,
            gradient(j, i, sum_j, sum_i, var_i) if ctx.needs_input_grad[1] else None,
            None,
        )


def _correlate(products: torch.Tensor, out: Volume | None = None) -> tuple[Volume, Volume]:
    """Compute cross · w, into ``out`` where one is given, and w = cross / (var_I · var_J + 1e-5) of the moments."""
    var_i, var_j, cross = products.chunk(3, 1)
    weight = cross / (var_i * var_j).add_(1e-5)
    return torch.mul(cross, weight, out=out).clamp_(max=1), weight


def _local_ncc_by_slabs(i: Volume, j: Volume, window: int) -> Volume:
    """Compute ``local_ncc`` without a graph, some rows of some planes at a time: they stay in the cache."""
    half, width = window // 2, i.shape[3]
    rows = max(2 * half, ELEMENTS_PER_SLAB // (5 * (PLANES_PER_SLAB + 2 * half) * i.shape[4]) - 2 * half)
    found = torch.empty_like(i)
    for first in range(0, width, rows):
        last = min(first + rows, width)
        begin, end = max(first - half, 0), min(last + half, width)
        beyond = half - (first - begin), half - (end - last)  # rows that are not there
        _correlate_rows(i[:, :, :, begin:end], j[:, :, :, begin:end], beyond, window, found[:, :, :, first:last])
    return found


def _correlate_rows(i: Volume, j: Volume, beyond: tuple[int, int], window: int, out: Volume) -> None:
    """Compute some rows of ``local_ncc`` into ``out``: the images hold their neighbours, but for ``beyond`` rows."""
    half, height = window // 2, i.shape[2]

    def in_planes(first: int, last: int) -> Parts:
        """The moments within planes, zero beyond the border."""
        planes = slice(first, min(last, height))
        padding = [half, half, *beyond, 0, last - max(planes.stop, first)]
        moments = _moments_of(i[:, :, planes], j[:, :, planes], padding)
        return _moments_along(_moments_along(moments, 4, window, 1), 3, window, window)

    # planes that are still in some window
    passed = [F.pad(part, [0, 0, 0, 0, half, 0]) for part in in_planes(0, half)]
    for first in range(0, height, PLANES_PER_SLAB):
        last = min(first + PLANES_PER_SLAB, height)
        planes = [torch.cat(parts, 2) for parts in zip(passed, in_planes(first + half, last + half))]
        _correlate(_moments_along(planes, 2, window, window**2)[1], out[:, :, first:last])
        passed = [part[:, :, last - first :] for part in planes]


def _sum_windows(volumes: torch.Tensor, window: int) -> torch.Tensor:
    """Sum over the window around each voxel, zeros beyond the border: (B, C, H, W, L), same shape out."""
    volumes = F.pad(volumes, [window // 2] * 6)
    for dim in (4, 3, 2):
        volumes = window_sum(volumes, dim, window)
    return volumes
