"""How alike two images are."""

import torch
from bundle.inpainting import dilate
from bundle.losses import local_ncc

__all__ = ["similarity"]

WINDOW = 9  # voxels, as in the loss


def similarity(warped: torch.Tensor, fixed: torch.Tensor, ignored: torch.Tensor | None = None) -> float:
    """Measure how alike two images are: the mean of ``local_ncc``, from 0 to 1, whatever their intensity scales.

    Args:
        warped: (1, H, W, L).
        fixed: same shape, in [0, 1].
        ignored: same shape, bool: voxels that do not count, nor do those whose window they lie in; None for none.
    """
    low, high = warped.min(), warped.max()
    alike = local_ncc(((warped - low) / (high - low).clamp(min=1e-12))[None], fixed[None], WINDOW)
    if ignored is not None:
        alike = alike[~dilate(ignored[None], WINDOW // 2)]
    return float(alike.mean())
