"""How well two images agree: the local squared correlation, with its gradient, and without one in parts."""

import torch
import torch.nn.functional as F
from bundle.shapes import Volume

__all__ = ["local_ncc"]

ELEMENTS_PER_SLAB = 5 << 17  # 2.5 MB, which stay in the cache and which the allocator keeps (``bundle.memory``)
PLANES_PER_SLAB = 16


def window_sum(x: torch.Tensor, dim: int, window: int) -> torch.Tensor:
    """Sum ``window`` neighbours along one axis by doubling: sums of 1, 2, 4, 8 … elements, one for each binary digit.

    Cheaper than a convolution (log₂ instead of ``window`` additions) and more accurate. Shortens the axis by
    ``window − 1``.

    Example:
        >>> window_sum(torch.arange(6.0), 0, 5).tolist()
        [10.0, 15.0]
    """
    length = x.shape[dim] - window + 1
    block, size, lowest = x, 1, window & -window  # sums of ``size`` neighbours, doubled up to each bit of the window
    while size < lowest:
        block, size = _doubled(block, size, dim), 2 * size
    total, start = block.narrow(dim, 0, length), lowest
    while 2 * size <= window:
        block, size = _doubled(block, size, dim), 2 * size
        if window & size:
            total = total + block.narrow(dim, start, length)
            start += size
    return total


def _doubled(block: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    """Turn sums of ``size`` neighbours into sums of twice as many."""
    n = block.shape[dim] - size
    return block.narrow(dim, 0, n) + block.narrow(dim, size, n)


def local_ncc(warped: Volume, fixed: Volume, window: int = 9) -> Volume:
    """Compute the local squared correlation of two images, cc = cross² / (var_I · var_J + 1e-5), in [0, 1].

    Float32 at least, whatever autocast says: the variances cancel to nothing in half precision.

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
        sums = _sum_windows(_products(i, j), window)
        cross, weight = _correlate(sums, window)
        ctx.window = window
        ctx.save_for_backward(i, j, *sums.chunk(5, 1)[:4], weight)
        return cross * weight

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


def _products(i: Volume, j: Volume) -> torch.Tensor:
    """Multiply what the sums are taken of: I, J, I², J² and I·J, (B, 5, H, W, L)."""
    return torch.cat([i, j, i * i, j * j, i * j], 1)


def _correlate(sums: torch.Tensor, window: int) -> tuple[Volume, Volume]:
    """Compute cross and w = cross / (var_I · var_J + 1e-5) of the sums of ``_products``, of which three become moments.

    The third to the fifth channel are overwritten by var_I, var_J and cross.
    """
    sum_i, sum_j, var_i, var_j, cross = sums.chunk(5, 1)
    for moment, one, other in ((var_i, sum_i, sum_i), (var_j, sum_j, sum_j), (cross, sum_i, sum_j)):
        moment.addcmul_(one, other, value=-1 / window**3)
    return cross, cross / (var_i * var_j).add_(1e-5)


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

    def in_planes(first: int, last: int) -> torch.Tensor:
        """The sums within planes, zero beyond the border."""
        planes = slice(first, min(last, height))
        padding = [half, half, *beyond, 0, last - max(planes.stop, first)]
        sums = F.pad(_products(i[:, :, planes], j[:, :, planes]), padding)
        return window_sum(window_sum(sums, 4, window), 3, window)

    passed = F.pad(in_planes(0, half), [0, 0, 0, 0, half, 0])  # planes that are still in some window
    for first in range(0, height, PLANES_PER_SLAB):
        last = min(first + PLANES_PER_SLAB, height)
        planes = torch.cat([passed, in_planes(first + half, last + half)], 2)
        cross, weight = _correlate(window_sum(planes, 2, window), window)
        torch.mul(cross, weight, out=out[:, :, first:last])
        passed = planes[:, :, last - first :]


def _sum_windows(volumes: torch.Tensor, window: int) -> torch.Tensor:
    """Sum over the window around each voxel, zeros beyond the border: (B, C, H, W, L), same shape out."""
    volumes = F.pad(volumes, [window // 2] * 6)
    for dim in (4, 3, 2):
        volumes = window_sum(volumes, dim, window)
    return volumes
