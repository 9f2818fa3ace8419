"""Continue images and fields smoothly through a region where they do not count."""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from bundle.smoothing import halve, restore, voxel_ratio

__all__ = ["UNSURE", "dilate", "fill_in"]

RELAXATIONS = 20  # of each level, by averages over 3×3×3 voxels
UNSURE = 2  # voxels around what does not count in which a field is not relied on either, but continued

Box: TypeAlias = tuple[slice, ...]


def fill_in(x: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
    """Fill a region from what surrounds it, without an edge.

    Averages of what is known, over blocks of 2, 4, 8 … voxels, are interpolated back into what is not, from coarse to
    fine, and relaxed at every level.

    Args:
        x: (B, C, H, W, L), in the region whatever it may be, no numbers too.
        unknown: (B, 1, H, W, L), bool: the voxels to fill.

    Returns:
        (B, C, H, W, L), float; the other voxels as they were.

    Source:
        Gortler, Grzeszczuk, Szeliski, Cohen, The Lumigraph, SIGGRAPH 1996 (pull and push).
    """
    return _filled(x.float(), ~unknown)


def _filled(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    if known.all() or not known.any():
        return x
    given = torch.where(known, x, 0)
    if max(voxel_ratio(x.shape[2:])) == 1:  # too small to be halved
        around = given.sum((2, 3, 4), keepdim=True) / known.sum((2, 3, 4), keepdim=True).clamp(min=1)
    else:
        share = halve(known.float())
        around = restore(_filled(halve(given) / share.clamp(min=1e-6), share > 0), x.shape[2:])
    x = torch.where(known, x, around)
    box = _box_around(~known, 1)
    count = _sum_of_27(torch.ones_like(known[box], dtype=x.dtype))
    for _ in range(RELAXATIONS):
        x[box] = torch.where(known[box], x[box], _sum_of_27(x[box]) / count)
    return x


def _sum_of_27(x: torch.Tensor) -> torch.Tensor:
    """Sum over 3×3×3 voxels, nothing beyond the border; torch's own padding asks for sides of 3 and more."""
    return F.avg_pool3d(F.pad(x, (1,) * 6), 3, 1, divisor_override=1)


def dilate(mask: torch.Tensor, voxels: int) -> torch.Tensor:
    """Grow a mask, (B, 1, H, W, L), bool, by a number of voxels along each axis."""
    grown = mask.clone()
    if not mask.any():
        return grown
    box = _box_around(mask, voxels)
    part = mask[box].float()
    for axis in range(3):  # axis by axis: the same cube in a fraction of the time
        side, around = [1, 1, 1], [0, 0, 0]
        side[axis], around[axis] = 2 * voxels + 1, voxels
        part = F.max_pool3d(part, side, stride=1, padding=around)
    grown[box] = part > 0
    return grown


def _box_around(mask: torch.Tensor, margin: int) -> Box:
    """The smallest box that holds what is set in (B, C, H, W, L), with a margin in voxels; something must be set."""
    found = mask.any(1).any(0).nonzero()
    least, most = found.amin(0) - margin, found.amax(0) + margin + 1
    return (slice(None), slice(None), *(slice(max(0, a), b) for a, b in zip(least.tolist(), most.tolist())))
