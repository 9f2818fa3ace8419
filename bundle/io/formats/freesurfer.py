"""Transforms of FreeSurfer.

- A matrix (``.lta``): between the voxels (type 0) or the points in mm, RAS (type 1), of two images whose geometries it
  states: ``src``, the **moving** image, to ``dst``, the **fixed** one, so that T is its inverse. A file whose ``src``
  is the given fixed image, or whose ``dst`` is the moving one, goes from fixed to moving already.
- A warp (``.nii.gz`` with intent 1006, ``.mgz``): on the fixed image's grid, displacements in mm along **R, A, S**; or,
  as its header may say, positions in mm, or either in voxels of the moving image. FreeSurfer's part of the header
  (NIfTI extension 14, tags of ``.mgz``) states which, and the moving image's geometry.
- ``.m3z`` is not read: ``mri_warp_convert --inm3z X.m3z --outitk Y.nii.gz`` makes one that is.

Source: surfa 0.6.3, FreeSurfer's own Python package (``tests/interop``); FreeSurfer itself was not run.
"""

import gzip
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from bundle.io.formats.common import (
    Vectors,
    check_matrix,
    components_last,
    from_targets,
    index_of,
    linear,
    nifti,
    refused,
    sampled,
    turned,
)
from bundle.io.headers import read_header
from bundle.io.images import write_vectors
from bundle.spatial import Grid, Matrix, SpatialTransform, along_lps, ras_from_lps

__all__ = ["EXTENSION", "read_lta", "read_warp", "write_lta", "write_warp"]

EXTENSION = 14  # FreeSurfer's code of its part of a NIfTI header
INTENT = 1006  # NIfTI's code of a displacement vector, along R, A, S
WARP = 3  # FreeSurfer's own intent of a warp
POSITION_VOXELS, SHIFT_VOXELS, POSITION_MM, SHIFT_MM = range(4)
GEOMETRY, META, GEOMETRY_WITH_SHEAR, END = 10, 13, 15, -1  # tags
WITHOUT_LENGTH = (GEOMETRY, 1, 2, 11, 12, 20)  # in .mgz
MGZ_HEADER, NAME_IN_MGZ = 284, 512  # bytes
GEOMETRY_FORM = ">i3i3f9f3f"  # valid, shape, voxel size, directions of the three axes, the centre's point
BY_NITRANSFORMS = "file created by NiTransforms"
DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}
NUMBERS = r"=\s*([-+\d.eE]+)\s+([-+\d.eE]+)\s+([-+\d.eE]+)"


@dataclass(frozen=True)
class _About:
    """What FreeSurfer states of a warp: what its numbers are, and where the voxels of the moving image lie."""

    form: int
    moving: Grid


def _grid(shape: Vectors, spacing: Vectors, axes: Matrix, centre: Vectors) -> Grid:
    """Build a grid of FreeSurfer's geometry, RAS, whose centre is half the shape, not half a voxel less."""
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (shape / 2)
    return Grid.from_ras([int(n) for n in shape], affine)


def _grid_of(numbers: Vectors) -> Grid:
    """Build a grid of the eighteen numbers in which FreeSurfer's binary headers describe it."""
    shape, spacing, centre = numbers[:3], numbers[3:6], numbers[15:18]
    return _grid(shape, spacing, numbers[6:15].reshape(3, 3).T, centre)


def _geometry(grid: Grid) -> tuple[Vectors, Matrix, Vectors]:
    """Describe a grid as FreeSurfer does: spacing (3,), axes in columns, 3×3, and centre (3,), RAS."""
    ras = ras_from_lps(grid.affine)
    return grid.spacing_mm, ras[:3, :3] / grid.spacing_mm, ras[:3, :3] @ (np.array(grid.shape) / 2) + ras[:3, 3]


def read_lta(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a matrix.

    Raises:
        ValueError: no ``.lta``, one of several matrices or of another type, one in voxels of unknown images, or one
            whose direction the given images leave open.
    """
    whole = path.read_text(errors="replace")
    text = re.sub(r"#[^\n]*", "", whole)
    kind, count = (re.search(rf"^{key}\s*=\s*(-?\d+)", text, re.MULTILINE) for key in ("type", "nxforms"))
    rows = re.search(r"^1 4 4\s*\n((?:[^\n]*\n){4})", text, re.MULTILINE)
    if not (kind and count and rows):
        raise refused(path, "it is no linear transform of FreeSurfer (.lta)")
    if int(count[1]) != 1 or int(kind[1]) not in (0, 1):
        raise refused(
            path,
            f"it holds {count[1]} matrices of type {kind[1]}: one of type 0 or 1 (voxels, RAS) is read, which "
            "lta_convert --outlta makes",
        )
    matrix = check_matrix(_matrix(rows[1], path), path)
    source, target = _volume(text, "src"), _volume(text, "dst")
    if int(kind[1]) == 0:
        if source is None or target is None:
            raise refused(path, "it is in voxels, but does not say of which images (their volume info is not valid)")
        matrix = ras_from_lps(target.affine) @ matrix @ np.linalg.inv(ras_from_lps(source.affine))
    by_nitransforms = BY_NITRANSFORMS in whole  # which exchanges the two geometries (25.1.0), not the matrix
    swapped = not by_nitransforms and _is_swapped(source, target, fixed_grid, moving_grid, path)
    return linear(turned(matrix if swapped else np.linalg.inv(matrix)), fixed_grid, moving_grid)


def _is_swapped(source: Grid | None, target: Grid | None, fixed_grid: Grid, moving_grid: Grid, path: Path) -> bool:
    """Tell whether a matrix goes from the fixed image to the moving one: by either of its geometries.

    One of them is enough, since the image that is resampled may have any grid. Between two images of one geometry, and
    where no geometry is stated, it goes from the moving one.

    Raises:
        ValueError: the images given leave that open.
    """
    if source is None and target is None:
        return False
    is_fixed, is_moving = (
        [of is not None and of.is_close(grid) for of in (source, target)] for grid in (fixed_grid, moving_grid)
    )
    if source and target and source.is_close(target) and any(is_fixed + is_moving):
        return False
    forward, backward = (
        (is_moving[a] and not is_fixed[a]) or (is_fixed[b] and not is_moving[b]) for a, b in ((0, 1), (1, 0))
    )
    if forward == backward:
        raise refused(
            path,
            "the grids of the images given do not tell which is its src and which its dst, and so its direction: "
            "give the two that it was found with, or first convert it with them (python -m bundle convert)",
        )
    return backward


def _matrix(rows: str, path: Path) -> Matrix:
    words = [row.split() for row in rows.splitlines()]
    try:
        if [len(row) for row in words] != [4, 4, 4, 4]:
            raise ValueError
        return np.array(words, dtype=float)
    except ValueError:
        raise refused(path, "its matrix is not of four rows of four numbers") from None


def _volume(text: str, which: str) -> Grid | None:
    """Read the geometry of one of the two images; None where it is not valid."""
    _, _, block = text.partition(f"{which} volume info")
    block = block.split("volume info")[0]
    valid = re.search(r"^valid\s*=\s*(\d+)", block, re.MULTILINE)
    keys = ("volume", "voxelsize", "xras", "yras", "zras", "cras")
    found = [re.search(rf"^{key}\s*{NUMBERS}", block, re.MULTILINE) for key in keys]
    if not valid or valid[1] != "1" or not all(found):
        return None
    shape, spacing, x, y, z, centre = (np.array(match.groups(), dtype=float) for match in found if match)
    return _grid(shape, spacing, np.stack([x, y, z], 1), centre)


def write_lta(transform: SpatialTransform, path: Path) -> None:
    """Write a linear transform, RAS to RAS, from the moving image to the fixed one."""
    lines = ["# transform file of pan-registration", "type      = 1 # LINEAR_RAS_TO_RAS", "nxforms   = 1"]
    lines += ["mean      = 0.0000 0.0000 0.0000", "sigma     = 1.0000", "1 4 4"]
    lines += [" ".join(f"{n:.15e}" for n in row) for row in np.linalg.inv(turned(transform.alignment))]
    for which, grid in {"src": transform.moving_grid, "dst": transform.fixed_grid}.items():
        spacing, axes, centre = _geometry(grid)
        lines += [f"{which} volume info", "valid = 1  # volume info valid", "filename = none"]
        lines += ["volume = {} {} {}".format(*grid.shape)]
        rows = {"voxelsize": spacing, **{f"{axis}ras  ": axes[:, i] for i, axis in enumerate("xyz")}, "cras  ": centre}
        lines += [f"{key} = " + " ".join(f"{n:.15e}" for n in row) for key, row in rows.items()]
    path.write_text("\n".join(lines) + "\n")


def read_warp(path: Path, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a warp as FreeSurfer's header describes it, or, without one, as displacements in mm along R, A, S.

    Raises:
        ValueError: no warp, an inverse one, or one of an unknown form.
    """
    if path.name.lower().endswith((".mgz", ".mgh")):
        field, grid, about = _read_mgz(path)
    else:
        image = nifti(path)
        field, grid = np.asarray(image.dataobj), read_header(path).grid
        about = _about(image, path) or _About(SHIFT_MM, moving_grid)
    field = components_last(field, path)
    if about.form in (POSITION_VOXELS, SHIFT_VOXELS):
        shifts = 0 if about.form == POSITION_VOXELS else index_of(grid)
        targets = about.moving.to_points(field + shifts)
    elif about.form in (POSITION_MM, SHIFT_MM):
        targets = along_lps(field) + (0 if about.form == POSITION_MM else grid.to_points(index_of(grid)))
    else:
        raise refused(path, f"its numbers are of an unknown form ({about.form})")
    return from_targets(targets, grid, fixed_grid, moving_grid)


def _about(image: nibabel.Nifti1Image, path: Path) -> _About | None:
    """Read FreeSurfer's part of a NIfTI header, if it has one."""
    for extension in image.header.extensions:
        if extension.get_code() == EXTENSION:
            content = extension.get_content()
            if struct.unpack_from(">H", content, 1)[0] != WARP:
                raise refused(path, "FreeSurfer's part of its header does not say that it is a warp")
            return _tags(content[4:], path, in_nifti=True)
    return None


def _read_mgz(path: Path) -> tuple[Vectors, Grid, _About]:
    """Read a warp's numbers, its grid, and what it says of itself."""
    with gzip.open(path) if path.name.lower().endswith("z") else path.open("rb") as file:
        content = file.read()
    version, *shape, kind = struct.unpack_from(">i4ii", content)
    if (version >> 8) & 0xFFFF != WARP or shape[3] != 3 or kind not in DTYPES:
        raise refused(path, "its header does not say that it is a warp from the fixed image to the moving one")
    grid = _grid_of(np.array([*shape[:3], *struct.unpack_from(">15f", content, 30)]))
    dtype = np.dtype(DTYPES[kind])
    count = int(np.prod(shape))
    if len(content) < MGZ_HEADER + count * dtype.itemsize:
        raise refused(path, "it ends before its last voxel")
    field = np.frombuffer(content, dtype, count, MGZ_HEADER).reshape(shape, order="F")
    scan_parameters = 5 * 4  # bytes
    return field, grid, _tags(content[MGZ_HEADER + count * dtype.itemsize + scan_parameters :], path, in_nifti=False)


def _tags(content: bytes, path: Path, in_nifti: bool) -> _About:
    """Find the form of a warp's numbers and the moving image's grid among tags: number, length, content."""
    at, form, moving = 0, None, None
    geometry_size = struct.calcsize(GEOMETRY_FORM) + NAME_IN_MGZ
    while at + 4 <= len(content) and None in (form, moving):
        (tag,) = struct.unpack_from(">i", content, at)
        at += 4
        if tag in (0, END):
            break
        length = 2 * geometry_size
        if in_nifti or tag not in WITHOUT_LENGTH:
            (length,) = struct.unpack_from(">q", content, at)
            at += 8
        if tag == GEOMETRY:
            _, *numbers = struct.unpack_from(GEOMETRY_FORM, content, at)
            moving = _grid_of(np.array(numbers))
        elif tag == META:
            (form,) = struct.unpack_from(">i", content, at)
        elif tag in WITHOUT_LENGTH and not in_nifti:
            break  # of a length that its content tells
        at += length
    if form is None or moving is None:
        raise refused(path, "FreeSurfer's part of its header does not say what its numbers are")
    return _About(form, moving)


def write_warp(transform: SpatialTransform, path: Path, like: str) -> None:
    """Write T as displacements in mm along R, A, S on the fixed image's grid, with FreeSurfer's part of the header."""
    grids = transform.moving_grid, transform.fixed_grid
    geometries = b"".join(_packed(grid) for grid in grids)
    sheared = b"".join(_packed(grid, struct.pack(">3f", 0, 0, 0)) for grid in grids)
    content = struct.pack(">cHB", b">", WARP, 1)
    parts = {GEOMETRY: geometries, GEOMETRY_WITH_SHEAR: sheared, META: struct.pack(">iif", SHIFT_MM, 1, 0), END: b"*"}
    content += b"".join(struct.pack(">iq", tag, len(part)) + part for tag, part in parts.items())
    field = sampled(transform, lambda points, moved: along_lps(moved - points))
    extension = nibabel.nifti1.Nifti1Extension(EXTENSION, content)
    write_vectors(field[:, :, :, None], transform.fixed_grid, path, INTENT, like, extension)


def _packed(grid: Grid, shear: bytes = b"") -> bytes:
    """Describe a grid in bytes, without the name of a file."""
    spacing, axes, centre = _geometry(grid)
    return struct.pack(GEOMETRY_FORM, 1, *grid.shape, *spacing, *axes.T.ravel(), *centre) + shear + struct.pack(">i", 0)
