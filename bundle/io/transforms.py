"""One door to the transform files of every tool: which of them a file is of, and T as this package has it.

A file tells what it is by its ending, and by what its first bytes or its header say. What could be of several tools
is not guessed: four rows of four numbers are greedy's (RAS, fixed to moving) or flirt's (FSL's points, moving to
fixed), and an array of displacements without a unit is of Learn2Reg, VoxelMorph or another. The kind is asked for then.
"""

import gzip
import os
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from bundle.io.displacement import is_displacement, read_displacement
from bundle.io.files import check_file
from bundle.io.formats import afni, elastix, freesurfer, fsl, greedy, learn2reg, x5
from bundle.io.formats.common import numbers_in
from bundle.io.headers import nibabel_files
from bundle.io.integrity import DamagedFileError
from bundle.io.itk import is_invertible
from bundle.io.itk_composites import read_transform
from bundle.spatial import Grid, SpatialTransform
from nibabel.filebasedimages import ImageFileError

__all__ = ["KINDS", "UNKNOWN", "files_of", "read_any"]

Reader = Callable[[Path, Grid, Grid], SpatialTransform]

UNKNOWN = Grid((1, 1, 1), np.eye(4))
"""The grid of an image that was not given."""

OF_IMAGES = ("flirt", "fnirt", "afni", "learn2reg", "voxelmorph")  # whose numbers, or direction, depend on both images
LTA = ".lta"
NIFTI = (".nii", ".nii.gz")
MGH = (".mgz", ".mgh")
OF_CHALLENGE = re.compile(r"disp_\d+_\d+\.(npz|nii|nii\.gz)", re.IGNORECASE)
TEXT = 4096  # bytes of a text file of one matrix, at most
BY_ENDING = {LTA: "freesurfer", ".x5": "x5", ".aff12.1d": "afni", **dict.fromkeys(MGH, "freesurfer")}
SENTENCES = {
    ".m3z": "it is FreeSurfer's .m3z: make a field of it by mri_warp_convert --inm3z IN.m3z --outitk OUT.nii.gz",
    ".xfm": "it is MINC's, RAS and from moving to fixed: convert it to ITK's .tfm",
    ".npy": "it is an array without a name: save it as 'vol' in an .npz and name its kind (--kind voxelmorph)",
}


def read_any(
    path: str | os.PathLike[str], fixed_grid: Grid = UNKNOWN, moving_grid: Grid = UNKNOWN, kind: str | None = None
) -> SpatialTransform:
    """Read a transform, linear or deformable, of any tool.

    Args:
        path: of the file.
        fixed_grid: of the fixed image, as its file has it, sheared or not: where results lie, and for the forms that
            depend on their images (flirt, fnirt, AFNI, Learn2Reg, VoxelMorph, ``.lta``) the image that the transform
            was found with. ``UNKNOWN`` for the others where it does not matter.
        moving_grid: of the moving image, likewise.
        kind: the tool whose form it is, one of ``KINDS``; None reads that from the file.

    Returns:
        T, mm, LPS, from fixed to moving, between these two grids. What is sampled at the fixed image's voxels (a
        B-spline) lies on a straight grid where that is sheared.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a kind that is none, one that must be named, a file that cannot be read as what it is, one that
            flattens space, or one that depends on images that were not given.
    """
    file = Path(path)
    if kind is not None and kind not in KINDS:
        raise ValueError(f"--kind is one of {', '.join(KINDS)}, not '{kind}'.")
    check_file(path, "transform")
    why = next((why for ending, why in SENTENCES.items() if file.name.lower().endswith(ending)), None)
    if why:
        raise ValueError(f"The transform ({path}) cannot be read: {why}.")
    try:
        kind = kind or _kind_of(file)
        depends = kind in OF_IMAGES or file.name.lower().endswith(LTA)
        if UNKNOWN in (fixed_grid, moving_grid) and depends:
            raise ValueError(
                f"The transform ({path}) is of {kind}, and depends on its images: give --moving and --fixed; or first "
                "convert it with them (python -m bundle convert)."
            )
        found = KINDS[kind](file, fixed_grid if depends else fixed_grid.orthogonal(), moving_grid)
    except DamagedFileError as error:
        raise ValueError(f"The transform ({path}) cannot be read: {error}.") from error
    except (ImageFileError, gzip.BadGzipFile, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"The transform ({path}) cannot be read as what its ending says, or is cut off.") from error
    if not is_invertible(found.alignment):
        raise ValueError(f"The transform ({path}) is singular: it flattens space, and cannot align anything.")
    if found.ddf is not None and found.field_grid is UNKNOWN:
        raise ValueError(
            f"The transform ({path}) is sampled at the voxels of its own fixed image (a B-spline, or several fields): "
            "give --fixed, or, of one among several, first convert it with its own images (python -m bundle convert)."
        )
    return replace(found, fixed_grid=fixed_grid)


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """List the files that a transform is read from: its own, and those that one of elastix names.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: files that elastix could not have meant so; see ``elastix.files_of``.
    """
    file = Path(path)
    return elastix.files_of(file) if file.is_file() and _is_of_elastix(file) else [file]


def _kind_of(path: Path) -> str:
    """Tell whose form a file is of.

    Raises:
        ValueError: it may be of several tools.
    """
    name = path.name.lower()
    by_ending = next((kind for ending, kind in BY_ENDING.items() if name.endswith(ending)), None)
    if by_ending:
        return by_ending
    if name.endswith(NIFTI):
        return _kind_of_nifti(path)
    if name.endswith(".npz"):
        return "learn2reg" if OF_CHALLENGE.fullmatch(name) else _ask(path, "arrays", "learn2reg or voxelmorph")
    if is_displacement(path):
        return "itk"
    if _is_of_elastix(path):
        return "elastix"
    if path.stat().st_size > TEXT:
        return "itk"
    if numbers_in(path, 4, 4) is not None:
        return _ask(path, "a matrix of 4×4 numbers", "greedy (RAS, from fixed to moving) or flirt (FSL's)")
    if numbers_in(path, 3, 4) is not None or numbers_in(path, 1, 12) is not None:
        return _ask(path, "a matrix of 3×4 numbers", "afni (twelve in a row)")
    return "itk"


def _kind_of_nifti(path: Path) -> str:
    """Tell by the header what the numbers of a NIfTI file are."""
    try:
        with nibabel_files():
            header = nibabel.load(path).header
    except (ImageFileError, OSError, EOFError):
        return "itk"  # which says what is wrong
    if any(extension.get_code() == freesurfer.EXTENSION for extension in header.extensions):
        return "freesurfer"
    intent = int(header["intent_code"])
    if intent in fsl.FNIRT_INTENTS:
        return "fnirt"
    if intent == 0 and header.get_data_shape()[3:] == (3,):
        return "learn2reg" if OF_CHALLENGE.fullmatch(path.name) else _ask(path, *UNNAMED)
    return "itk"


UNNAMED = (
    "three components at each voxel, of which its header does not say what they are (NIfTI's intent code 0)",
    "learn2reg or voxelmorph (voxels), afni (mm along L, P, S) or fnirt (FSL's points); or give it 1007 for "
    "displacements in mm along L, P, S, or 1006 along R, A, S",
)


def _ask(path: Path, what: str, kinds: str) -> str:
    raise ValueError(f"The transform ({path}) holds {what}: say whose it is by --kind {kinds}.")


def _itk(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a transform file of ITK, or a displacement field as an image."""
    if not is_displacement(path):
        return read_transform(path, fixed_grid, moving_grid)
    return SpatialTransform(np.eye(4), *read_displacement(path), fixed_grid, moving_grid)


def _is_of_elastix(path: Path) -> bool:
    """Tell elastix's parameters by their words; those of a B-spline's transform fill the file's middle."""
    with path.open("rb") as file:
        return file.read(1)[:1] in (b"(", b"/") and b"(Transform " in path.read_bytes()


def _elastix(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    return (elastix.read_parameters if _is_of_elastix(path) else _itk)(path, fixed_grid, moving_grid)


def _greedy(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    return (_itk if is_displacement(path) else greedy.read_matrix)(path, fixed_grid, moving_grid)


def _freesurfer(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    is_warp = path.name.lower().endswith((*NIFTI, *MGH))
    return (freesurfer.read_warp if is_warp else freesurfer.read_lta)(path, fixed_grid, moving_grid)


def _afni(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    return (afni.read_warp if path.name.lower().endswith(NIFTI) else afni.read_matrix)(path, fixed_grid, moving_grid)


KINDS: dict[str, Reader] = {
    "itk": _itk,
    "ants": _itk,
    "elastix": _elastix,
    "greedy": _greedy,
    "freesurfer": _freesurfer,
    "flirt": fsl.read_flirt,
    "fnirt": fsl.read_fnirt,
    "afni": _afni,
    "learn2reg": learn2reg.read_learn2reg,
    "voxelmorph": learn2reg.read_voxelmorph,
    "x5": x5.read_x5,
}
"""Whose forms are read."""
