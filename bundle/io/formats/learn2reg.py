"""Displacement fields in voxels: of the Learn2Reg challenges, and of VoxelMorph.

d with ``moving index = fixed index + d``, component *i* along array axis *i*; what the headers say of the space does
not count.

- Learn2Reg, ``disp_FIXED_MOVING.nii.gz``: NIfTI (H, W, L, 3), intent 0.
- Learn2Reg, ``disp_FIXED_MOVING.npz``: ``arr_0``, (3, H/2, W/2, L/2), at half the resolution but in voxels of the whole
  one; the challenge enlarges it by ``scipy.ndimage.zoom(…, 2, order=2)``, the corners' centres kept, and so it is read
  here. Of the whole size, it is taken as it is.
- VoxelMorph (``--save-warp``): ``vol`` of an ``.npz``, or a NIfTI file; (H, W, L, 3) or (3, H, W, L).

Source: the evaluation code of Learn2Reg (2021), which ``tests/interop`` repeats with SciPy.
"""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from bundle.io.formats.common import Vectors, components_last, from_targets, index_of, nifti, refused, sampled
from bundle.io.images import write_vectors
from bundle.spatial import Grid, Matrix, SpatialTransform
from scipy.ndimage import zoom

__all__ = ["read_learn2reg", "read_voxelmorph", "write_learn2reg"]

DAMAGED = (OSError, ValueError, EOFError, BadZipFile, NotImplementedError, zlib.error)  # what a broken archive raises


def read_learn2reg(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a field of a Learn2Reg challenge; the grids must be those of its two images.

    Raises:
        ValueError: no such array, or one of another size than the fixed image, or half of it.
    """
    return _read(path, "arr_0", fixed_grid, moving_grid)


def read_voxelmorph(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a warp of VoxelMorph; the grids must be those of its two images.

    Raises:
        ValueError: no such array, or one of another size than the fixed image.
    """
    return _read(path, "vol", fixed_grid, moving_grid)


def _read(path: Path, key: str, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    field = components_last(_array(path, key), path)
    shape = field.shape[:3]
    half = path.name.lower().endswith(".npz") and tuple(2 * n for n in shape) == fixed_grid.shape
    if shape != fixed_grid.shape and not half:
        found, wanted = ("×".join(str(n) for n in sides) for sides in (shape, fixed_grid.shape))
        raise refused(path, f"its field has {found} voxels, but the fixed image {wanted}, and it is in voxels of that")
    if half:
        field = np.stack([zoom(field[..., i], 2, order=2) for i in range(3)], -1)
    return from_targets(moving_grid.to_points(field + index_of(fixed_grid)), fixed_grid, fixed_grid, moving_grid)


def _halved(grid: Grid) -> Grid:
    """Find the grid of half as many voxels between the same corners."""
    shape = tuple(n // 2 for n in grid.shape)
    step = (np.array(grid.shape) - 1) / (np.array(shape) - 1)
    return Grid(shape, grid.affine @ np.diag([*step, 1.0]))  # type: ignore[arg-type]


def _array(path: Path, key: str) -> Vectors:
    if not path.name.lower().endswith(".npz"):
        return np.asarray(nifti(path).dataobj)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if key not in arrays:
                raise refused(path, f"it holds no array '{key}' but {', '.join(arrays) or 'none'}")
            return np.asarray(arrays[key])
    except DAMAGED as error:
        if str(path) in str(error):
            raise
        raise refused(path, "it is no archive of NumPy's (.npz), or cut off or damaged") from error


def write_learn2reg(transform: SpatialTransform, path: Path, like: str) -> None:
    """Write T in voxels.

    Args:
        transform: T.
        path: ends in ``.nii.gz`` or ``.nii``; or in ``.npz``, at half the resolution.
        like: the fixed image; see ``write_vectors``.

    Raises:
        ValueError: half the resolution is asked for of an image with an odd number of voxels along an axis.
    """
    fixed, moving = transform.fixed_grid, transform.moving_grid

    def voxels(points: Matrix, moved: Matrix) -> Matrix:
        return moving.to_index(moved) - fixed.to_index(points)

    if not path.name.lower().endswith(".npz"):
        write_vectors(sampled(transform, voxels), fixed, path, 0, like)
        return
    if any(n % 2 or n < 4 for n in fixed.shape):
        sides = "×".join(str(n) for n in fixed.shape)
        raise ValueError(
            "Learn2Reg's .npz has half the fixed image's voxels along each axis, and the challenge doubles them: "
            f"{sides} cannot be halved so; write a .nii.gz."
        )
    np.savez_compressed(path, np.moveaxis(sampled(transform, voxels, _halved(fixed)), -1, 0))
