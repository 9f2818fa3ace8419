"""Equation 1 of the paper, L = L_ncc + α·L_reg + β·L_orth, and its three terms."""

from typing import TypeAlias, TypedDict

import torch
import torch.nn.functional as F
from bundle.fields import warp
from bundle.shapes import DDF, Volume
from bundle.supervision import Supervision, draw_regions, known_field_loss, label_loss, warp_with_regions
from torch import nn

__all__ = ["RegistrationLoss", "local_ncc", "ncc_loss", "orthogonality_loss", "smoothness_loss"]

ELEMENTS_PER_SLAB = (
    5 << 17
)  # 2.5 MB: it stays in the cache, and the allocator keeps it for the next (``bundle.memory``)
PLANES_PER_SLAB = 16


class TrainingPrediction(TypedDict):
    """What the network hands over in training: the prediction, and the Gram matrices of its heads."""

    pred: torch.Tensor
    gram: list[torch.Tensor]


Prediction: TypeAlias = torch.Tensor | TrainingPrediction


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


def ncc_loss(warped: Volume, fixed: Volume, window: int = 9) -> torch.Tensor:
    """Measure dissimilarity: minus the mean of ``local_ncc``, in [−1, 0]."""
    return -local_ncc(warped, fixed, window).mean()


def smoothness_loss(ddf: DDF) -> torch.Tensor:
    """Penalise uneven fields: forward differences squared, averaged along each axis, then over the three axes.

    Args:
        ddf: (B, 3, H, W, L), voxels.

    Source:
        L_reg of the paper as VoxelMorph's l2 gradient. MONAI's ``DiffusionLoss`` takes central differences, which do
        not see a checkerboard.

    Example:
        >>> ramp = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 3, 4, 4, 4)  # gradient 1 along one axis of three
        >>> round(smoothness_loss(ramp).item(), 4)
        0.3333
    """
    with torch.autocast(ddf.device.type, enabled=False):
        return _Smoothness.apply(ddf.float() if ddf.dtype != torch.float64 else ddf)


class _Smoothness(torch.autograd.Function):
    """The penalty with its gradient written out: autograd fills a volume of zeros for every slice of a difference."""

    @staticmethod
    def forward(ctx, ddf: DDF) -> torch.Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(ddf)
        return torch.stack([ddf.diff(dim=dim).square_().mean() for dim in (2, 3, 4)]).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor) -> DDF:  # type: ignore[no-untyped-def]
        (ddf,) = ctx.saved_tensors
        result = torch.zeros_like(ddf)
        for dim in (2, 3, 4):
            difference = ddf.diff(dim=dim)
            difference *= grad * 2 / (3 * difference.numel())
            result.narrow(dim, 1, difference.shape[dim]).add_(difference)
            result.narrow(dim, 0, difference.shape[dim]).sub_(difference)
        return result


def orthogonality_loss(gram: list[torch.Tensor]) -> torch.Tensor:
    """Push the heads apart: mean squared difference between their cosines and the identity.

    Args:
        gram: for each level, the Gram matrices (2, B, S, S) of query and key, heads normalised to length 1.

    Returns:
        The mean over levels, of means over query and key, batch and entries; 0 without levels.

    Source:
        Equation 6, applied at every level with several heads.
    """
    if not gram:
        return torch.zeros(())
    one = [(g.float() - torch.eye(g.shape[-1], device=g.device)).square().mean() for g in gram]
    return torch.stack(one).mean()


class RegistrationLoss(nn.Module):
    """Equation 1: local NCC, plus α times smoothness, plus β times orthogonality of the heads.

    Takes what the network returns in training, or a plain ``pred`` tensor, which has no heads to judge (validation,
    other networks). Where a batch carries more than its fixed image (``bundle.supervision``), clean images are what the
    NCC compares, label maps add ``label_weight`` times 1 minus their soft Dice, and a known field takes the place of
    all terms but the orthogonality. At the defaults the loss of a plain pair is the paper's.

    Args:
        alpha: weight of the smoothness, 1 for brains, 0.5 for abdomens.
        beta: weight of the orthogonality.
        window: side of the NCC window in voxels.
        label_weight: weight of the overlap of regions; 0 leaves labels unused.
        regions: how many regions are drawn for it at each step.
        synthetic_alpha: weight of the smoothness of pairs with synthetic contrasts; None takes ``alpha``.
        known_weight: weight of the error, in voxels, of a field that is known.
        moved_weight: by how much more of it a voxel counts for each voxel that it moves.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        window: int = 9,
        label_weight: float = 0.0,
        regions: int = 12,
        synthetic_alpha: float | None = None,
        known_weight: float = 1.0,
        moved_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.window, self.moved_weight = alpha, beta, window, moved_weight
        self.label_weight, self.regions, self.known_weight = label_weight, regions, known_weight
        self.synthetic_alpha = alpha if synthetic_alpha is None else synthetic_alpha

    def forward(self, pred: Prediction, fixed: Volume | Supervision) -> torch.Tensor:
        """Return the scalar loss of ``pred`` (B, 4, H, W, L: warped, ddf).

        Args:
            pred: of the network.
            fixed: image (B, 1, H, W, L), or what else the batch carries, from ``prepare_batch``.
        """
        if not isinstance(pred, torch.Tensor):
            return self(pred["pred"], fixed) + self.beta * orthogonality_loss(pred["gram"])
        if isinstance(fixed, torch.Tensor):
            return ncc_loss(pred[:, :1], fixed, self.window) + self.alpha * smoothness_loss(pred[:, 1:])
        # a pair at a time: each has its own kind, and its own regions
        pairs = [{key: value[i : i + 1] for key, value in fixed.items()} for i in range(len(pred))]  # type: ignore[index]
        return torch.stack([self._judge(one, pair) for one, pair in zip(pred.split(1), pairs)]).mean()  # type: ignore[arg-type]

    def _judge(self, pred: torch.Tensor, pair: Supervision) -> torch.Tensor:
        """Return the loss of one pair, but for the orthogonality."""
        fixed, ddf = pair["label"], pred[:, 1:]
        if "known" in pair and bool(pair["known"]):
            return self.known_weight * known_field_loss(ddf, pair["known_ddf"], fixed, moved=self.moved_weight)
        warped, overlap = pred[:, :1], torch.zeros((), device=pred.device)
        moving = pair.get("clean_moving")
        if self.label_weight > 0 and "moving_label" in pair:
            regions = draw_regions(pair["moving_label"], pair["fixed_label"], self.regions)
            image = torch.zeros_like(fixed) if moving is None else moving
            found, shares = warp_with_regions(image, pair["moving_label"], regions, ddf)
            warped = warped if moving is None else found
            overlap = self.label_weight * label_loss(shares, pair["fixed_label"], regions)
        elif moving is not None:
            warped = warp(moving, ddf)
        alpha = self.synthetic_alpha if "synthetic" in pair and bool(pair["synthetic"]) else self.alpha
        return ncc_loss(warped, fixed, self.window) + alpha * smoothness_loss(ddf) + overlap
