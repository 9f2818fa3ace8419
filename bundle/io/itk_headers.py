"""What ITK reads of the header of an image file, and a NIfTI header as it is written."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from bundle.io.files import utf8
from bundle.io.itk import itk_files
from bundle.spatial import Grid

__all__ = ["as_written", "grid_by_itk", "grid_of_nifti", "itk_information"]


def itk_information(path: str | os.PathLike[str]) -> sitk.ImageFileReader:
    """Let ITK read the header of a file; its warnings are left to the notes of ``bundle.io.headers``.

    Raises:
        RuntimeError: ITK cannot read the file.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(utf8(path))
    with itk_files():
        reader.ReadImageInformation()
    return reader


def grid_by_itk(reader: sitk.ImageFileReader, shape: tuple[int, ...] | None = None) -> Grid:
    """Take the first three axes of what ITK has read."""
    dimension = reader.GetDimension()
    affine = np.eye(4)
    axes = min(dimension, 3)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:axes, :axes]
    affine[:axes, :axes] = direction * np.array(reader.GetSpacing())[:axes]
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    sides = shape or (*reader.GetSize(), 1, 1, 1)[:3]
    return Grid((sides[0], sides[1], sides[2]), affine)


def grid_of_nifti(image: Any, path: str | os.PathLike[str], shape: tuple[int, int, int]) -> Grid:
    """Let ITK say where the voxels of a file are that nibabel has opened.

    Of one slice of vectors (dim 5 30 24 1 1 3) it has two axes alone: it is asked about the slice without them then.

    Raises:
        RuntimeError: ITK cannot read the file.
    """
    information = itk_information(path)
    if information.GetDimension() > 2 or image.ndim < 4 or not isinstance(image, nibabel.Nifti1Pair):
        return grid_by_itk(information, shape)
    alone = as_written(image)
    for name, value in {"dim": (3, *shape, 1, 1, 1, 1), "intent_code": 0, "magic": b"n+1", "vox_offset": 352}.items():
        alone[name] = value
    with TemporaryDirectory() as folder:
        file = Path(folder) / "header.nii"
        file.write_bytes(alone.binaryblock + bytes(4))  # ITK reads no further for its information
        return grid_by_itk(itk_information(file), shape)


def as_written(image: Any) -> Any:
    """Read the header of a NIfTI or Analyze file without nibabel's repairs."""
    kind, files = type(image.header), image.file_map
    with files["header" if "header" in files else "image"].get_prepare_fileobj(mode="rb") as file:
        return kind(file.read(kind.template_dtype.itemsize), check=False)
