"""The grid that the registration object stores: fine enough for the field where there is anatomy, and small enough."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from panreg.dicom.elements import decimal
from panreg.failures import Code, Failure
from panreg.ingest.stack import Stack
from panreg.objects.deformable.grid_fit import fit_vectors
from panreg.objects.deformable.vector_grid import BYTES_PER_VECTOR, Matrix, VectorGrid, slabs
from panreg.registration.result import Registration, Transform
from panreg.settings import Settings

__all__ = ["StoredField", "store_field"]

LARGEST_VALUE = 2**32 - 2
"""Bytes of the longest value that an explicit length can express."""
FINEST = 2.5
"""How many times finer than the field a grid may be: beyond, nothing is gained."""
EVEN_MM = 0.5
"""Largest error in the body of a grid that is taken without fitting it; and in a hundredth of the body of any grid."""
AIR_MM = 10.0
"""Air around the body that a grid over the body alone covers, too."""

Errors = npt.NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class StoredField:
    """What was stored, for the manifest and the report.

    Args:
        dimensions: voxels along x, y, z.
        spacing_mm: between them.
        size_bytes: of the vectors.
        covers: the whole ``image``, or the ``body`` with some air around it; beyond, an object displaces nothing.
        body_max_error_mm: largest distance between the stored and the full displacement at the voxels of the body.
        body_p99_error_mm: 99th percentile of these.
        body_mean_error_mm: mean of these.
        max_error_mm: the same at all voxels of the fixed image.
        p99_error_mm: 99th percentile of these.
        mean_error_mm: mean of these.
    """

    dimensions: tuple[int, int, int]
    spacing_mm: float
    size_bytes: int
    covers: str
    body_max_error_mm: float
    body_p99_error_mm: float
    body_mean_error_mm: float
    max_error_mm: float
    p99_error_mm: float
    mean_error_mm: float


def store_field(registration: Registration, settings: Settings) -> tuple[VectorGrid, StoredField]:
    """Store the field on an axis-aligned grid that is small enough, and keeps the field where there is anatomy.

    The first that is good enough, else the best, of: samples of the field at its own spacing, on its own points where
    its axes are the patient's; vectors fitted to the field on the finest grid that is small enough; the same over the
    body alone, with some air around it. Since an object displaces nothing beyond its grid, the last is taken only if a
    hundredth of the body would otherwise be wrong; a voxel alone is left to the quality gate.

    Raises:
        Failure: E_OUTPUT where the field isn't finite, or the best grid is more than ``EVEN_MM`` wrong in a hundredth
            of the body.
    """
    low, high = _bounding_box(registration.fixed)
    near_low, near_high = _box_of_body(registration)
    candidates = (("image", low, high, False), ("image", low, high, True), ("body", near_low, near_high, True))
    gate = settings.quality
    tried: list[tuple[VectorGrid, StoredField]] = []
    for covers, first, last, is_fitted in candidates:
        grid = _grid(registration, settings, first, last, is_fitted)
        stored = _measure(grid, registration, covers)
        tried.append((grid, stored))
        is_even = stored.body_max_error_mm <= EVEN_MM or is_fitted
        if stored.body_p99_error_mm <= gate.max_grid_error_p99_mm and is_even:
            break
    grid, stored = min(tried, key=lambda found: found[1].body_p99_error_mm)
    error = stored.body_p99_error_mm
    if not error <= EVEN_MM:  # not so where it is NaN
        message = f"A grid of {stored.spacing_mm:.1f} mm stores the field {error:.2f} mm wrong in a part of the body"
        raise Failure(Code.E_OUTPUT, f"{message}; allow a larger object (deformable: max_megabytes).")
    return grid, stored


def _grid(registration: Registration, settings: Settings, low: Matrix, high: Matrix, is_fitted: bool) -> VectorGrid:
    """Lay a grid over a box, and sample the field on it or fit it to the field."""
    transform, limit = registration.transform, settings.deformable.max_megabytes
    coarse = max(settings.deformable.spacing_mm, float(np.min(transform.field_grid.spacing_mm)))
    if not is_fitted:
        affine, shape = _lattice(low, high, coarse, limit, transform)
        return VectorGrid(affine, _evaluate(transform, affine, shape))
    affine, shape = _lattice(low, high, round(coarse / FINEST, 2), limit)

    def displacement_at(points: Matrix) -> Matrix:
        return np.asarray(transform.displacement_at(torch.from_numpy(points), extend=True).cpu().numpy())

    return VectorGrid(affine, fit_vectors(displacement_at, affine, shape))


def _lattice(
    low: Matrix, high: Matrix, spacing: float, max_megabytes: float, transform: Transform | None = None
) -> tuple[Matrix, Shape]:
    """Lay an axis-aligned grid over a box: its affine and shape ``(slices, rows, columns)``.

    The spacing grows by 5 µm until the object is small enough. With a transform, the grid's points are those of the
    field where that has this spacing along the patient's axes: then nothing is lost.
    """
    limit = min(max_megabytes * 1e6, LARGEST_VALUE)
    extra = 1 if transform is None else 2  # a grid may begin up to a voxel before the box
    while (np.ceil((high - low) / spacing - 1e-6) + extra).prod() * BYTES_PER_VECTOR > limit:
        spacing = round(spacing + 0.005, 3)
    first = low if transform is None else _on_points_of(transform, low, spacing)
    size = np.ceil((high - first) / spacing - 1e-6).astype(int) + 1
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [float(decimal(value)) for value in first]  # the place that is stored
    return affine, (int(size[2]), int(size[1]), int(size[0]))


def _on_points_of(transform: Transform, low: Matrix, spacing: float) -> Matrix:
    """Find the last point of the field's own lattice before a corner; the corner itself if that is another lattice."""
    field = np.asarray(transform.field_grid.affine, dtype=np.float64)
    axes = np.sort(np.abs(field[:3, :3]), axis=0)
    if np.abs(axes[:2]).max() > 1e-4 * spacing or np.abs(axes[2] - spacing).max() > 1e-4 * spacing:
        return low
    return np.asarray(field[:3, 3] + np.floor((low - field[:3, 3]) / spacing + 1e-6) * spacing)


def _bounding_box(stack: Stack, mask: npt.NDArray[np.bool_] | None = None) -> tuple[Matrix, Matrix]:
    """Find the lowest and highest coordinates of a stack's voxel centres, or of those in a mask's box, mm."""
    first, last = np.zeros(3), np.array(stack.shape[::-1]) - 1.0
    if mask is not None:
        places = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in (2, 1, 0)]
        first, last = np.array([p[0] for p in places], float), np.array([p[-1] for p in places], float)
    corners = np.array([(*np.where(corner, last, first), 1) for corner in np.ndindex(2, 2, 2)])
    points = (corners @ stack.affine.T)[:, :3]
    return points.min(0), points.max(0)


def _box_of_body(registration: Registration) -> tuple[Matrix, Matrix]:
    """Find the box of the body and the air around it, within the image."""
    low, high = _bounding_box(registration.fixed)
    if registration.body is None or not registration.body.any():
        return low, high
    body_low, body_high = _bounding_box(registration.fixed, registration.body)
    return np.maximum(low, body_low - AIR_MM), np.minimum(high, body_high + AIR_MM)


def _evaluate(transform: Transform, affine: Matrix, shape: Shape) -> npt.NDArray[np.float32]:
    """Ask the transform for its displacement at a grid's points.

    Beyond its own field a transform still says where points go (by its alignment); so the grid has no undefined voxel.
    """
    vectors = np.empty((*shape, 3), dtype=np.float32)
    for planes, points in slabs(shape, affine):
        vectors[planes] = transform.displacement_at(torch.from_numpy(points), extend=True).cpu().numpy()
    return vectors


def _measure(grid: VectorGrid, registration: Registration, covers: str) -> StoredField:
    """Measure what storing cost, in the body and everywhere.

    Raises:
        Failure: E_OUTPUT: the field isn't finite.
    """
    if not np.isfinite(grid.vectors).all():
        raise Failure(Code.E_OUTPUT, "The registration found no finite displacement somewhere: nothing is written.")
    everywhere = _resampling_errors(grid, registration.fixed, registration.transform)
    inside = everywhere if registration.body is None else everywhere[registration.body]
    slices, rows, columns, _ = grid.vectors.shape
    return StoredField(
        (columns, rows, slices),
        float(grid.affine[0, 0]),
        grid.vectors.nbytes,
        covers,
        *(float(inside.max()), float(np.percentile(inside, 99)), float(inside.mean(dtype=np.float64))),
        *(float(everywhere.max()), float(np.percentile(everywhere, 99)), float(everywhere.mean(dtype=np.float64))),
    )


def _resampling_errors(grid: VectorGrid, fixed: Stack, transform: Transform) -> Errors:
    """Measure how far the stored field is from the full one at every fixed voxel centre, mm: an array ``[k, j, i]``.

    Beyond the grid nothing is displaced.
    """
    errors = np.empty(fixed.shape, dtype=np.float32)
    for planes, points in slabs(fixed.shape, fixed.affine):
        full = transform.displacement_at(torch.from_numpy(points)).cpu().numpy()
        stored = np.nan_to_num(grid.at(points))  # NaN beyond the grid alone: its own vectors are finite
        errors[planes] = np.linalg.norm(stored - full, axis=-1)
    return errors
