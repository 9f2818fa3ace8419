"""Transforms of greedy, and of c3d_affine_tool.

- A matrix: a text file of 4×4 numbers, points in mm, **RAS**, from fixed to moving.
- A warp: ITK's displacement field (``bundle.io.displacement``), mm along L, P, S.
- ``greedy -r warp.nii.gz affine.mat`` takes a point of the fixed image through the warp, then through the matrix: T.

Source: greedy 1.4.0.3 itself (``tests/interop``).
"""

from pathlib import Path

import numpy as np
from bundle.io.formats.common import check_matrix, linear, numbers_in, refused, turned
from bundle.io.images import write_displacement
from bundle.io.itk import is_orthogonal
from bundle.spatial import Grid, Matrix, SpatialTransform

__all__ = ["matrix_beside", "read_matrix", "write_matrix", "write_warp"]


def read_matrix(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a matrix of greedy.

    Raises:
        ValueError: no text of 4×4 numbers, or of no invertible matrix.
    """
    numbers = numbers_in(path, 4, 4)
    if numbers is None:
        raise refused(path, "greedy's matrices are text files of four rows of four numbers")
    return linear(check_matrix(turned(numbers), path), fixed_grid, moving_grid)


def write_matrix(transform: SpatialTransform, path: Path) -> None:
    """Write a linear transform as greedy takes it."""
    _write(transform.alignment, path)


def _write(matrix: Matrix, path: Path) -> None:
    np.savetxt(path, turned(matrix), fmt="%.17g")


def write_warp(transform: SpatialTransform, path: Path, like: str) -> None:
    """Write the field u on its own grid, and the alignment as ``…_affine.mat`` beside it.

    A grid off the right angle, as an inverse's may be, no tool opens: T(p) − p is written at the voxels of the fixed
    image then, and the identity beside it.

    Args:
        transform: T.
        path: of the warp, ``.nii.gz`` or ``.nii``.
        like: the fixed image, whose header the warp takes over where toolkits read that differently.

    Raises:
        ValueError: a linear transform.
    """
    if transform.field_mm is None:
        raise ValueError("The transform is linear, and greedy takes it as a matrix: write a .mat.")
    if is_orthogonal(transform.field_grid):
        write_displacement(transform.field_mm, transform.field_grid, path, like)
        _write(transform.alignment, matrix_beside(path))
    else:
        write_displacement(transform.displacement_field(), transform.fixed_grid, path, like)
        _write(np.eye(4), matrix_beside(path))


def matrix_beside(path: Path) -> Path:
    """Name the file of the alignment that goes with a warp."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + "_affine.mat")
