"""Image files: scalar images are read and written here, displacement fields written."""

import math
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.files import utf8
from bundle.io.headers import NIBABEL, UnusableImageError, copy_geometry, nibabel_files, read_header
from bundle.io.integrity import check_whole, decompressed
from bundle.io.itk import image_to_itk, itk_files
from bundle.io.itk_headers import itk_information
from bundle.spatial import Grid, ras_from_lps
from isal import igzip_threaded
from monai.data import MetaTensor

__all__ = ["check_ending", "read_image", "write_displacement", "write_image", "write_vectors"]

NIFTI = (".nii", ".nii.gz")
IN_ONE_GZIP = (".nii.gz", ".mgz")
OF_ITK = (".nrrd", ".mha", ".mhd")
VECTOR = 1007  # NIfTI's intent code
OF_COMPONENTS = (1004, 1005, 1006, VECTOR, 2003, 2004, 2006)  # matrices, displacements, colours, fnirt's displacements
COMPONENTS = (
    "it holds colours, vectors or complex numbers, of which each voxel has several components that cannot be resampled "
    "one by one: bring it to one number a voxel"
)
IN_SECONDS = {"msec": 1e-3, "usec": 1e-6}
BLOCK = 4 << 20  # bytes that one thread compresses at a time


def read_image(path: str | os.PathLike[str], exact: bool = False) -> MetaTensor:
    """Read an image or a label map; the ending of the path names the reader.

    NIfTI, Analyze and MGH go through nibabel, all else through ITK; where the voxels are says ``read_header``.

    Args:
        path: of the file.
        exact: keep whole numbers of up to 63 bits as they are, in int64, and all else in float64: for label maps.
            Images are float32.

    Returns:
        (C, H, W, L), C the number of volumes, with its RAS affine in mm. ``meta`` holds
        ``filename_or_obj`` and, in ``notes``, sentences about what the header leaves open, one a line.

    Raises:
        UnusableImageError: the file holds colours, vectors or complex numbers, or a header without a usable position.
        DamagedFileError: it is compressed, and cut off or damaged.
        Exception: whatever nibabel or ITK raise for a broken file.
    """
    name = Path(path).name.lower()
    content = None
    if name.endswith(IN_ONE_GZIP):
        content = decompressed(path)
    else:
        check_whole(path)
    header = read_header(path)
    array = _by_nibabel(path, content) if name.endswith(NIBABEL) else _by_itk(path)
    if array.dtype.kind not in "biuf":
        raise UnusableImageError(COMPONENTS)
    is_whole = array.dtype.kind in "biu" and not (array.dtype == np.uint64 and array.max() >= 2**63)
    dtype = np.float32 if not exact else np.int64 if is_whole else np.float64
    with np.errstate(over="ignore"):
        voxels = np.ascontiguousarray(array, dtype=dtype)
    if (
        array.dtype.kind == "f"
        and array.dtype.itemsize > voxels.itemsize
        and (np.isinf(voxels) != np.isinf(array)).any()
    ):
        raise UnusableImageError("it holds values beyond 3.4e38, the range of 32-bit numbers: scale them down first")
    volume = torch.from_numpy(voxels)
    meta = {"filename_or_obj": os.fspath(path), "notes": "\n".join(header.notes)}
    return MetaTensor(volume, affine=torch.from_numpy(ras_from_lps(header.grid.affine)), meta=meta)


def _by_nibabel(path: str | os.PathLike[str], content: bytes | None) -> npt.NDArray[Any]:
    """Read voxels, (C, H, W, L), from a file, or its content; what a slope scales is in the precision of the slope."""
    with nibabel_files():
        image = nibabel.load(path)
        voxels = (image if content is None else type(image).from_bytes(content)).dataobj
    intent = int(image.header["intent_code"]) if "intent_code" in image.header else 0
    if math.prod(image.shape[4:]) > 1 or intent in OF_COMPONENTS:
        raise UnusableImageError(COMPONENTS)
    array = np.asanyarray(voxels)
    array = array.reshape(*(*array.shape, 1, 1, 1)[:3], -1)
    return np.moveaxis(array, -1, 0)


def _by_itk(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read voxels, (C, H, W, L); volumes are channels."""
    with itk_files():
        image = sitk.ReadImage(utf8(path))
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise UnusableImageError(COMPONENTS)
    axes = sitk.GetArrayFromImage(image).transpose()
    return np.moveaxis(axes.reshape(*(*axes.shape, 1, 1, 1)[:3], -1), -1, 0)


def check_ending(path: str | os.PathLike[str]) -> None:
    """Refuse a path that ``write_image`` has no format for.

    Raises:
        ValueError: an ending that no writer knows.
    """
    if not Path(path).name.endswith(NIFTI + OF_ITK):
        raise ValueError(f"The output ({path}) must end in .nii.gz, .nii, .nrrd, .mha or .mhd.")


def write_image(
    volume: torch.Tensor,
    grid: Grid,
    path: str | os.PathLike[str],
    like: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
) -> None:
    """Write a scalar volume, or several along a fourth axis; the ending of the path names the format.

    NIfTI goes through nibabel, which keeps the affine as it is, in float32; NRRD and MHA go through ITK.

    Args:
        volume: (1, H, W, L), or (T, H, W, L) for T volumes.
        grid: where its voxels are.
        path: ends in ``.nii``, ``.nii.gz``, ``.nrrd``, ``.mha`` or ``.mhd``.
        like: path of the image on this grid, whose header a NIfTI file takes over where toolkits read that
            differently, so that each places both alike.
        source: path of an image with as many volumes, whose step and unit of the fourth axis are taken over; ITK's
            formats, which have no unit, have time in seconds.

    Raises:
        ValueError: an ending that no writer knows.
    """
    check_ending(path)
    volumes = volume.cpu().numpy()
    if Path(path).name.endswith(NIFTI):
        array = volumes[0] if len(volumes) == 1 else np.moveaxis(volumes, 0, -1)
        image = nibabel.Nifti1Image(array, ras_from_lps(grid.affine), dtype=array.dtype)  # 64-bit labels: on purpose
        placed = _placed(image, grid, like)
        if len(volumes) > 1:
            step, unit = _fourth_axis(source)
            placed.header["pixdim"][4] = step
            placed.header.set_xyzt_units(placed.header.get_xyzt_units()[0], unit)
        _save(placed, path)
    else:
        images = [image_to_itk(array, grid) for array in volumes]
        with itk_files():
            step, unit = _fourth_axis(source)
            step *= IN_SECONDS.get(unit or "", 1.0)  # which ITK has of time, without saying so
            whole = images[0] if len(images) == 1 else sitk.JoinSeries(images, 0.0, step)
            sitk.WriteImage(whole, utf8(path), useCompression=True)


def _fourth_axis(path: str | os.PathLike[str] | None) -> tuple[float, str | None]:
    """Read the step along the fourth axis of an image, and its unit if one is stated: of time, mostly."""
    if path is None:
        return 1.0, None
    if Path(path).name.lower().endswith(NIBABEL):
        with nibabel_files():
            header = nibabel.load(path).header
        step = float((*header.get_zooms(), 0.0)[3])
        unit = header.get_xyzt_units()[1] if hasattr(header, "get_xyzt_units") else "unknown"
        unit = "msec" if isinstance(header, nibabel.freesurfer.mghformat.MGHHeader) else unit
        return (step, None if unit == "unknown" else unit) if step > 0 else (1.0, None)
    spacing = itk_information(path).GetSpacing()
    return (float(spacing[3]) if len(spacing) > 3 else 1.0), None


def write_displacement(
    field_mm: torch.Tensor, grid: Grid, path: str | os.PathLike[str], like: str | os.PathLike[str] | None = None
) -> None:
    """Write a displacement field as ITK, ANTs and Slicer read it: 5-D NIfTI, intent 1007, components in LPS, mm.

    Args:
        field_mm: (3, H, W, L), mm, LPS, fixed to moving.
        grid: where its voxels are.
        path: ends in ``.nii.gz`` or ``.nii``.
        like: see ``write_image``.
    """
    vectors = field_mm.movedim(0, -1).cpu().numpy().astype(np.float32)
    write_vectors(vectors[:, :, :, None, :], grid, path, VECTOR, like)


def write_vectors(
    vectors: npt.NDArray[np.floating],
    grid: Grid,
    path: str | os.PathLike[str],
    intent: int,
    like: str | os.PathLike[str] | None = None,
    extension: nibabel.nifti1.Nifti1Extension | None = None,
) -> None:
    """Write vectors of any meaning as NIfTI, their numbers as they are.

    Args:
        vectors: (H, W, L, 3) or (H, W, L, 1, 3).
        grid: where its voxels are.
        path: ends in ``.nii.gz`` or ``.nii``.
        intent: NIfTI's intent code, which says what the numbers are.
        like: see ``write_image``.
        extension: of the header.
    """
    image = nibabel.Nifti1Image(vectors, ras_from_lps(grid.affine))
    image.header.set_intent(intent, allow_unknown=True)
    if extension is not None:
        image.header.extensions.append(extension)
    _save(_placed(image, grid, like), path)


def _placed(image: nibabel.Nifti1Image, grid: Grid, like: str | os.PathLike[str] | None) -> nibabel.Nifti1Image:
    """State the position of a NIfTI image: mm, in the sform; or as the ambiguous header of a file on the same grid."""
    image.header.set_xyzt_units("mm")
    if like is not None and Path(like).name.lower().endswith(NIBABEL):
        header = read_header(like)
        if header.ambiguous and header.grid.is_close(grid):
            return copy_geometry(image, like)
    return image


def _save(image: nibabel.Nifti1Image, path: str | os.PathLike[str]) -> None:
    """Write NIfTI; its compression, which takes longer than all else of a file, on all cores.

    Interpolated voxels hold few repetitions: the fastest level makes files as small as zlib's slower ones.
    """
    if not Path(path).name.endswith(".gz"):
        nibabel.save(image, path)
        return
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with igzip_threaded.open(path, "wb", compresslevel=1, threads=threads, block_size=BLOCK) as file:
        file.write(image.to_bytes())
