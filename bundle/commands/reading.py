"""What several commands read: transforms, with or without the images they belong to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bundle.io.displacement import is_displacement, read_displacement
from bundle.io.itk import read_transform
from bundle.spatial import Grid, Inverse, Mapping, SpatialTransform
from bundle.transforms import read_grid

__all__ = ["UNKNOWN", "grid_if_given", "read_any", "read_chain"]

UNKNOWN = Grid((1, 1, 1), np.eye(4))
"""The grid of an image that was not given."""


def read_any(path: str, fixed_grid: Grid = UNKNOWN, moving_grid: Grid = UNKNOWN) -> SpatialTransform:
    """Read a transform file, or a displacement field as an image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, or one that is known at an image's voxels alone, without that image.
    """
    if is_displacement(path):
        return SpatialTransform(np.eye(4), *read_displacement(path), fixed_grid, moving_grid)
    found = read_transform(path, fixed_grid, moving_grid)
    if found.ddf is not None and found.field_grid is UNKNOWN:
        raise ValueError(
            f"The transform ({path}) holds more than one field: give --fixed, the image at whose voxels it is sampled."
        )
    return found


def read_chain(
    transforms: str, inverse: Sequence[bool] | bool, fixed_grid: Grid = UNKNOWN, moving_grid: Grid = UNKNOWN
) -> list[Mapping]:
    """Read transforms that follow each other, nearest to the moving image first; some of them turned around.

    Args:
        transforms: paths with commas between them; or one path, which may hold commas.
        inverse: for each whether its inverse is meant; a single value is meant for all.
        fixed_grid: of the image at the end of the last.
        moving_grid: of the image at the start of the first.

    Raises:
        ValueError: as many flags as transforms, or one, are not given; see ``read_any``.
    """
    text = str(transforms)
    paths = [text] if Path(text).is_file() else [path.strip() for path in text.split(",")]
    flags = [inverse] if isinstance(inverse, bool) else list(inverse)
    flags = flags * len(paths) if len(flags) == 1 else flags
    if len(flags) != len(paths):
        raise ValueError(f"--inverse takes one value or {len(paths)}, one for each transform, not {len(flags)}.")
    ends = [UNKNOWN] * len(paths)
    starts = list(ends)
    ends[-1], starts[0] = fixed_grid, moving_grid
    chain: list[Mapping] = []
    for path, flag, end, start in zip(paths, flags, ends, starts):
        chain.append(Inverse(read_any(path, start, end)) if flag else read_any(path, end, start))
    return chain


def grid_if_given(path: str | None, name: str) -> Grid:
    """Read where the voxels of an image are, if there is one."""
    return UNKNOWN if path is None else read_grid(Path(str(path)), name)[0]
