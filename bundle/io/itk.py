"""ITK objects: images, and the transform file that ITK, ANTs and Slicer open."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.files import check_file, check_room, utf8
from bundle.io.itk_numbers import check_numbers, check_values, is_list
from bundle.shapes import DDF
from bundle.spatial import Grid, Matrix, SpatialTransform

__all__ = [
    "ddf_from_itk",
    "ddf_from_mm",
    "grid_from_itk",
    "image_to_itk",
    "is_invertible",
    "is_orthogonal",
    "itk_files",
    "linear_from_itk",
    "linear_to_itk",
    "orthonormal",
    "parts_of",
    "read_itk",
    "read_linear",
    "single_thread",
    "write_transform",
]

ROUNDING = 1e-5  # of a direction; a lattice further off the right angle is written between two matrices
LARGEST_CONDITION = 1e6  # of a linear transform; beyond it two points far apart fall on one within a micrometre
ANY_FORM = "a displacement field as an image, or another tool's form, by --kind where its file does not tell"
LINEAR_FORM = "or bring another tool's linear one into that form by convert --to itk"
HEADER_BYTES = 1 << 14  # at most, of a transform file beside the numbers of its field
_ONE_AT_A_TIME = RLock()


@contextmanager
def itk_files() -> Iterator[None]:
    """Let ITK read or write a file: one thread at a time, and without warnings on the console.

    ITK asks its HDF5 reader about every file that is opened, and the HDF5 library in SimpleITK is not made for threads:
    a header read in one of them could spoil a transform written in another.
    """
    with _ONE_AT_A_TIME:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


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


def orthonormal(direction: Matrix, tolerance: float = 1e-3) -> Matrix:
    """Round a direction, 3×3, to the nearest orthonormal one: headers carry float32 noise, which ITK refuses.

    Raises:
        ValueError: it lies further than the tolerance from that.
    """
    u, _, v = np.linalg.svd(direction)
    nearest = u @ v
    if np.abs(nearest - direction).max() > tolerance:
        raise ValueError("The image's axes are not at right angles: resample it to an orthogonal grid first.")
    return nearest


def grid_from_itk(image: sitk.Image) -> Grid:
    """Read where an ITK image's voxels are."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize(), affine)


def linear_from_itk(transform: Any) -> Matrix:
    """Read a linear transform of any kind, SimpleITK's or ITK's, as a 4×4 matrix, mm, LPS."""
    if not transform.IsLinear():
        raise ValueError("The transform is not linear.")
    matrix = np.eye(4)
    matrix[:3, 3] = list(transform.TransformPoint((0.0, 0.0, 0.0)))
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
    return ddf_from_mm(sitk.GetArrayFromImage(field).transpose(3, 2, 1, 0), grid_from_itk(field))


def ddf_from_mm(field_mm: npt.NDArray[Any], grid: Grid) -> tuple[DDF, Grid]:
    """Bring a displacement field, (3, H, W, L), mm, LPS, to voxels of its grid, float64."""
    mm = torch.from_numpy(field_mm.astype(np.float64))
    return torch.einsum("ij,jhwl->ihwl", torch.from_numpy(grid.inverse[:3, :3]), mm), grid


def write_transform(transform: SpatialTransform, path: str | os.PathLike[str]) -> None:
    """Write T as an ITK composite transform: the alignment, then the displacement field.

    ITK applies the transform added last first, so that a point of the fixed image goes through the field and then
    through the alignment, as T does. A field on a lattice off the right angle, as an inverse's may be, is written on
    the straight one that a matrix B takes it to, between two matrices: A (p + u(p)) = A B⁻¹ (B p + B u(B⁻¹ B p)).

    Args:
        transform: to write.
        path: ends in ``.h5``.

    Raises:
        OSError: there is no room for it: HDF5 cannot close a file that it could not write, and ends the process.
    """
    check_room(path, HEADER_BYTES + (0 if transform.ddf is None else 8 * transform.ddf.numel()))
    composite = sitk.CompositeTransform(list(_chain(transform)))  # copies; nothing else holds them
    with itk_files():
        sitk.WriteTransform(composite, utf8(path))


def _chain(transform: SpatialTransform) -> Iterator[sitk.Transform]:
    """Make the transforms of ``write_transform``, the one that comes first for a point last."""
    if transform.ddf is None:
        yield linear_to_itk(transform.alignment)
        return
    straight = _straightening(transform.field_grid)
    grid = Grid(transform.field_grid.shape, straight @ transform.field_grid.affine)
    yield linear_to_itk(transform.alignment @ np.linalg.inv(straight))
    field = torch.einsum("ij,jhwl->lwhi", torch.from_numpy(grid.affine[:3, :3]), transform.ddf.cpu().double()).numpy()
    yield sitk.DisplacementFieldTransform(image_to_itk(field.transpose(2, 1, 0, 3), grid, is_vector=True))
    if not np.array_equal(straight, np.eye(4)):
        yield linear_to_itk(straight)


def is_orthogonal(grid: Grid) -> bool:
    """Tell whether ITK can have a field on a lattice: its axes are at right angles, up to rounding."""
    return bool(np.abs(orthonormal(grid.direction, tolerance=np.inf) - grid.direction).max() <= ROUNDING)


def _straightening(grid: Grid) -> Matrix:
    """Find a matrix that takes a lattice to one at right angles, about its centre; the identity where it is."""
    matrix = np.eye(4)
    if not is_orthogonal(grid):
        nearest = orthonormal(grid.direction, tolerance=np.inf)
        matrix[:3, :3] = nearest @ np.linalg.inv(grid.direction)
        matrix[:3, 3] = grid.centre_mm - matrix[:3, :3] @ grid.centre_mm
    return matrix


def read_linear(path: str | os.PathLike[str]) -> Matrix:
    """Read a linear ITK transform, fixed to moving, as a 4×4 matrix.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a transform file, not of three dimensions, not linear, or not invertible.
    """
    transform = read_itk(path, LINEAR_FORM)
    if not transform.IsLinear():
        raise ValueError(f"The initial transform ({path}) is not linear: give a rigid or affine one.")
    matrix = linear_from_itk(transform)
    if not is_invertible(matrix):
        raise ValueError(f"The initial transform ({path}) is singular: it flattens space, and cannot align anything.")
    return matrix


def parts_of(transform: sitk.Transform) -> list[sitk.Transform]:
    """Take a composite apart, the last one applied first; a part that SimpleITK cannot name leaves it whole."""
    if not isinstance(transform, sitk.CompositeTransform):
        return [transform]
    flat = sitk.CompositeTransform(transform)
    flat.FlattenTransform()
    try:
        return [flat.GetNthTransform(i) for i in range(flat.GetNumberOfTransforms())]
    except (RuntimeError, KeyError, TypeError):  # CenteredAffineTransform and others: they are known to ITK alone
        return [transform]


def is_invertible(matrix: Matrix) -> bool:
    """Tell whether a linear transform, 4×4, keeps points apart: its numbers are finite, and it flattens nothing."""
    return bool(np.isfinite(matrix).all() and np.linalg.cond(matrix[:3, :3]) <= LARGEST_CONDITION)


def read_itk(path: str | os.PathLike[str], otherwise: str = ANY_FORM) -> sitk.Transform:
    """Read a 3-D transform of ITK as it is.

    Args:
        path: of the file.
        otherwise: what else may be given in its place, for the sentence about a file that is none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a transform file, not of three dimensions, or of a kind that SimpleITK cannot evaluate.
    """
    name = Path(path).name.lower()
    check_file(path, "transform")
    if name.endswith(".xfm"):  # ITK takes its numbers for LPS, fixed to moving
        raise ValueError(f"The transform ({path}) is MINC's, RAS and from moving to fixed: convert it to ITK's .tfm.")
    if is_list(path):
        raise ValueError(f"The transform ({path}) lists several transforms but not how they follow: compose them.")
    try:
        check_numbers(path)
        with itk_files():
            transform = sitk.ReadTransform(utf8(path))
    except (RuntimeError, KeyError, TypeError) as error:
        transform = _read_by_itk(path, error, otherwise)
    if transform.GetDimension() != 3:
        raise ValueError(f"The transform ({path}) is of {transform.GetDimension()} dimensions, not of 3.")
    for part in parts_of(transform):
        check_values(part, path)
    return transform


def _read_by_itk(path: str | os.PathLike[str], error: Exception, otherwise: str) -> sitk.Transform:
    """Read a linear transform of a kind that SimpleITK cannot name, such as a CenteredAffineTransform alone."""
    unknown = re.search(r'Could not create an instance of "(\w+?)_', str(error))
    if unknown:
        raise ValueError(f"The transform ({path}) holds a {unknown[1]}, which cannot be evaluated here.") from error
    try:
        if isinstance(error, RuntimeError) and "Transform is not of type" not in str(error):
            raise error  # the file itself is none
        import itk  # here, since it takes seconds to load

        (transform,) = itk.transformread(utf8(path))
        matrix = linear_from_itk(transform)
    except Exception as cause:  # ITK raises of several kinds
        raise ValueError(
            f"The transform ({path}) cannot be read as an ITK transform file: give .h5, .hdf5, .tfm, .txt or .mat as "
            f"ITK, ANTs or Slicer write it, {otherwise} (docs/transforms.md)."
        ) from cause
    return linear_to_itk(matrix)


@contextmanager
def single_thread() -> Iterator[None]:
    """Let ITK use one thread: several add up in another order each time, and the result is not the same twice."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
