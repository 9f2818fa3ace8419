"""What ``report.html`` shows, on one small grid: images, labels, Jacobian determinant and field.

All volumes lie along the fixed image's axes, ordered as left to right, posterior to anterior, inferior to superior. Of
a large image every volume is coarser, so that memory and the page's size stay bounded whatever was registered.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from bundle.intensity import percentile_range
from bundle.labels import LARGEST_COUNTED, consecutive
from bundle.report.overview import LARGEST_JACOBIAN
from bundle.report.placing import interpolated, lies_within, placed, thinned, within
from bundle.spatial import Grid, SpatialTransform, ras_from_lps
from isal import igzip

__all__ = ["FIELD_STEP_MM", "PageContent", "display_grid", "page_content"]

VOXELS = 1_300_000  # of a volume at most: with FIELD_VOXELS, noise that cannot be compressed stays below 15 MB
FIELD_VOXELS = 400_000
FIELD_STEP_MM = 0.01  # of the displacements, kept as whole numbers
LEVELS = 255
THUMBNAIL = 160  # pixels along its longer side at most
FOLDED_LEVEL = 255  # of the Jacobian's bytes; 1 to 254 are its logarithm, 0 is nothing

Volume = npt.NDArray[Any]


@dataclass(frozen=True)
class PageContent:
    """What a page is filled with.

    Args:
        volumes: gzipped NIfTI in base64 by name: ``fixed``, ``moving`` (by the headers), ``aligned``, ``warped`` in
            bytes; ``jacobian``; and of label maps that were given ``fixed_label``, ``moving_label``, ``aligned_label``,
            ``warped_label``, indices into ``labels``.
        grid: of all volumes, LPS.
        labels: the numbers that labels have in their files, the background first.
        field: u, gzipped little-endian int16 in base64, (3, H, W, L) in C order, in steps of ``FIELD_STEP_MM`` along
            the axes of LPS; None for a linear transform.
        field_grid: of the field.
        alignment: A of T(p) = A (p + u(p)), 4×4.
        thumbnail: (H, W), bytes: the middle axial plane, tiles of fixed and warped in turn.
    """

    volumes: dict[str, str]
    grid: Grid
    labels: list[int]
    field: str | None
    field_grid: Grid
    alignment: npt.NDArray[np.float64]
    thumbnail: npt.NDArray[np.uint8]


def page_content(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    warped: torch.Tensor,
    transform: SpatialTransform,
    fixed_label: torch.Tensor | None = None,
    moving_label: torch.Tensor | None = None,
    warped_label: torch.Tensor | None = None,
) -> PageContent:
    """Bring what a registration was made of, and what it found, onto the page's grid.

    Args:
        fixed: (1, H, W, L), the fixed image as given.
        moving: (1, H, W, L), the moving image as given.
        warped: (1, H, W, L), on the fixed image's grid.
        transform: what was found.
        fixed_label: label map on the fixed image's grid.
        moving_label: label map on the moving image's grid.
        warped_label: the moving label map on the fixed image's grid; comes with ``moving_label``.
    """
    grid = display_grid(transform.fixed_grid, VOXELS)
    images = _images(fixed, moving, warped, transform, grid)
    scaled = _scaled(images)
    volumes = {name: _nifti(values, grid, *scaling) for name, (values, scaling) in scaled.items()}
    volumes["jacobian"] = _nifti(_jacobian_bytes(transform, grid), grid)
    labels, numbers = _labels(fixed_label, moving_label, warped_label, transform, grid)
    volumes |= {name: _nifti(label, grid) for name, label in labels.items()}
    field_grid = display_grid(transform.fixed_grid, FIELD_VOXELS)
    return PageContent(
        volumes,
        grid,
        numbers,
        _field(transform, field_grid),
        field_grid,
        transform.alignment,
        _thumbnail(scaled["fixed"][0], scaled["warped"][0], grid),
    )


def display_grid(grid: Grid, voxels: int) -> Grid:
    """Order a grid's axes, and make its finest spacing coarser until it has no more than so many voxels.

    The field of view stays, up to a voxel of the new grid.
    """
    fine = grid.canonical()
    sides, spacing = np.array(fine.shape), fine.spacing_mm
    wanted = float(spacing.min())
    while True:
        coarse = np.maximum(spacing, wanted)
        size = np.maximum(np.ceil(sides * spacing / coarse - 1e-3), 1).astype(int)
        if size.prod() <= voxels:
            break
        wanted *= max((size.prod() / voxels) ** (1 / 3), 1.001)
    if (size == sides).all():
        return fine
    return fine.centred(size.tolist(), coarse)


def _images(
    fixed: torch.Tensor, moving: torch.Tensor, warped: torch.Tensor, transform: SpatialTransform, grid: Grid
) -> dict[str, Volume]:
    """The four images on the grid, in their own intensities."""
    of_moving = transform.moving_grid
    return {
        "fixed": placed(*thinned(fixed, transform.fixed_grid, grid), grid),
        "moving": placed(*thinned(moving, of_moving, grid), grid),
        "aligned": placed(*thinned(moving, of_moving, grid), grid, transform.alignment),
        "warped": placed(*thinned(warped, transform.fixed_grid, grid), grid),
    }


def _scaled(images: dict[str, Volume]) -> dict[str, tuple[Volume, tuple[float, float]]]:
    """Bring the images to bytes; all of the moving side share one range of grays. With each slope and intercept."""
    ranges = {name: percentile_range(images[name]) for name in ("fixed", "warped", "aligned")}
    of_moving = ranges["warped"] if ranges["warped"][1] > ranges["warped"][0] else ranges["aligned"]
    scaled = {}
    for name, image in images.items():
        low, high = ranges["fixed"] if name == "fixed" else of_moving
        slope = (high - low) / LEVELS or 1.0
        values = np.rint(np.clip((image - low) / slope, 0, LEVELS)).astype(np.uint8)
        scaled[name] = values, (slope, low)
    return scaled


def _jacobian_bytes(transform: SpatialTransform, grid: Grid) -> Volume:
    """The logarithm of the determinant as bytes: 1 for a quarter of the volume, 254 for four times; 255 for a fold."""
    if transform.jacobian is None:
        return np.full(grid.shape, (FOLDED_LEVEL + 1) // 2, np.uint8)
    determinant = placed(transform.jacobian, transform.field_grid, grid, order=0, fill=1.0)
    logarithm = np.log(np.maximum(determinant, 1e-6)) / np.log(LARGEST_JACOBIAN)
    levels = 1 + np.rint((np.clip(logarithm, -1, 1) + 1) / 2 * (FOLDED_LEVEL - 2))
    return np.where(determinant > 0, levels, FOLDED_LEVEL).astype(np.uint8)


def _labels(
    fixed_label: torch.Tensor | None,
    moving_label: torch.Tensor | None,
    warped_label: torch.Tensor | None,
    transform: SpatialTransform,
    grid: Grid,
) -> tuple[dict[str, Volume], list[int]]:
    """The label maps at the grid's voxels as indices, and the numbers that they stand for."""
    of_fixed, of_moving, there = transform.fixed_grid, transform.moving_grid, {}
    numbers, indices = _numbered([fixed_label, moving_label, warped_label])
    if fixed_label is not None:
        there["fixed_label"] = placed(indices[0], of_fixed, grid, order=0)
    if moving_label is not None and warped_label is not None:
        there["moving_label"] = placed(indices[1], of_moving, grid, order=0)
        there["aligned_label"] = placed(indices[1], of_moving, grid, transform.alignment, order=0)
        there["warped_label"] = placed(indices[2], of_fixed, grid, order=0)
    return there, numbers


def _numbered(labels: Sequence[torch.Tensor | None]) -> tuple[list[int], list[torch.Tensor]]:
    """The numbers of several label maps, from 0 up, and the maps of their indices in the smallest type."""
    given = [torch.zeros(1, 1, 1, 1, dtype=torch.int64) if label is None else label.long() for label in labels]
    largest = max(int(label.max()) for label in given)
    if largest <= LARGEST_COUNTED:
        counts = sum(torch.bincount(label.flatten(), minlength=largest + 1) for label in given)
        numbers = torch.nonzero(torch.as_tensor(counts))[:, 0]
        numbers = numbers if numbers[0] == 0 else torch.cat([numbers.new_zeros(1), numbers])
        place = torch.zeros(largest + 1, dtype=torch.int64).index_put((numbers,), torch.arange(len(numbers)))
        indices = [place[label] for label in given]
    else:  # too sparse to be counted
        numbers, together = consecutive(torch.cat([label.flatten() for label in given]))
        indices = [part.view(label.shape) for part, label in zip(together.split([i.numel() for i in given]), given)]
    fits = (dtype for dtype in (torch.uint8, torch.int16, torch.int32) if len(numbers) <= torch.iinfo(dtype).max)
    dtype = next(fits)
    return numbers.tolist() if len(numbers) > 1 else [], [index.to(dtype) for index in indices]


def _field(transform: SpatialTransform, grid: Grid) -> str | None:
    if transform.field_mm is None:
        return None
    matrix = transform.field_grid.inverse @ grid.affine
    field = interpolated(transform.field_mm, matrix, grid.shape)
    if not lies_within(matrix, grid.shape, transform.field_grid.shape):
        field = field * within(matrix, grid.shape, transform.field_grid.shape)
    steps = np.rint(field / FIELD_STEP_MM)
    return _packed(np.clip(steps, -32768, 32767).astype("<i2").tobytes())


def _thumbnail(fixed: Volume, warped: Volume, grid: Grid, tiles: int = 6) -> npt.NDArray[np.uint8]:
    """The middle axial plane, left on the right as radiologists have it, anterior up: tiles of both images in turn."""
    first, second = (image[::-1, ::-1, image.shape[2] // 2].T for image in (fixed, warped))
    spacing = grid.spacing_mm[[1, 0]]
    extent = np.array(first.shape) * spacing
    pixel = max(float(spacing.min()), float(extent.max()) / THUMBNAIL)
    centres = [(np.arange(max(1, round(length / pixel))) + 0.5) * pixel for length in extent]  # mm
    rows, columns = (np.minimum(c // s, n - 1).astype(int) for c, s, n in zip(centres, spacing, first.shape))
    odd = ((centres[0] // (extent.max() / tiles))[:, None] + centres[1] // (extent.max() / tiles)) % 2
    return np.where(odd, *(image[np.ix_(rows, columns)] for image in (second, first))).astype(np.uint8)


def _nifti(values: Volume, grid: Grid, slope: float = 1.0, intercept: float = 0.0) -> str:
    """Pack a volume as NIfTI, (H, W, L), whose stored value times slope plus intercept is what it stands for."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_sform(ras_from_lps(grid.affine), code="scanner")
    header["pixdim"][1:4] = grid.spacing_mm
    header.set_xyzt_units("mm")
    header["vox_offset"] = len(header.binaryblock) + 4
    header.set_slope_inter(slope, intercept)
    return _packed(header.binaryblock + bytes(4) + values.tobytes(order="F"))


def _packed(content: bytes) -> str:
    return base64.b64encode(igzip.compress(content, compresslevel=2)).decode()
