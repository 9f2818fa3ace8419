"""What several forms of a transform share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from bundle.io.headers import nibabel_files
from bundle.io.integrity import check_whole
from bundle.io.itk import ddf_from_mm, is_invertible
from bundle.spatial import Grid, Matrix, SpatialTransform, lps_from_ras

__all__ = [
    "Pointwise",
    "Vectors",
    "check_matrix",
    "components_last",
    "from_targets",
    "index_of",
    "linear",
    "nifti",
    "numbers_in",
    "refused",
    "sampled",
    "turned",
]

Vectors = npt.NDArray[Any]
Pointwise = Callable[[Matrix, Matrix], Vectors]


def refused(path: Path, why: str) -> ValueError:
    """Make the error about a transform that cannot be read: why, after "it", and what to do."""
    return ValueError(f"The transform ({path}) cannot be read: {why}.")


def turned(matrix: npt.ArrayLike) -> Matrix:
    """Turn a 4×4 matrix from RAS points to RAS points into one from LPS to LPS, or back."""
    return lps_from_ras(matrix) @ lps_from_ras(np.eye(4))


def check_matrix(matrix: Matrix, path: Path) -> Matrix:
    """Refuse a 4×4 matrix that is no linear transform of space, or flattens it."""
    if not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
        raise refused(path, "its matrix must hold finite numbers and end in the row 0 0 0 1")
    if not is_invertible(matrix):
        raise refused(path, "its matrix is singular: it flattens space, and cannot align anything")
    return matrix


def numbers_in(path: Path, rows: int, columns: int) -> Matrix | None:
    """Read a text file of numbers in rows and columns; None where it is anything else. Lines of ``#`` are skipped."""
    try:
        lines = [line.split("#")[0].split() for line in path.read_text().splitlines()]
        found = np.array([[float(word) for word in line] for line in lines if line])
    except ValueError:
        return None
    return found if found.shape == (rows, columns) else None


def nifti(path: Path) -> Any:
    """Open a NIfTI file whose checksum fits, if it has one."""
    check_whole(path)
    with nibabel_files():
        return nibabel.load(path)


def linear(matrix: Matrix, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Make a transform of a matrix, LPS, fixed to moving."""
    return SpatialTransform(matrix, None, fixed_grid, fixed_grid, moving_grid)


def index_of(grid: Grid) -> Vectors:
    """List the indices of a grid's voxels, (H, W, L, 3)."""
    return np.stack(np.meshgrid(*[np.arange(float(n)) for n in grid.shape], indexing="ij"), -1)


def from_targets(targets: Vectors, field_grid: Grid, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Make a transform of the points (H, W, L, 3), mm, LPS, to which the voxels of a grid go."""
    for rows, points in field_grid.slabs():
        targets[rows] -= points.numpy()
    ddf, _ = ddf_from_mm(np.moveaxis(targets, -1, 0), field_grid)
    return SpatialTransform(np.eye(4), ddf, field_grid, fixed_grid, moving_grid)


def sampled(transform: SpatialTransform, of: Pointwise, grid: Grid | None = None) -> Vectors:
    """Fill a grid, by default the fixed image's, with vectors, (H, W, L, 3), float32.

    Args:
        transform: T.
        of: computes them from the voxels' points p and T(p), both (…, 3), mm, LPS.
        grid: where they lie.
    """
    grid = grid or transform.fixed_grid
    field = np.empty((*grid.shape, 3), np.float32)
    for rows, points in grid.slabs():
        moved = points + transform.displacement_at(points)
        field[rows] = of(points.numpy(), moved.numpy())
    return field


def components_last(array: npt.NDArray[Any], path: Path) -> Vectors:
    """Bring a field, (H, W, L, 3), (H, W, L, 1, 3) or (3, H, W, L), to (H, W, L, 3), checked to be finite."""
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim != 4 or 3 not in (array.shape[-1], array.shape[0]):
        shape = "×".join(str(n) for n in array.shape)
        raise refused(path, f"it is of {shape} numbers, not of three components at each voxel of a volume")
    if array.shape[-1] != 3:
        array = np.moveaxis(array, 0, -1)
    if not np.isfinite(array).all():
        raise refused(path, "it holds NaN or infinite displacements: replace them first")
    return array.astype(np.float64)
