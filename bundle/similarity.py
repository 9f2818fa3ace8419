"""How alike two images are."""

import torch
from bundle.losses import local_ncc

__all__ = ["similarity"]


def similarity(warped: torch.Tensor, fixed: torch.Tensor) -> float:
    """Measure how alike two images are: the mean of ``local_ncc``, from 0 to 1, whatever their intensity scales.

    Args:
        warped: (1, H, W, L).
        fixed: same shape, in [0, 1].
    """
    low, high = warped.min(), warped.max()
    return float(local_ncc(((warped - low) / (high - low).clamp(min=1e-12))[None], fixed[None]).mean())
