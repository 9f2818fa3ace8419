"""How plausible a field is: where it folds, and how evenly it changes volume. One pair at a time."""

import math

import torch
from bundle.fields import jacobian_determinant
from bundle.shapes import DDF
from monai.utils import convert_to_tensor

__all__ = ["folding_percent", "log_jacobian_sd"]


def folding_percent(ddf: DDF, mask: torch.Tensor | None = None) -> float:
    """Compute the share of voxels where the field folds: 100 · count(det J ≤ 0) / count.

    A determinant that is not a number counts as a fold, so that a broken field cannot look perfect.

    Args:
        ddf: field of one pair, (1, 3, H, W, L), voxels; half precision is measured in float32.
        mask: voxels to count, (1, 1, H, W, L) or (H, W, L), non-zero inside; all when None.

    Returns:
        Per cent, 0 to 100; NaN when the mask is empty.

    Raises:
        ValueError: the field is not of one pair, a side is shorter than 2, or the mask has another grid.

    Example:
        >>> ddf = torch.zeros(1, 3, 4, 5, 5)
        >>> ddf[:, 0, 2, 0, 0] = -2  # the voxel below, one of a hundred, now maps to a point
        >>> folding_percent(ddf)
        1.0
    """
    det = _determinants(ddf, mask)
    return 100 * (~(det > 0)).sum().item() / det.numel() if det.numel() else math.nan


def log_jacobian_sd(ddf: DDF, mask: torch.Tensor | None = None) -> float:
    """Compute how unevenly the field changes volume: the standard deviation of log det J.

    Folded voxels (det J ≤ 0) have no logarithm and are left out: read it beside ``folding_percent``. All voxels left
    count equally, and the sum of squares is divided by their number.

    Args:
        ddf: field of one pair, (1, 3, H, W, L), voxels.
        mask: voxels to count, (1, 1, H, W, L) or (H, W, L), non-zero inside; all when None.

    Returns:
        The standard deviation, no unit; 0 for any affine map; NaN when every voxel is folded.

    Raises:
        ValueError: see ``folding_percent``.

    Departs from paper:
        The paper does not report it. Learn2Reg's SDlogJ is the deviation of log(det J + 3), clipped at 1e-9, two voxels
        off the border: near the identity about a quarter of this one. The two are not to be compared.

    Example:
        >>> ddf = torch.zeros(1, 3, 4, 5, 6)
        >>> ddf[:, 0] = 0.5 * torch.arange(4.0).view(4, 1, 1)  # 1.5 times as long, everywhere
        >>> round(log_jacobian_sd(ddf), 6)
        0.0
    """
    det = _determinants(ddf, mask).double()
    det = det[det > 0]
    return det.log().std(correction=0).item() if det.numel() else math.nan


def _determinants(ddf: DDF, mask: torch.Tensor | None) -> torch.Tensor:
    """Compute the determinants of one pair's field inside a mask, as a list of voxels."""
    field = convert_to_tensor(ddf, track_meta=False)
    if field.shape[0] != 1:
        raise ValueError(f"A field must be of one pair, (1, 3, H, W, L), got {tuple(field.shape)}.")
    det = jacobian_determinant(field if field.dtype == torch.float64 else field.float())[0, 0]
    if mask is None:
        return det.flatten()
    if mask.shape not in (det.shape, (1, 1, *det.shape)):
        raise ValueError(f"The mask must cover the field's grid {tuple(det.shape)}, got {tuple(mask.shape)}.")
    return det[convert_to_tensor(mask, track_meta=False).to(det.device).reshape(det.shape) != 0]
