"""Transforms of AFNI, of images whose axes lie along those of the space.

- A matrix (``.aff12.1D``): twelve numbers in a row, the upper three rows of 4×4, points in mm, **LPS** (AFNI's DICOM
  order), from fixed ("base") to moving ("source").
- A warp (``3dNwarpApply``): NIfTI (H, W, L, 1, 3), displacements in mm along L, P, S on the fixed image's grid.

AFNI takes oblique axes of an image for the nearest axes of the space, which makes other points of its voxels:
transforms of oblique images are refused here, which AFNI's own ``3dWarp -deoblique`` brings to such axes.

Source: nitransforms 25.1.0 (``tests/interop``); AFNI itself was not run.
"""

from pathlib import Path

import numpy as np
from bundle.io.formats.common import check_matrix, components_last, linear, nifti, numbers_in, refused, sampled
from bundle.io.headers import read_header
from bundle.io.images import VECTOR, write_vectors
from bundle.io.itk import ddf_from_mm
from bundle.spatial import Grid, SpatialTransform

__all__ = ["read_matrix", "read_warp", "write_matrix", "write_warp"]

OBLIQUE = np.sin(np.radians(0.01))  # from here on AFNI calls an image oblique
ADVICE = "which AFNI reads as if they lay along the axes of space: bring the images there first (3dWarp -deoblique)"


def read_matrix(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a matrix of one row.

    Raises:
        ValueError: anything but twelve numbers, or oblique images.
    """
    _refuse_oblique(fixed_grid, "fixed")
    _refuse_oblique(moving_grid, "moving")
    numbers = numbers_in(path, 1, 12)
    if numbers is None:
        raise refused(path, "one row of twelve numbers is read (.aff12.1D), not several, nor three rows of four")
    matrix = np.vstack([numbers.reshape(3, 4), (0, 0, 0, 1)])
    return linear(check_matrix(matrix, path), fixed_grid, moving_grid)


def write_matrix(transform: SpatialTransform, path: Path) -> None:
    """Write a linear transform as one row of twelve numbers."""
    _refuse_oblique(transform.fixed_grid, "fixed")
    _refuse_oblique(transform.moving_grid, "moving")
    np.savetxt(path, transform.alignment[:3].reshape(1, 12), fmt="%.17g")


def read_warp(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a warp.

    Raises:
        ValueError: no field, or oblique images.
    """
    grid = read_header(path).grid
    for name, of in {"warp's": grid, "moving": moving_grid}.items():
        _refuse_oblique(of, name)
    field = components_last(np.asarray(nifti(path).dataobj), path)
    ddf, _ = ddf_from_mm(np.moveaxis(field, -1, 0), grid)
    return SpatialTransform(np.eye(4), ddf, grid, fixed_grid, moving_grid)


def write_warp(transform: SpatialTransform, path: Path, like: str) -> None:
    """Write T on the fixed image's grid.

    Raises:
        ValueError: oblique images.
    """
    _refuse_oblique(transform.fixed_grid, "fixed")
    _refuse_oblique(transform.moving_grid, "moving")
    field = sampled(transform, lambda points, moved: moved - points)
    write_vectors(field[:, :, :, None], transform.fixed_grid, path, VECTOR, like)


def _refuse_oblique(grid: Grid, name: str) -> None:
    if np.sort(np.abs(grid.direction), axis=0)[1].max() > OBLIQUE:
        raise ValueError(f"The {name} image's axes are oblique, {ADVICE}; or use another form (itk, ants).")
