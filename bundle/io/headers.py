"""Where an image file says its voxels are: one reading of the header, and a sentence where toolkits differ.

ITK (with ANTs and 3D Slicer) and nibabel (with MONAI, FSL's tools and mrtrix) agree on most headers. Where they do not,
this package goes by ITK's reading, in which its transforms are applied, and says so. Where ITK refuses a NIfTI file
(axes off the right angle, NIfTI-2), it goes by nibabel's.
"""

import gzip
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from bundle.io.itk_headers import as_written, grid_by_itk, grid_of_nifti, itk_information
from bundle.spatial import Grid
from nibabel.imageglobals import logger

__all__ = ["NIBABEL", "Header", "UnusableImageError", "copy_geometry", "nibabel_files", "read_header"]

Matrix = npt.NDArray[np.float64]

NIBABEL = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".hdr.gz", ".mgz", ".mgh")
"""Endings of the files that nibabel reads here; ITK reads all others."""

ALIKE = 0.05
"""Two readings are one up to this share of a voxel, at every corner: what rounding to float32 quaternions may cost."""

POSITION = ("qform_code", "sform_code", *(f"quatern_{axis}" for axis in "bcd"), *(f"qoffset_{axis}" for axis in "xyz"))
POSITION += tuple(f"srow_{axis}" for axis in "xyz")
MGH_FLAG = 28  # bytes before the goodRASFlag of an MGH file, an int16, big-endian
UNITS = {"metres": 1000.0, "microns": 0.001}  # in mm; NIfTI's other units of length are mm and unknown, read as mm

IN_MM = "its header gives lengths in {unit}: they are read in mm, as ITK does (nibabel leaves them as they are)"


class UnusableImageError(ValueError):
    """An image file that can be read, but holds nothing that can be registered; the message says why, after "it"."""


@dataclass(frozen=True)
class Header:
    """Where the voxels of an image file are.

    Args:
        grid: shape and affine, mm, LPS; the axes are at right angles unless ``sheared``.
        notes: what to tell the user: one sentence for each thing that another toolkit may read differently.
        ambiguous: ITK and nibabel read the file differently.
        sheared: the axes are really oblique to each other, not by rounding alone.
        axes: of the file, of which the grid has the first three; 2 for a plane.
    """

    grid: Grid
    notes: tuple[str, ...] = ()
    ambiguous: bool = False
    sheared: bool = False
    axes: int = 3


@contextmanager
def nibabel_files() -> Iterator[None]:
    """Let nibabel open files without its own words about what it repairs in a header: notes say what matters."""

    def silence(_: Any) -> bool:
        return False

    logger.addFilter(silence)
    try:
        yield
    finally:
        logger.removeFilter(silence)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read where the voxels of an image file are, by the rule of this module.

    Args:
        path: NIfTI, Analyze or MGH through nibabel; NRRD, MetaImage and whatever else ITK knows through SimpleITK.

    Raises:
        UnusableImageError: the header has no position that any toolkit could use.
        RuntimeError: ITK cannot read the file.
    """
    if not Path(path).name.lower().endswith(NIBABEL):
        information = itk_information(path)
        return replace(_straightened(grid_by_itk(information)), axes=information.GetDimension())
    with nibabel_files():
        image = nibabel.load(path)
        return replace(_by_nibabel(image, path), axes=image.ndim)


def _by_nibabel(image: Any, path: str | os.PathLike[str]) -> Header:
    """Read the header of a file that nibabel has opened, as ITK does where it can."""
    by_nibabel = np.asarray(image.affine, dtype=np.float64)
    shape: tuple[int, int, int] = (*image.shape, 1, 1, 1)[:3]
    if isinstance(image, nibabel.freesurfer.MGHImage):
        return _straightened(Grid.from_ras(shape, by_nibabel), _mgh_notes(path))
    try:
        by_itk = grid_of_nifti(image, path, shape)
    except RuntimeError:  # axes off the right angle, NIfTI-2
        return _without_itk(image, shape, by_nibabel)
    if _usable(by_nibabel) and _apart(by_itk, Grid.from_ras(shape, by_nibabel)) <= ALIKE:
        return _straightened(Grid.from_ras(shape, by_nibabel))
    return Header(by_itk, (_disagreement(image, by_itk, by_nibabel),), ambiguous=True)


def _usable(affine: Matrix) -> bool:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.isfinite(affine).all() and (sizes > 0).all() and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-6)


def _apart(first: Grid, second: Grid) -> float:
    """Find the largest distance between the corners of two grids of one shape, in voxels of the finer one."""
    return first.corner_distance_mm(second) / min(first.spacing_mm.min(), second.spacing_mm.min())


def _straightened(grid: Grid, notes: tuple[str, ...] = (), ambiguous: bool = False) -> Header:
    """Bring axes that are off the right angle by rounding to it, and say of others that they are."""
    straight = grid.straightened()
    if straight is None:
        note = "its axes are not at right angles (a sheared grid, as of a tilted CT gantry)"
        return Header(grid, (*notes, note), ambiguous, sheared=True)
    return Header(straight, notes, ambiguous)


def _mgh_notes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Say so where an MGH file has no valid position: nibabel sets the flag to 1 when it falls back to its default."""
    opened = gzip.open(path) if Path(path).name.lower().endswith("z") else open(path, "rb")
    with opened as file:
        (valid,) = struct.unpack_from(">h", file.read(MGH_FLAG + 2), MGH_FLAG)
    if valid > 0:
        return ()
    return (
        "its header says that it has no valid position (goodRASFlag 0): it is taken as FreeSurfer and nibabel take it, "
        "coronal slices about the origin; check left and right",
    )


def _without_itk(image: Any, shape: tuple[int, ...], by_nibabel: Matrix) -> Header:
    """Go by nibabel's reading of a NIfTI file that ITK refuses, in mm; say where its forms disagree."""
    if not _usable(by_nibabel):
        raise UnusableImageError(
            "its header gives no position that can be used (a qform or sform that is zero or not a number): repair "
            "it, with nibabel's set_sform or FSL's fslorient"
        )
    grid, unit = Grid.from_ras(shape, _in_mm(image, by_nibabel)), _unit_name(image)
    notes: tuple[str, ...] = (f"{IN_MM.format(unit=unit)}",) if unit else ()
    (qform, qform_code), (_, sform_code) = image.get_qform(coded=True), image.get_sform(coded=True)
    if qform_code and sform_code and _usable(qform):
        apart_mm = grid.corner_distance_mm(Grid.from_ras(shape, _in_mm(image, qform)))
        if apart_mm > ALIKE * grid.spacing_mm.min():
            notes += (f"its qform and sform are up to {apart_mm:.3g} mm apart: the sform is taken, as by nibabel",)
    if grid.straightened() not in (grid, None):
        notes += (
            "its axes are off the right angle by rounding, for which ITK refuses the file: they are straightened",
        )
    return _straightened(grid, notes, ambiguous=bool(unit))


def _disagreement(image: Any, by_itk: Grid, by_nibabel: Matrix) -> str:
    """Say why ITK and nibabel read a header differently, what is taken, and how to repair it."""
    header = image.header
    if "qform_code" not in header:
        return (
            "it is an Analyze file, which does not say where left and right are: it is taken as ITK, ANTs and Slicer "
            "take it (nibabel and SPM read it otherwise); convert it to NIfTI and check left and right"
        )
    codes = int(header["qform_code"]), int(header["sform_code"])
    if codes == (0, 0):
        return (
            "its header has no orientation (qform and sform codes are 0): it is taken as ITK, ANTs and Slicer take it "
            "(nibabel and FSL place it otherwise); set a form with nibabel's set_sform or FSL's fslorient, and check "
            "left and right"
        )
    if (unit := _unit_name(image)) and _usable(by_nibabel):
        if _apart(by_itk, Grid.from_ras(by_itk.shape, _in_mm(image, by_nibabel))) <= ALIKE:
            return f"{IN_MM.format(unit=unit)}"
    if not _usable(by_nibabel):
        return f"its sform (code {codes[1]}) is no position: its qform is taken, as ITK does (nibabel cannot use it)"
    turned = _turned(image)
    if _apart(by_itk, Grid.from_ras(by_itk.shape, _in_mm(image, by_nibabel) @ turned)) <= ALIKE:
        axes = " and ".join(name for name, sign in zip(("first", "second", "third"), turned.diagonal()) if sign < 0)
        return (
            f"its voxel size (pixdim) is negative along the {axes} axis: that is taken the other way round, as by ITK, "
            "ANTs and Slicer (nibabel takes the size alone); write a positive size if that is wrong"
        )
    return _disagreeing_forms(codes, by_itk.corner_distance_mm(Grid.from_ras(by_itk.shape, by_nibabel)), by_itk, image)


def _disagreeing_forms(codes: tuple[int, int], apart_mm: float, by_itk: Grid, image: Any) -> str:
    """Say which of the forms is taken."""
    taken = "qform" if _is_qform(image, by_itk, codes) else "sform, with the voxel size of pixdim,"
    return (
        f"its qform (code {codes[0]}), sform (code {codes[1]}) and voxel size disagree, by up to {apart_mm:.3g} mm: "
        f"the {taken} is taken, as by ITK, ANTs and Slicer (nibabel and FSL go by the sform); if that is wrong, make "
        "them one with nibabel's set_qform and set_sform, or FSL's fslorient"
    )


def _is_qform(image: Any, by_itk: Grid, codes: tuple[int, int]) -> bool:
    """Tell whether ITK has gone by the qform; a form whose code is 0 is none."""
    if 0 in codes:
        return codes[1] == 0
    qform = image.get_qform(coded=False) @ _turned(image)
    return _usable(qform) and _apart(by_itk, Grid.from_ras(by_itk.shape, _in_mm(image, qform))) <= ALIKE


def _turned(image: Any) -> Matrix:
    """Turn the axes round whose voxel size is negative, as ITK does."""
    return np.diag([*np.where(as_written(image)["pixdim"][1:4] < 0, -1.0, 1.0), 1.0])


def _in_mm(image: Any, affine: Matrix) -> Matrix:
    """Bring an affine from the unit that the header names to mm."""
    factor = UNITS.get(_unit_name(image), 1.0)
    return np.diag([factor, factor, factor, 1.0]) @ affine


def _unit_name(image: Any) -> str:
    """Name the unit of length if it is not mm, or else nothing."""
    code = int(image.header["xyzt_units"]) & 7 if "xyzt_units" in image.header else 0
    return {1: "metres", 3: "microns"}.get(code, "")


def copy_geometry(image: nibabel.Nifti1Image, like: str | os.PathLike[str]) -> nibabel.Nifti1Image:
    """Give a NIfTI image the position of a file that toolkits read differently, so that each places both alike.

    Args:
        image: on the grid of that file.
        like: path of a NIfTI or Analyze file.
    """
    with nibabel_files():
        source = nibabel.load(like)
        placed = nibabel.Nifti1Image(image.dataobj, None, image.header)  # an affine would overwrite what it says
        # a NIfTI-2, which ITK refuses, is taken with the sizes that nibabel has made positive
        written = source.header if isinstance(source, nibabel.Nifti2Image) else as_written(source)
    header = placed.header
    header["pixdim"][:4] = written["pixdim"][:4]
    if "qform_code" in written:
        for name in POSITION:
            header[name] = written[name]
        header["xyzt_units"] = int(written["xyzt_units"]) & 7
    else:  # Analyze has no position
        header["pixdim"][0] = 1
        header["qform_code"] = header["sform_code"] = 0
    return placed
