"""Objects made by highdicom: what it is given of the inputs, and what is set afterwards so that they are repeatable."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from panreg.dicom.attributes import macro, numbers
from panreg.dicom.elements import copy_elements, decimal
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import holder_of
from panreg.ingest.stack import Stack
from panreg.objects.modules import code, copy_patient_and_study, describe_equipment, local_time, long_string, reference
from panreg.objects.provenance import IMPLEMENTATION_CLASS_UID, MANUFACTURER, MODEL_NAME, Provenance
from panreg.settings import Settings
from pydicom import Dataset
from pydicom.sequence import Sequence

__all__ = ["IDENTIFIED", "complete_measures", "finish", "identification", "source_images", "sources"]

UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
SHARED = (*UIDS, "PositionReferenceIndicator", "Modality", "Rows", "Columns")
IDENTIFIED = (  # attributes that highdicom requires of a source image and replaces in its objects
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
TIMES = (
    *(("InstanceCreationDate", "InstanceCreationTime"), ("ContentDate", "ContentTime"), ("SeriesDate", "SeriesTime")),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)
MEASURES = ("PixelSpacing", "SliceThickness")


def sources(stack: Stack) -> list[Dataset]:
    """Build what highdicom needs of a stack: UIDs and geometry, in slice order (frame order if multi-frame).

    highdicom logs a patient's name that has no caret, fails where a Type 2 attribute is absent, copies whatever else
    stands in the patient's modules, and refuses slices whose orientations differ in the last digit. None of that can
    happen here; ``finish`` writes patient and study.
    """
    if is_multi_frame(stack):
        return [_multi_frame_source(stack)]
    return [_single_frame_source(frame, stack) for frame in stack.frames]


def is_multi_frame(stack: Stack) -> bool:
    """Tell whether one instance holds all frames; enhanced images may also be an instance a slice."""
    return stack.frames[0].number is not None and len(stack.sop_instance_uids) == 1


def complete_measures(measures: Dataset, stack: Stack) -> None:
    """Set the distance between planes, and the thickness of slices, which segmentations need, where none is told."""
    thickness = numbers(measures, "SliceThickness", 1)
    if thickness is None or thickness[0] <= 0:
        measures.SliceThickness = decimal(stack.spacing_mm[2])
    measures.SpacingBetweenSlices = decimal(stack.spacing_mm[2])


def _source(header: Dataset) -> Dataset:
    source = Dataset()
    copy_elements(source, header, SHARED)
    copy_elements(source, Dataset(), IDENTIFIED, empty=True)
    return source


def _single_frame_source(frame: Frame, stack: Stack) -> Dataset:
    source = _source(frame.header)
    for keyword in ("ImagePositionPatient", *MEASURES):
        copy_elements(source, holder_of(frame, keyword), [keyword])
    copy_elements(source, holder_of(stack.frames[0], "ImageOrientationPatient"), ["ImageOrientationPatient"])
    complete_measures(source, stack)
    return source


def _multi_frame_source(stack: Stack) -> Dataset:
    source = _source(stack.header)
    source.NumberOfFrames = len(stack.frames)
    shared = Dataset()
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        setattr(shared, name, Sequence([deepcopy(macro(stack.frames[0], name))]))
    complete_measures(shared.PixelMeasuresSequence[0], stack)
    source.SharedFunctionalGroupsSequence = Sequence([shared])
    source.PerFrameFunctionalGroupsSequence = Sequence([Dataset() for _ in stack.frames])
    for frame in stack.frames:
        item = source.PerFrameFunctionalGroupsSequence[(frame.number or 1) - 1]
        item.PlanePositionSequence = Sequence([deepcopy(macro(frame, "PlanePositionSequence"))])
    return source


def identification(role: str, settings: Settings, provenance: Provenance, source: str = "") -> Mapping[str, Any]:
    """Build the arguments that all constructors of highdicom share: UIDs, numbers, the maker.

    Args:
        role: "report", "montage" or "segmentation"; also the key of its series number.
        settings: with the series numbers.
        provenance: gives the UIDs.
        source: what the content depends on beside that, if anything: another one gives other UIDs.
    """
    name = f"{role}:{source}" if source else role
    return {
        "series_instance_uid": provenance.uid(f"{name}:series"),
        "series_number": settings.series_numbers[role],
        "sop_instance_uid": provenance.uid(f"{name}:0001"),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": provenance.software_versions,
        "device_serial_number": provenance.version,
    }


def source_images(instances: Iterable[Dataset]) -> Sequence:
    """Build the Source Image Sequence: references with their purpose, which highdicom leaves out."""
    items = [reference(instance) for instance in instances]
    for item in items:
        item.PurposeOfReferenceCodeSequence = Sequence(
            [code("121322", "DCM", "Source image for image processing operation")]
        )
    return Sequence(items)


def finish(target: Dataset, description: str, fixed: Stack, provenance: Provenance, contribution: str) -> None:
    """Set patient, study, equipment and times of an object of highdicom, with nothing random or of the wall clock.

    Args:
        target: the object.
        description: of its series; what exceeds 64 characters is cut.
        fixed: whose patient and study it joins.
        provenance: of the run.
        contribution: what our equipment did.
    """
    target.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    target.file_meta.ImplementationVersionName = "PANREG"
    copy_patient_and_study(target, fixed.header)
    target.SeriesDescription = long_string(description)
    now = local_time(target, provenance.clock)
    for date, time in TIMES:
        if date in target or date == "SeriesDate":
            setattr(target, date, now.strftime("%Y%m%d"))
            setattr(target, time, now.strftime("%H%M%S"))
    describe_equipment(target, provenance, contribution)
    for item in _dimension_items(target):
        item.DimensionOrganizationUID = provenance.uid("dimensions")


def _dimension_items(target: Dataset) -> Iterator[Dataset]:
    yield from target.get("DimensionOrganizationSequence", [])
    yield from target.get("DimensionIndexSequence", [])
