"""Displacement fields as images: ours, and those that ITK, ANTs and Slicer write."""

import os
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
from bundle.io.files import check_file, utf8
from bundle.io.headers import nibabel_files
from bundle.io.integrity import DamagedFileError, check_whole
from bundle.io.itk import ddf_from_mm, grid_from_itk, itk_files
from bundle.shapes import DDF
from bundle.spatial import Grid, along_lps

__all__ = ["is_displacement", "read_displacement"]

NIFTI = (".nii", ".nii.gz")
ENDINGS = (*NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd")
DISPLACEMENT, VECTOR = "1006", "1007"  # NIfTI's intent codes
POSITIONS = {"NREG_TRANS": "NiftyReg", "Mapping": "SPM"}  # vectors all the same, but absolute positions
INTENT = (
    "its NIfTI intent code is {}, which leaves open what its numbers are: give it 1007 for displacements in mm along "
    "L, P, S, or 1006 along R, A, S; or say whose it is by --kind"
)


def is_displacement(path: str | os.PathLike[str]) -> bool:
    """Tell by its ending whether a transform is an image of displacements, not a transform file."""
    return Path(path).name.lower().endswith(ENDINGS)


def read_displacement(path: str | os.PathLike[str]) -> tuple[DDF, Grid]:
    """Read an image of three components: displacements in mm from fixed to moving.

    Along L, P, S, as ITK has them in memory. In a NIfTI file, of four axes (H, W, L, 3) or of five (H, W, L, 1, 3),
    the intent code says so: 1007 (a vector: ours, ANTs' and ITK's); or 1006 (a displacement vector) for R, A, S.

    Args:
        path: ends in ``.nii``, ``.nii.gz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``.

    Returns:
        The field, (3, H, W, L), voxels, float64, and the grid it lies on.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or one of anything else.
    """
    check_file(path, "transform")
    try:
        check_whole(path)
        with itk_files():
            image = sitk.ReadImage(utf8(path))
    except DamagedFileError as error:
        raise ValueError(f"The transform ({path}) cannot be read: {error}.") from error
    except RuntimeError as error:
        raise ValueError(f"The transform ({path}) cannot be read by ITK as an image of displacements.") from error
    why = _objection(image, Path(path).name.lower().endswith(NIFTI))
    if why:
        raise ValueError(f"The transform ({path}) is no displacement field: {why}.")
    is_nifti = Path(path).name.lower().endswith(NIFTI)
    field_mm, grid = _of_nifti(path, image) if is_nifti else _vectors(image)
    if not np.isfinite(field_mm).all():
        raise ValueError(f"The transform ({path}) holds NaN or infinite displacements: replace them first.")
    return ddf_from_mm(field_mm, grid)


def _objection(image: sitk.Image, is_nifti: bool) -> str:
    """Say why an image is no displacement field; nothing where it is one."""
    about = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    size, components = list(image.GetSize()), image.GetNumberOfComponentsPerPixel()
    axes = [*size, components] if components > 1 else size
    if axes[3:] not in ([3], [1, 3]):
        return f"it is of {'×'.join(map(str, axes))} numbers, not of three components at each voxel of a volume"
    if is_nifti and about["intent_code"] not in (DISPLACEMENT, VECTOR):
        return INTENT.format(about["intent_code"])
    if about.get("intent_name") in POSITIONS:
        return f"it holds the positions that {POSITIONS[about['intent_name']]} writes: convert it to displacements"
    if not is_nifti and components == 1:
        return "its components are planes of a fourth axis: write it as an image of vectors"
    if "float" not in image.GetPixelIDTypeAsString():
        return f"its components are of type {image.GetPixelIDTypeAsString()}, as colours are: write them as float"
    return ""


def _vectors(image: sitk.Image) -> tuple[npt.NDArray[np.floating], Grid]:
    return sitk.GetArrayViewFromImage(image).transpose(3, 2, 1, 0), grid_from_itk(image)


def _of_nifti(path: str | os.PathLike[str], image: sitk.Image) -> tuple[npt.NDArray[np.floating], Grid]:
    """Take the place from ITK, and the values from the file: (3, H, W, L).

    ITK 5.4 reads what is missing of a file, and what is no number, as 0; and of four axes it turns two of every three
    numbers of intent 1006 around, as if the components lay beside each other.
    """
    try:
        with nibabel_files():
            values = np.asarray(nibabel.load(path).dataobj)
    except OSError as error:
        raise ValueError(
            f"The transform ({path}) cannot be read: it is cut off or damaged: copy or make it again."
        ) from error
    vectors = values.reshape(*values.shape[:3], 3)
    vectors = along_lps(vectors) if image.GetMetaData("intent_code") == DISPLACEMENT else vectors
    grid = grid_from_itk(image[:, :, :, 0] if image.GetDimension() == 4 else image)
    return np.moveaxis(vectors, -1, 0), grid
