"""What does not count of a pair: where it lies on the network's grid, and what the network sees in its place."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from bundle.inpainting import dilate, fill_in
from bundle.spatial import Grid, Matrix, SpatialTransform

__all__ = ["ignored_on", "without_ignored"]

RIM = 2  # voxels around what does not count that are replaced, too: interpolation has mixed them with it
AROUND = 4  # voxels around these that tell how the intensities of the two images go together


def ignored_on(
    grid: Grid, item: Mapping[Hashable, Any], grids: Mapping[str, Grid], matrix: Matrix
) -> torch.Tensor | None:
    """Where on the network's grid the images do not count, (2, H, W, L), bool, moving and fixed; None for nowhere."""
    if not any(f"{role}_cost_mask" in item for role in grids):
        return None
    found = []
    for role, alignment in (("moving", matrix), ("fixed", np.eye(4))):
        transform = SpatialTransform(alignment, None, grid, grid, grids[role])
        mask = item.get(f"{role}_cost_mask")
        found.append(
            torch.zeros(1, *grid.shape) if mask is None else transform.resample(mask.as_tensor(), mode="nearest")
        )
    ignored = torch.cat(found) > 0
    if ignored.flatten(1).all(1).any():
        raise ValueError("A cost mask leaves nothing of its image that counts: there is nothing to align.")
    return ignored if ignored.any() else None


def without_ignored(image: torch.Tensor, ignored: torch.Tensor) -> torch.Tensor:
    """Replace what does not count in a pair, (2, H, W, L), so that nothing differs there and nothing is to be moved.

    Each image takes the other's values there, in the intensities that fit best around it; where neither counts, both
    are continued from around.
    """
    regions = dilate(ignored[:, None], RIM)[:, 0]
    both = regions.all(0, keepdim=True)
    replaced = [torch.where(regions[n] & ~both, _fitted(image, n, regions[n]), image[n : n + 1]) for n in range(2)]
    return fill_in(torch.cat(replaced)[None], both[None])[0] if both.any() else torch.cat(replaced)


def _fitted(image: torch.Tensor, channel: int, region: torch.Tensor) -> torch.Tensor:
    """The other image of a pair in the intensities that this one has around a region, (1, H, W, L).

    By mean and spread, since the two are not registered yet; turned around where the images are of opposite contrast.
    """
    this, other = image[channel], image[1 - channel]
    around = dilate(region[None, None], AROUND)[0, 0] & ~region
    if not region.any() or not around.any():
        return this[None]
    here, there = other[around], this[around]
    shown = (this > 0) & (other > 0) & ~region
    alike = torch.corrcoef(torch.stack([other[shown], this[shown]]))[0, 1] if shown.sum() > 1 else here.new_ones(())
    slope = torch.where(alike < 0, -1.0, 1.0) * there.std() / here.std().clamp(min=1e-3)
    return (there.mean() + slope * (other - here.mean()))[None]
