"""Vectors of a stored grid that keep a field best when they are interpolated, instead of mere samples of it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from panreg.objects.deformable.vector_grid import Matrix, slabs
from scipy.linalg import solveh_banded

__all__ = ["fit_vectors"]

Vectors = npt.NDArray[np.float32]


def fit_vectors(displacement_at: Callable[[Matrix], Matrix], affine: Matrix, shape: tuple[int, int, int]) -> Vectors:
    """Fit a grid's vectors to a field, so that linear interpolation between them errs least in the mean square.

    The field is evaluated at every vertex and half-way between. Linear interpolation is separable: each axis is solved
    on its own, a tridiagonal system for each line. Samples at the vertices alone say nothing of the field between them;
    the fit lowers the error of a field as rough as its grid by a third, at a spacing slightly finer than the field's by
    half.

    Args:
        displacement_at: field, points (…, 3) to displacements, mm.
        affine: of the grid, (i, j, k, 1) to mm.
        shape: of the grid, ``(slices, rows, columns)``.

    Returns:
        ``(slices, rows, columns, 3)``, mm.
    """
    dense = (2 * shape[0] - 1, 2 * shape[1] - 1, 2 * shape[2] - 1)
    halved = affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    planes_fitted = np.empty((dense[0], *shape[1:], 3), np.float32)
    for planes, points in slabs(dense, halved):
        rows_fitted = _fit_axis(displacement_at(points).astype(np.float32), 1)
        planes_fitted[planes] = _fit_axis(rows_fitted, 2)
    return _fit_axis(planes_fitted, 0)


def _fit_axis(values: Vectors, axis: int) -> Vectors:
    """Solve for the nodes of one axis whose linear interpolation is nearest to 2 n − 1 samples: n of them."""
    lines = np.moveaxis(values, axis, 0)
    n = (len(lines) + 1) // 2
    between = np.zeros_like(lines[:1])
    half = np.concatenate([between, lines[1::2], between]) / 2  # what lies half-way, before each node and after
    right = lines[::2] + half[:-1] + half[1:]
    normal = np.full((2, n), 1.5)
    normal[0], normal[1, [0, -1]] = 0.25, 1.25
    if n == 1:
        return values
    solved = solveh_banded(normal, right.reshape(n, -1))
    return np.ascontiguousarray(np.moveaxis(solved.reshape(right.shape), 0, axis), np.float32)
