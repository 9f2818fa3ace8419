"""What every network takes: two images on one grid."""

import torch
from bundle.shapes import Volume

__all__ = ["as_pair"]


def as_pair(moving: Volume, fixed: Volume | None, network: str) -> torch.Tensor:
    """Bring a network's input to one tensor, (B, 2, H, W, L), moving then fixed.

    Args:
        moving: (B, 1, H, W, L); or both images as one (B, 2, H, W, L) if ``fixed`` is None.
        fixed: (B, 1, H, W, L), on the same grid.
        network: what the messages call it.

    Raises:
        ValueError: an input of another shape.
    """
    pair = moving
    if fixed is not None:
        if moving.shape != fixed.shape:
            raise ValueError(f"Moving and fixed must share one grid, got {moving.shape} and {fixed.shape}.")
        pair = torch.cat([moving, fixed], 1)
    if pair.dim() != 5 or pair.shape[1] != 2:
        raise ValueError(f"{network} takes one moving and one fixed channel, (B, 2, H, W, L), got {pair.shape}.")
    return pair
