"""Transforms of FSL.

FSL's points of an image are its indices times the voxel size, the first index counted from the other end where the
determinant of the image's affine is positive: they depend on the image, so that both images are needed.

- flirt's matrix: a text file of 4×4 numbers, from FSL's points of the **moving** image to those of the **fixed** one.
- fnirt's field (``fnirt --fout``, ``convertwarp --relout``): NIfTI (H, W, L, 3) on the fixed image's grid, intent 2006;
  d with ``moving point = fixed point + d``, in FSL's points. Absolute fields hold the moving point itself.

Source: FSL's user guide (flirt, applywarp), nitransforms 25.1.0 (matrices) and connectome-workbench 1.5.0 (fields).
"""

from pathlib import Path

import numpy as np
from bundle.io.formats.common import (
    Vectors,
    check_matrix,
    components_last,
    from_targets,
    index_of,
    linear,
    nifti,
    numbers_in,
    refused,
    sampled,
)
from bundle.io.headers import read_header
from bundle.io.images import write_vectors
from bundle.spatial import Grid, Matrix, SpatialTransform

__all__ = ["FNIRT_INTENTS", "FNIRT_RELATIVE", "points_of_fsl", "read_flirt", "read_fnirt", "write_flirt", "write_fnirt"]

FNIRT_RELATIVE = 2006  # NIfTI's intent code of a displacement field
FNIRT_INTENTS = (2006, 2007, 2008, 2009)  # the others are of coefficients


def points_of_fsl(grid: Grid) -> Matrix:
    """Find the matrix, 4×4, from the indices of an image to FSL's points."""
    scale = np.diag([*grid.spacing_mm, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:  # the same in RAS and LPS, which differ by two reflections
        scale[0] = (-grid.spacing_mm[0], 0, 0, (grid.shape[0] - 1) * grid.spacing_mm[0])
    return scale


def _to_mm(grid: Grid) -> Matrix:
    """Find the matrix from FSL's points to mm, LPS."""
    return grid.affine @ np.linalg.inv(points_of_fsl(grid))


def read_flirt(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a matrix of ``flirt -in moving -ref fixed -omat``; the grids must be those of its two images.

    Raises:
        ValueError: no text of 4×4 numbers, or of no invertible matrix.
    """
    numbers = numbers_in(path, 4, 4)
    if numbers is None:
        raise refused(path, "flirt's matrices are text files of four rows of four numbers")
    to_moving = np.linalg.inv(check_matrix(numbers, path))
    matrix = _to_mm(moving_grid) @ to_moving @ np.linalg.inv(_to_mm(fixed_grid))
    return linear(matrix, fixed_grid, moving_grid)


def write_flirt(transform: SpatialTransform, path: Path) -> None:
    """Write the alignment of a linear transform as flirt's matrix."""
    to_moving = np.linalg.inv(_to_mm(transform.moving_grid)) @ transform.alignment @ _to_mm(transform.fixed_grid)
    np.savetxt(path, np.linalg.inv(to_moving), fmt="%.12f")


def read_fnirt(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a field of relative displacements; ``moving_grid`` must be that of the moving image.

    Raises:
        ValueError: coefficients, absolute positions, or no field.
    """
    image = nifti(path)
    intent = int(image.header["intent_code"])
    if intent in FNIRT_INTENTS and intent != FNIRT_RELATIVE:
        raise refused(path, "it holds fnirt's coefficients: make a field of it (fnirtfileutils --out, fnirt --fout)")
    field, grid = components_last(np.asarray(image.dataobj), path), read_header(path).grid
    places = _places(grid)
    if _is_absolute(field, places):
        raise refused(path, "it holds absolute positions: make displacements of it by convertwarp --absin --relout")
    to_mm = _to_mm(moving_grid)
    targets = (field + places) @ to_mm[:3, :3].T + to_mm[:3, 3]
    return from_targets(targets, grid, fixed_grid, moving_grid)


def _places(grid: Grid) -> Vectors:
    """Say where the voxels of a grid are in FSL's points, (H, W, L, 3)."""
    in_fsl = points_of_fsl(grid)
    return index_of(grid) @ in_fsl[:3, :3].T + in_fsl[:3, 3]


def _is_absolute(field: Vectors, places: Vectors) -> bool:
    """Tell positions from displacements as FSL does: they vary less once the voxel's own position is taken away."""
    return bool((field - places).std((0, 1, 2)).sum() < field.std((0, 1, 2)).sum())


def write_fnirt(transform: SpatialTransform, path: Path, like: str) -> None:
    """Write T as a field of relative displacements on the fixed image's grid, for ``applywarp --rel``."""
    fixed, moving = np.linalg.inv(_to_mm(transform.fixed_grid)), np.linalg.inv(_to_mm(transform.moving_grid))

    def displacement(points: Matrix, moved: Matrix) -> Matrix:
        return moved @ moving[:3, :3].T + moving[:3, 3] - points @ fixed[:3, :3].T - fixed[:3, 3]

    write_vectors(sampled(transform, displacement), transform.fixed_grid, path, FNIRT_RELATIVE, like)
