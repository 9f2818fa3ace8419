"""Displacement fields as images: ours, and those that ITK, ANTs and Slicer write."""

import os
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
from bundle.io.files import check_file, utf8
from bundle.io.headers import UnusableImageError, nibabel_files, read_header
from bundle.io.integrity import DamagedFileError, check_whole
from bundle.io.itk import ddf_from_mm, grid_from_itk, itk_files
from bundle.shapes import DDF
from bundle.spatial import Grid, along_lps
from nibabel.filebasedimages import ImageFileError

__all__ = ["is_displacement", "read_displacement"]

NIFTI = (".nii", ".nii.gz")
ENDINGS = (*NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd")
DISPLACEMENT, VECTOR = "1006", "1007"  # NIfTI's intent codes
POSITIONS = {"NREG_TRANS": "NiftyReg", "Mapping": "SPM"}  # vectors all the same, but absolute positions
INTENT = (
    "its NIfTI intent code is {}, which leaves open what its numbers are: give it 1007 for displacements in mm along "
    "L, P, S, or 1006 along R, A, S; or say whose it is by --kind"
)
AS_COLOURS = "its components are of type {}, as colours are: write them as float"


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
    is_nifti = Path(path).name.lower().endswith(NIFTI)
    try:
        check_whole(path)
        field_mm, grid = (_of_nifti if is_nifti else _of_itk)(path)
    except (DamagedFileError, UnusableImageError) as error:
        raise ValueError(f"The transform ({path}) cannot be read: {error}.") from error
    except (RuntimeError, ImageFileError) as error:
        reader = "nibabel" if is_nifti else "ITK"
        raise ValueError(f"The transform ({path}) cannot be read by {reader} as an image of displacements.") from error
    if not np.isfinite(field_mm).all():
        raise ValueError(f"The transform ({path}) holds NaN or infinite displacements: replace them first.")
    return ddf_from_mm(field_mm, grid)


def _of_itk(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.floating], Grid]:
    with itk_files():
        image = sitk.ReadImage(utf8(path))
    components, kind = image.GetNumberOfComponentsPerPixel(), image.GetPixelIDTypeAsString()
    name = image.GetMetaData("intent_name") if image.HasMetaDataKey("intent_name") else ""
    why = _objection([*image.GetSize(), components] if components > 1 else image.GetSize(), name)
    if not why and components == 1:
        why = "its components are planes of a fourth axis: write it as an image of vectors"
    if not why and "float" not in kind:
        why = AS_COLOURS.format(kind)
    if why:
        raise _refused(path, why)
    return sitk.GetArrayFromImage(image).transpose(3, 2, 1, 0), grid_from_itk(image)


def _of_nifti(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.floating], Grid]:
    """Take the place from the header, as of any image, and the values from nibabel: (3, H, W, L).

    ITK 5.4 reads what is missing of a file, and what is no number, as 0; of four axes it turns two of every three
    numbers of intent 1006 around, as if the components lay beside each other; it has two axes of a single slice; and
    it ends the process over vectors of whole numbers with a scale.
    """
    with nibabel_files():
        image = nibabel.load(path)
    intent = str(int(image.header["intent_code"]))
    why = _objection(image.shape, image.header["intent_name"].item().decode(errors="replace"))
    if not why and intent not in (DISPLACEMENT, VECTOR):
        why = INTENT.format(intent)
    if why:
        raise _refused(path, why)
    try:
        values = np.asarray(image.dataobj)
    except OSError as error:
        raise ValueError(
            f"The transform ({path}) cannot be read: it is cut off or damaged: copy or make it again."
        ) from error
    if values.dtype.kind != "f":
        raise _refused(path, AS_COLOURS.format(values.dtype))
    vectors = values.reshape(*values.shape[:3], 3)
    vectors = along_lps(vectors) if intent == DISPLACEMENT else vectors
    return np.moveaxis(vectors, -1, 0), read_header(path).grid


def _objection(axes: Sequence[int], name: str) -> str:
    """Say why an image of so many numbers along each axis is no displacement field; nothing where it may be one.

    Args:
        axes: the components last.
        name: of NIfTI's intent.
    """
    if tuple(axes[3:]) not in ((3,), (1, 3)):
        return f"it is of {'×'.join(map(str, axes))} numbers, not of three components at each voxel of a volume"
    if name in POSITIONS:
        return f"it holds the positions that {POSITIONS[name]} writes: convert it to displacements"
    return ""


def _refused(path: str | os.PathLike[str], why: str) -> ValueError:
    return ValueError(f"The transform ({path}) is no displacement field: {why}.")
