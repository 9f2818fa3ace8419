"""ITK objects: images, and the transform file that ITK, ANTs and Slicer open."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.shapes import DDF
from bundle.spatial import Grid, Matrix, SpatialTransform

__all__ = [
    "ddf_from_itk",
    "image_to_itk",
    "linear_from_itk",
    "linear_to_itk",
    "orthonormal",
    "read_transform",
    "write_transform",
]

LARGEST_CONDITION = 1e6  # of a linear transform; beyond it two points far apart fall on one within a micrometre


def image_to_itk(array: npt.NDArray[Any], grid: Grid, is_vector: bool = False) -> sitk.Image:
    """Make an ITK image of an array.

    Args:
        array: (H, W, L), or (H, W, L, 3) for a vector image; ITK's first index is the array's first axis.
        grid: where its voxels are.
        is_vector: whether the last axis holds components.
    """
    order = (2, 1, 0, 3) if is_vector else (2, 1, 0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(order)), isVector=is_vector)
    image.SetOrigin(grid.origin_mm.tolist())
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetDirection(orthonormal(grid.direction).ravel().tolist())
    return image


def orthonormal(direction: Matrix) -> Matrix:
    """Round a direction, 3×3, to the nearest orthonormal one: headers carry float32 noise, which ITK refuses."""
    u, _, v = np.linalg.svd(direction)
    nearest = u @ v
    if np.abs(nearest - direction).max() > 1e-3:
        raise ValueError("The image's axes are not at right angles: resample it to an orthogonal grid first.")
    return nearest


def grid_from_itk(image: sitk.Image) -> Grid:
    """Read where an ITK image's voxels are."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize(), affine)


def linear_from_itk(transform: sitk.Transform) -> Matrix:
    """Read a linear transform of any ITK kind as a 4×4 matrix, mm, LPS."""
    if not transform.IsLinear():
        raise ValueError("The transform is not linear.")
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(np.eye(3)[axis].tolist())) - matrix[:3, 3]
    return matrix


def linear_to_itk(matrix: Matrix) -> sitk.AffineTransform:
    """Write a 4×4 matrix as an ITK affine transform."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def ddf_from_itk(field: sitk.Image) -> tuple[DDF, Grid]:
    """Read a displacement field of ITK or ANTs (mm, LPS): (3, H, W, L), voxels, float64, and the grid it lies on."""
    grid = grid_from_itk(field)
    mm = torch.from_numpy(sitk.GetArrayFromImage(field).transpose(3, 2, 1, 0).astype(np.float64))
    return torch.einsum("ij,jhwl->ihwl", torch.from_numpy(grid.inverse[:3, :3]), mm), grid


def write_transform(transform: SpatialTransform, path: str | os.PathLike[str]) -> None:
    """Write T as an ITK composite transform: the alignment, then the displacement field.

    ITK applies the transform added last first, so that a point of the fixed image goes through the field and then
    through the alignment, as T does.

    Args:
        transform: to write.
        path: ends in ``.h5``.
    """
    composite = sitk.CompositeTransform(3)
    composite.AddTransform(linear_to_itk(transform.alignment))
    if transform.field_mm is not None:
        field = transform.field_mm.movedim(0, -1).cpu().numpy()
        composite.AddTransform(
            sitk.DisplacementFieldTransform(image_to_itk(field, transform.field_grid, is_vector=True))
        )
    sitk.WriteTransform(composite, os.fspath(path))


def read_linear(path: str | os.PathLike[str]) -> Matrix:
    """Read a linear ITK transform, fixed to moving, as a 4×4 matrix.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a transform file, not of three dimensions, not linear, or not invertible.
    """
    transform = _read(path)
    if transform.GetDimension() != 3:
        raise ValueError(f"The initial transform ({path}) has {transform.GetDimension()} dimensions: give one of 3.")
    if not transform.IsLinear():
        raise ValueError(f"The initial transform ({path}) is not linear: give a rigid or affine one.")
    matrix = linear_from_itk(transform)
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix[:3, :3]) > LARGEST_CONDITION:
        raise ValueError(f"The initial transform ({path}) is singular: it flattens space, and cannot align anything.")
    return matrix


def read_transform(path: str | os.PathLike[str], fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read an ITK transform file: linear, a displacement field, or an alignment and a field as ``write_transform``.

    Args:
        path: the file.
        fixed_grid: of the fixed image; the default grid of what the transform resamples.
        moving_grid: of the moving image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a transform file, or another composition of transforms.
    """
    transform = _read(path)
    parts = [transform]
    if isinstance(transform, sitk.CompositeTransform):
        transform.FlattenTransform()
        parts = [transform.GetNthTransform(i) for i in range(transform.GetNumberOfTransforms())]
    alignment = np.eye(4)
    while parts and parts[0].IsLinear():
        alignment = alignment @ linear_from_itk(parts.pop(0))
    if not parts:
        return SpatialTransform(alignment, None, fixed_grid, fixed_grid, moving_grid)
    if len(parts) > 1 or parts[0].GetName() != "DisplacementFieldTransform":
        names = ", ".join(part.GetName() for part in parts)
        raise ValueError(
            f"The transform ({path}) is no alignment followed by one displacement field: it holds {names}."
        )
    ddf, grid = ddf_from_itk(sitk.DisplacementFieldTransform(parts[0]).GetDisplacementField())
    return SpatialTransform(alignment, ddf, grid, fixed_grid, moving_grid)


def _read(path: str | os.PathLike[str]) -> sitk.Transform:
    if not Path(path).is_file():
        raise FileNotFoundError(f"The transform ({path}) does not exist.")
    try:
        return sitk.ReadTransform(os.fspath(path)).Downcast()
    except RuntimeError as error:
        raise ValueError(f"The transform ({path}) cannot be read as an ITK transform file.") from error
