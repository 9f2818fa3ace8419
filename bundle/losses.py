"""Equation 1 of the paper, L = L_ncc + α·L_reg + β·L_orth, and its three terms."""

from typing import TypeAlias, TypedDict

import torch
from bundle.correlation import local_ncc
from bundle.fields import warp
from bundle.shapes import DDF, Volume
from bundle.supervision import Supervision, draw_regions, known_field_loss, label_loss, warp_with_regions
from torch import nn

__all__ = ["RegistrationLoss", "ncc_loss", "orthogonality_loss", "smoothness_loss"]


class TrainingPrediction(TypedDict):
    """What the network hands over in training: the prediction, and the Gram matrices of its heads."""

    pred: torch.Tensor
    gram: list[torch.Tensor]


Prediction: TypeAlias = torch.Tensor | TrainingPrediction


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
        if self.label_weight > 0 and "moving_label" in pair and "fixed_label" in pair:
            regions = draw_regions(pair["moving_label"], pair["fixed_label"], self.regions)
            image = torch.zeros_like(fixed) if moving is None else moving
            found, shares = warp_with_regions(image, pair["moving_label"], regions, ddf)
            warped = warped if moving is None else found
            overlap = self.label_weight * label_loss(shares, pair["fixed_label"], regions)
        elif moving is not None:
            warped = warp(moving, ddf)
        alpha = self.synthetic_alpha if "synthetic" in pair and bool(pair["synthetic"]) else self.alpha
        return ncc_loss(warped, fixed, self.window) + alpha * smoothness_loss(ddf) + overlap
