"""The Deformable Spatial Registration object (PS3.3 A.39.2): where each fixed point lies in the moving image.

The object's Frame of Reference is the fixed one, its Source Frame of Reference the moving one. It holds the total
displacement D, LPS mm, fixed to moving, on an axis-aligned grid, between two identity matrices: readers that take the
grid's direction for its transpose, or fold the first matrix into the grid's place, still read it right.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from failures import Code, Failure
from functional_groups import holder_of
from modules import (
    LONG_STRING,
    code,
    copy_elements,
    decimal,
    describe_equipment,
    describe_series,
    frame_references,
    new_object,
    reference,
    save,
)
from provenance import Provenance
from pydicom import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeformableSpatialRegistrationStorage
from registration import Registration, Transform
from settings import Settings
from stack import Stack
from vector_grid import Matrix, VectorGrid, slabs

__all__ = ["StoredField", "write_deformable_registration"]

REFINEMENTS = (1.0, 1.5, 2.0, 2.5)
"""How many times finer the stored grid may become where a rough field needs it: accuracy goes before size."""
BYTES_PER_VECTOR = 12
LARGEST_VALUE = 2**32 - 2
"""Bytes of the longest value that an explicit length can tell."""
IDENTITY = [str(int(value)) for value in np.eye(4).ravel()]


@dataclass(frozen=True)
class StoredField:
    """What was stored, for the manifest and the report.

    Args:
        dimensions: voxels along x, y, z.
        spacing_mm: between them.
        size_bytes: of the vectors.
        max_error_mm: largest distance between the stored and the full displacement at the fixed image's voxels.
        p99_error_mm: 99th percentile of these.
        mean_error_mm: mean of these.
    """

    dimensions: tuple[int, int, int]
    spacing_mm: float
    size_bytes: int
    max_error_mm: float
    p99_error_mm: float
    mean_error_mm: float


def write_deformable_registration(
    registration: Registration, provenance: Provenance, settings: Settings, path: Path
) -> StoredField:
    """Write the displacement field as one object.

    Raises:
        Failure: E_OUTPUT where a grid of the permitted size would be more than ``max_grid_error_mm`` wrong.
    """
    fixed, moving, transform = registration.fixed, registration.moving, registration.transform
    grid, errors = _store_field(fixed, transform, settings)
    target = _begin(fixed, moving, provenance, settings)
    items = [_identity_item(fixed)] if settings.deformable.two_items else []
    target.DeformableRegistrationSequence = Sequence([*items, _deforming_item(moving, grid)])
    _list_instances(target, fixed, moving, settings.deformable.two_items)
    save(target, path)
    slices, rows, columns, _ = grid.vectors.shape
    return StoredField(
        (columns, rows, slices),
        float(grid.affine[0, 0]),
        grid.vectors.nbytes,
        float(errors.max()),
        float(np.percentile(errors, 99)),
        float(errors.mean(dtype=np.float64)),
    )


def _store_field(fixed: Stack, transform: Transform, settings: Settings) -> tuple[VectorGrid, npt.NDArray[np.float32]]:
    """Sample the field on a grid that keeps it well enough, refined where a rough field needs it.

    Returns:
        The grid, and its errors at the fixed voxels, mm.
    """
    coarsest = max(settings.deformable.spacing_mm, float(np.min(transform.field_grid.spacing_mm)))
    small_enough, _ = _choose_grid(fixed, coarsest, settings.deformable.max_megabytes)
    for finer in REFINEMENTS:
        limit = settings.deformable.max_megabytes * finer**3
        affine, shape = _choose_grid(fixed, float(small_enough[0, 0]) / finer, limit)
        grid = VectorGrid(affine, _evaluate(transform, affine, shape))
        errors = _resampling_errors(grid, fixed, transform)
        if errors.max() <= settings.quality.max_grid_error_mm:  # not so where it is NaN
            return grid, errors
    message = f"A grid of {affine[0, 0]:.1f} mm stores the field up to {errors.max():.2f} mm wrong"
    raise Failure(
        Code.E_OUTPUT, f"{message}; allow a finer grid or a larger object (deformable: spacing_mm, max_megabytes)."
    )


def _choose_grid(fixed: Stack, spacing: float, max_megabytes: float) -> tuple[Matrix, tuple[int, int, int]]:
    """Lay an axis-aligned grid over all fixed voxel centres: its affine and shape ``(slices, rows, columns)``.

    The spacing grows by 0.1 mm until the object is small enough.
    """
    low, high = _bounding_box(fixed)
    limit = min(max_megabytes * 1e6, LARGEST_VALUE)
    while (size := np.ceil((high - low) / spacing - 1e-6).astype(int) + 1).prod() * BYTES_PER_VECTOR > limit:
        spacing = round(np.floor(spacing * 10 + 1e-6) / 10 + 0.1, 1)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [float(decimal(value)) for value in low]  # the place that is stored
    return affine, (int(size[2]), int(size[1]), int(size[0]))


def _bounding_box(stack: Stack) -> tuple[Matrix, Matrix]:
    """Find the lowest and highest coordinates of a stack's voxel centres, mm."""
    assert stack.affine is not None
    last = np.array(stack.shape[::-1]) - 1
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * [*last, 1]
    points = (corners @ stack.affine.T)[:, :3]
    return points.min(0), points.max(0)


def _evaluate(
    transform: Transform, affine: Matrix, shape: tuple[int, int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Ask the transform for its displacement at a grid's points.

    Beyond its own field a transform still says where points go (by its alignment); so the grid has no undefined voxel.
    """
    vectors = np.empty((*shape, 3), dtype=np.float32)
    for planes, points in slabs(shape, affine):
        vectors[planes] = transform.displacement_at(torch.from_numpy(points), extend=True).cpu().numpy()
    if not np.isfinite(vectors).all():
        raise Failure(Code.E_OUTPUT, "The registration found no finite displacement somewhere: nothing is written.")
    return vectors


def _resampling_errors(grid: VectorGrid, fixed: Stack, transform: Transform) -> npt.NDArray[np.float32]:
    """Measure how far the stored field is from the full one at every fixed voxel centre, mm: an array ``[k, j, i]``."""
    assert fixed.affine is not None
    errors = np.empty(fixed.shape, dtype=np.float32)
    for planes, points in slabs(fixed.shape, fixed.affine):
        full = transform.displacement_at(torch.from_numpy(points)).cpu().numpy()
        errors[planes] = np.linalg.norm(grid.at(points) - full, axis=-1)
    return errors


def _begin(fixed: Stack, moving: Stack, provenance: Provenance, settings: Settings) -> FileDataset:
    """Write all modules but the registration itself."""
    target = new_object(DeformableSpatialRegistrationStorage, "dsro", fixed, provenance)
    target.Modality, target.SeriesInstanceUID = "REG", provenance.uid("dsro:series")
    target.SeriesNumber, target.InstanceNumber = settings.series_numbers["dsro"], 1
    describe_series(target, "REGISTRATION", moving)
    copy_elements(target, fixed.header, ["FrameOfReferenceUID", "PositionReferenceIndicator"], empty=True)
    copy_elements(target, holder_of(fixed.frames[0], "BodyPartExamined"), ["BodyPartExamined", "Laterality"])
    if not target.get("BodyPartExamined") and "Laterality" not in target:
        target.Laterality = None
    target.ContentLabel, target.ContentDescription = "PANREG", settings.label[:LONG_STRING].rstrip()
    target.ContentCreatorName = None
    describe_equipment(target, provenance, "Deformable image registration")
    return target


def _matrix() -> Sequence:
    item = Dataset()
    item.FrameOfReferenceTransformationMatrixType = "RIGID"
    item.FrameOfReferenceTransformationMatrix = IDENTITY
    return Sequence([item])


def _item(stack: Stack, comment: str, kind: Dataset) -> Dataset:
    """Build an item of the registration that says nothing yet: the identity."""
    item = Dataset()
    item.SourceFrameOfReferenceUID = stack.frame_of_reference_uid
    item.ReferencedImageSequence = Sequence(frame_references(stack.frames))
    item.FrameOfReferenceTransformationComment = comment
    item.RegistrationTypeCodeSequence = Sequence([kind])
    item.PreDeformationMatrixRegistrationSequence = _matrix()
    item.PostDeformationMatrixRegistrationSequence = _matrix()
    return item


def _identity_item(fixed: Stack) -> Dataset:
    return _item(fixed, "Fixed image", code("125021", "DCM", "Frame of Reference Identity"))


def _deforming_item(moving: Stack, grid: VectorGrid) -> Dataset:
    item = _item(moving, "Fixed to moving", code("125024", "DCM", "Image Content-based Alignment"))
    field = Dataset()
    field.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    field.ImagePositionPatient = [decimal(value) for value in grid.affine[:3, 3]]
    field.GridDimensions = list(grid.vectors.shape[2::-1])
    field.GridResolution = [float(value) for value in np.diag(grid.affine)[:3]]
    field.VectorGridData = grid.vectors.astype("<f4", copy=False).tobytes()
    item.DeformableRegistrationGridSequence = Sequence([field])
    return item


def _list_instances(target: FileDataset, fixed: Stack, moving: Stack, with_fixed: bool) -> None:
    """Write Common Instance Reference: what is in the object's own study, and what in another."""
    listed = [stack for stack in (fixed, moving) if stack is moving or with_fixed]
    here = [_series_item(stack) for stack in listed if stack.study_uid == fixed.study_uid]
    if here:
        target.ReferencedSeriesSequence = Sequence(here)
    if moving.study_uid != fixed.study_uid:
        study = Dataset()
        study.StudyInstanceUID = moving.study_uid
        study.ReferencedSeriesSequence = Sequence([_series_item(moving)])
        target.StudiesContainingOtherReferencedInstancesSequence = Sequence([study])


def _series_item(stack: Stack) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = stack.series_uid
    item.ReferencedInstanceSequence = Sequence([reference(header) for header in stack.instances()])
    return item
