"""What a training pair may carry besides its fixed image, and the terms of the loss that use it."""

from typing import Any, TypeAlias, TypedDict

import torch
from bundle.fields import warp
from bundle.shapes import DDF, Labels, Volume

__all__ = ["Supervision", "draw_regions", "known_field_loss", "label_loss", "prepare_batch", "warp_with_regions"]

EXTRAS = ("clean_moving", "moving_label", "fixed_label", "known", "known_ddf", "synthetic")
BEND = 0.1  # voxels: errors of a known field count squared far below it, and as they are far above
OUTSIDE = 0.1  # weight of a voxel that shows nothing where the field is known


class Supervision(TypedDict, total=False):
    """What a batch is judged against, where that is more than the fixed image."""

    label: Volume
    """Fixed image that the warped one is compared to: the clean one, if the network sees another."""
    clean_moving: Volume
    """Moving image to warp; without it, the network's own warped image is compared."""
    moving_label: Labels
    fixed_label: Labels
    known: torch.Tensor
    """(B,) bool: pairs whose field is known."""
    known_ddf: DDF
    synthetic: torch.Tensor
    """(B,) bool: pairs whose images do not look as in reality."""


Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor | Supervision]


def prepare_batch(batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Batch:
    """Split a batch for MONAI's trainer into what the network sees and what the loss sees.

    Args:
        batch: ``image`` and ``label``, and any of the keys of ``Supervision``.
        device: to move the tensors to.
        non_blocking: as for ``Tensor.to``.
        kwargs: of ``Tensor.to``.

    Returns:
        ``image``, and ``label`` alone if the batch carries no more, as MONAI's own function would.
    """
    image = batch["image"].to(device, non_blocking=non_blocking, **kwargs)
    found = {key: batch[key].to(device, non_blocking=non_blocking) for key in ("label", *EXTRAS) if key in batch}
    return image, found["label"] if len(found) == 1 else found  # type: ignore[return-value]


def warp_with_regions(moving: Volume, labels: Labels, regions: torch.Tensor, ddf: DDF) -> tuple[Volume, torch.Tensor]:
    """Warp an image and the indicators of some of its regions at once.

    Args:
        moving: (1, 1, H, W, L).
        labels: same shape.
        regions: (R,), labels.
        ddf: (1, 3, H, W, L), voxels.

    Returns:
        The warped image (1, 1, H, W, L) and the share of each region in each voxel, (1, R, H, W, L).
    """
    indicators = labels == regions.view(1, -1, 1, 1, 1)
    warped = warp(torch.cat([moving, indicators.to(moving.dtype)], 1), ddf)
    return warped[:, :1], warped[:, 1:]


def draw_regions(moving: Labels, fixed: Labels, count: int) -> torch.Tensor:
    """Choose up to ``count`` of the regions that both label maps hold, at random by torch's own generator: (R,)."""
    present = [labels.unique().long() for labels in (moving, fixed)]
    common = present[0][torch.isin(present[0], present[1]) & (present[0] > 0)]
    return common[torch.randperm(len(common))[:count].to(common.device)]


def label_loss(warped: torch.Tensor, fixed: Labels, regions: torch.Tensor) -> torch.Tensor:
    """Measure how badly regions overlap: 1 minus the mean soft Dice, 2 Σ(p·q) / (Σp + Σq), in [0, 1].

    Args:
        warped: share p of each region in each voxel, (1, R, H, W, L), from ``warp_with_regions``.
        fixed: label map, (1, 1, H, W, L), whose indicators are q.
        regions: (R,); 0 is returned if there are none.

    Source:
        Balakrishnan et al., VoxelMorph, IEEE Transactions on Medical Imaging 38(8), 2019, equation 12.
    """
    if len(regions) == 0:
        return warped.sum() * 0.0
    q = (fixed == regions.view(1, -1, 1, 1, 1)).to(warped.dtype)
    overlap, volumes = (warped * q).flatten(2).sum(-1), (warped.flatten(2).sum(-1) + q.flatten(2).sum(-1))
    return 1 - (2 * overlap / volumes.clamp(min=1e-5)).mean()


def known_field_loss(ddf: DDF, known: DDF, fixed: Volume, moved: float = 0.0) -> torch.Tensor:
    """Measure the mean error of a field whose truth is known, voxels: √(|u − v|² + BEND²) − BEND.

    Squared for errors far below ``BEND``, the plain distance above: a few voxels far off do not outweigh all others.

    Args:
        ddf: u, (B, 3, H, W, L), voxels.
        known: v, same shape.
        fixed: (B, 1, H, W, L); where it shows nothing a voxel counts ``OUTSIDE``, else 1.
        moved: by how much more a voxel counts for each voxel that it moves: what changes is a small part of a head.
    """
    error = ((ddf - known).square().sum(1, keepdim=True) + BEND**2).sqrt() - BEND
    weight = torch.where(fixed > 0.03, 1.0, OUTSIDE) * (1 + moved * known.norm(dim=1, keepdim=True))
    return (error * weight).sum() / weight.sum()
