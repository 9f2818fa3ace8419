"""Read the transform files of ITK, ANTs and Slicer, of any kinds of transform, as T."""

import os

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.itk import ddf_from_itk, is_invertible, linear_from_itk, linear_to_itk, parts_of, read_itk
from bundle.spatial import Grid, Matrix, SpatialTransform, compose

__all__ = ["read_transform", "transform_from_itk"]


def read_transform(path: str | os.PathLike[str], fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a transform file of ITK, ANTs or Slicer, of any kinds of transform that SimpleITK can evaluate.

    Linear parts and one displacement field among them are taken as they are (``compose``). Anything else (several
    fields, B-splines, parts that SimpleITK evaluates but cannot name) ITK samples at the voxels of ``fixed_grid``:
    there it is exact, and linear between them. The alignment is the product of the linear parts then, too.

    Args:
        path: ends in ``.h5``, ``.hdf5``, ``.tfm``, ``.txt`` or ``.mat``.
        fixed_grid: of the fixed image; the default grid of what the transform resamples.
        moving_grid: of the moving image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a transform file, or one of a transform that ITK cannot evaluate.
    """
    return transform_from_itk(read_itk(path), fixed_grid, moving_grid)


def transform_from_itk(transform: sitk.Transform, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Take over any transform that ITK can evaluate, fixed to moving, as ``read_transform`` does."""
    if transform.IsLinear():
        return SpatialTransform(linear_from_itk(transform), None, fixed_grid, fixed_grid, moving_grid)
    parts = parts_of(transform)
    bent = [part for part in parts if not part.IsLinear()]
    if len(bent) != 1 or not isinstance(bent[0], sitk.DisplacementFieldTransform):
        return _sampled(transform, _product(parts), fixed_grid, moving_grid)
    place = parts.index(bent[0])
    if not is_invertible(_product(parts[place + 1 :])):
        return _sampled(transform, _product(parts), fixed_grid, moving_grid)
    ddf, grid = ddf_from_itk(bent[0].GetDisplacementField())
    field = SpatialTransform(np.eye(4), ddf, grid, grid, grid)
    linear = [SpatialTransform(linear_from_itk(part), None, grid, grid, grid) for part in parts if part.IsLinear()]
    return compose(
        [*linear[:place], field, *linear[place:]], fixed_grid, moving_grid
    )  # ITK applies the last part first


def _product(parts: list[sitk.Transform]) -> Matrix:
    """Multiply the linear ones among the parts of a composite, 4×4."""
    matrix = np.eye(4)
    for part in parts:
        matrix = matrix @ linear_from_itk(part) if part.IsLinear() else matrix
    return matrix


def _sampled(transform: sitk.Transform, linear: Matrix, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Let ITK evaluate a transform at every voxel of the fixed grid; a few planes at a time, to save memory.

    A is the product of its linear parts, and u(p) = A⁻¹ T(p) − p: with one field among them this is ``compose``'s, and
    beyond the grid A goes on.
    """
    alignment = linear if is_invertible(linear) else np.eye(4)
    from_index = sitk.CompositeTransform([transform, linear_to_itk(fixed_grid.affine)])
    to_index = fixed_grid.inverse @ np.linalg.inv(alignment)
    sampler = sitk.TransformToDisplacementFieldFilter()
    sampler.SetOutputPixelType(sitk.sitkVectorFloat64)
    ddf = torch.empty(3, *fixed_grid.shape, dtype=torch.float64)
    for rows, index in Grid(fixed_grid.shape, np.eye(4)).slabs():
        sampler.SetSize([rows.stop - rows.start, *fixed_grid.shape[1:]])
        sampler.SetOutputOrigin([float(rows.start), 0.0, 0.0])
        less_index = sitk.GetArrayFromImage(sampler.Execute(from_index)).transpose(2, 1, 0, 3)
        moved = (less_index + index.numpy()) @ to_index[:3, :3].T + to_index[:3, 3]
        ddf[:, rows] = torch.from_numpy(moved).sub(index).movedim(-1, 0)
    return SpatialTransform(alignment, ddf, fixed_grid, fixed_grid, moving_grid)
