"""How large a grid may be, before anything is computed on it."""

import numpy as np
from bundle.spatial import Grid

__all__ = ["MOST_VOXELS", "check_extent", "check_spacing"]

MOST_VOXELS = 2**28
"""Of the network's grid: two of 512×512×512, the largest that images of people ask for; it takes some 30 GB."""

BYTES = 120  # of memory that a registration takes at its peak for a voxel of the network's grid (docs/speed.md)

FEWEST_VOXELS = 4
"""Along the longest side of an image: nothing is to be seen in less."""


def check_spacing(spacing_mm: float | None, name: str = "spacing_mm") -> None:
    """Refuse a voxel size that is no length; None passes, for one that is left open.

    Raises:
        ValueError: it is 0 or less.
    """
    if spacing_mm is not None and not spacing_mm > 0:
        raise ValueError(f"{name} must be above 0 mm, not {spacing_mm}.")


def check_extent(grid: Grid, spacing_mm: float | None = None, name: str = "spacing_mm") -> None:
    """Refuse a grid of more voxels than a registration can work on, or next to none.

    Args:
        grid: of an image.
        spacing_mm: isotropic spacing that the grid would get over the same field of view; None for its own.
        name: of the option that sets the spacing.

    Raises:
        ValueError: it has more than ``MOST_VOXELS``, or by that spacing less than ``FEWEST_VOXELS`` along every side.
    """
    sides = np.array(grid.shape, dtype=np.float64)
    if spacing_mm is not None:
        with np.errstate(over="ignore"):
            sides = np.maximum(np.ceil(sides * grid.spacing_mm / spacing_mm - 1e-3), 1)
        if sides.max() < FEWEST_VOXELS:
            size = "×".join(f"{side:.0f}" for side in sides)
            raise ValueError(f"Voxels of {spacing_mm:g} mm leave {size} of the image: give a smaller {name}.")
    with np.errstate(over="ignore"):
        voxels = float(np.prod(sides))
    if voxels <= MOST_VOXELS:
        return
    size = f"{'×'.join(f'{side:.9g}' for side in sides)} voxels ({voxels / 1e6:.4g} million)"
    raise ValueError(
        f"A grid of {size}, with voxels of {(grid.spacing_mm if spacing_mm is None else np.array(spacing_mm)).min():g} "
        f"mm, is more than a registration works on, {MOST_VOXELS / 1e6:.0f} million, and would take about "
        f"{voxels * BYTES / 1e9:.3g} GB of memory: give a larger {name}."
    )
