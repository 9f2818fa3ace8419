"""The Deformable Spatial Registration object (PS3.3 A.39.2): where each fixed point lies in the moving image.

The object's Frame of Reference is the fixed one, its Source Frame of Reference the moving one. It holds the total
displacement D, LPS mm, fixed to moving, on an axis-aligned grid, between two identity matrices: readers that take the
grid's direction for its transpose, or fold the first matrix into the grid's place, still read it right.
"""

from pathlib import Path

from panreg.dicom.elements import copy_elements, decimal
from panreg.ingest.stack import Stack
from panreg.objects.deformable.stored_field import StoredField, store_field
from panreg.objects.deformable.vector_grid import VectorGrid
from panreg.objects.modules import (
    LONG_STRING,
    code,
    describe_body_part,
    describe_equipment,
    describe_series,
    frame_references,
    new_object,
    reference,
    save,
)
from panreg.objects.provenance import Provenance
from panreg.registration.result import Registration
from panreg.settings import Settings
from pydicom import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeformableSpatialRegistrationStorage

__all__ = ["write_deformable_registration"]

IDENTITY = [str(int(row == column)) for row in range(4) for column in range(4)]


def write_deformable_registration(
    registration: Registration, provenance: Provenance, settings: Settings, path: Path
) -> StoredField:
    """Write the displacement field as one object.

    Returns:
        What was stored.

    Raises:
        Failure: E_OUTPUT where a grid of the permitted size can't hold the field.
    """
    fixed, moving = registration.fixed, registration.moving
    grid, stored = store_field(registration, settings)
    target = _begin(fixed, moving, provenance, settings)
    items = [_identity_item(fixed)] if settings.deformable.two_items else []
    target.DeformableRegistrationSequence = Sequence([*items, _deforming_item(moving, grid)])
    _list_instances(target, fixed, moving, settings.deformable.two_items)
    save(target, path)
    return stored


def _begin(fixed: Stack, moving: Stack, provenance: Provenance, settings: Settings) -> FileDataset:
    """Write all modules but the registration itself."""
    target = new_object(DeformableSpatialRegistrationStorage, "dsro", fixed, provenance)
    target.Modality, target.SeriesInstanceUID = "REG", provenance.uid("dsro:series")
    target.SeriesNumber, target.InstanceNumber = settings.series_numbers["dsro"], 1
    describe_series(target, "REGISTRATION", moving)
    copy_elements(target, fixed.header, ["FrameOfReferenceUID", "PositionReferenceIndicator"], empty=True)
    describe_body_part(target, fixed.frames[0])
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
    field.GridResolution = [float(value) for value in grid.affine.diagonal()[:3]]
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
