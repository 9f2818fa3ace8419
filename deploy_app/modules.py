"""DICOM modules that all our objects share, and how an object is saved: strictly, or not at all."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, FileDataset, config
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from provenance import IMPLEMENTATION_CLASS_UID, MANUFACTURER, MODEL_NAME, Provenance
from stack import Stack

__all__ = ["code", "copy_elements", "copy_patient_and_study", "describe_equipment", "new_object", "reference", "save"]

# Type 2 attributes are written empty where the source has none; the others only where it has them.
PATIENT_STUDY_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
PATIENT_STUDY_OPTIONAL = (
    *("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "TypeOfPatientID"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("LongitudinalTemporalInformationModified", "PatientAge", "PatientSize", "PatientWeight", "PregnancyStatus"),
    *("StudyDescription", "IssuerOfAccessionNumberSequence", "TimezoneOffsetFromUTC"),
)


@contextmanager
def strict() -> Iterator[None]:
    """Let pydicom raise on every value that the standard forbids, while an object is built and saved."""
    settings = config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = config.RAISE
    try:
        yield
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Build a code sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def reference(instance: Dataset) -> Dataset:
    """Build a reference to an instance: its SOP Class and SOP Instance UIDs."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    return item


def copy_elements(target: Dataset, source: Dataset, keywords: Iterable[str], empty: bool = False) -> None:
    """Copy decoded elements that the source has; with ``empty``, write the others without a value (Type 2)."""
    for keyword in keywords:
        if keyword in source:
            target[keyword] = source[keyword]  # decoded: a raw element would keep bytes of another character set
        elif empty:
            setattr(target, keyword, None)


def copy_patient_and_study(target: Dataset, fixed: Dataset) -> None:
    """Say that an object belongs to the fixed image's patient and study, in its character set."""
    copy_elements(target, fixed, ["SpecificCharacterSet", "StudyInstanceUID"])
    copy_elements(target, fixed, PATIENT_STUDY_TYPE_2, empty=True)
    copy_elements(target, fixed, PATIENT_STUDY_OPTIONAL)


def describe_equipment(target: Dataset, provenance: Provenance, contribution: str) -> None:
    """Write General and Enhanced General Equipment, and the Contributing Equipment item with the device's UID."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([code("109102", "DCM", "Processing Equipment")])
    for equipment in (target, item):
        equipment.Manufacturer, equipment.ManufacturerModelName = MANUFACTURER, MODEL_NAME
        equipment.DeviceSerialNumber = provenance.version
        equipment.SoftwareVersions = provenance.software_versions
    item.DeviceUID = provenance.device_uid
    item.ContributionDateTime = provenance.clock.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = contribution
    target.ContributingEquipmentSequence = Sequence([item])


def new_object(sop_class: str, role: str, fixed: Stack, provenance: Provenance) -> FileDataset:
    """Begin an object in the fixed image's patient and study: file meta, SOP Common, patient, study.

    Args:
        sop_class: SOP Class UID.
        role: for the SOP Instance UID, ``Provenance.uid``.
        fixed: whose patient and study it joins.
        provenance: of the run.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, provenance.uid(role)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION_CLASS_UID, "PANREG"
    target = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    target.SOPClassUID, target.SOPInstanceUID = sop_class, provenance.uid(role)
    copy_patient_and_study(target, fixed.header)
    for prefix in ("InstanceCreation", "Content", "Series"):
        setattr(target, f"{prefix}Date", provenance.clock.strftime("%Y%m%d"))
        setattr(target, f"{prefix}Time", provenance.clock.strftime("%H%M%S"))
    return target


def save(target: Dataset, path: Path) -> None:
    """Write a complete file; text that its character set can't hold turns the whole object to UTF-8.

    Raises:
        ValueError: a value that the standard forbids.
    """
    with strict():
        try:
            target.save_as(path, enforce_file_format=True)
        except UnicodeEncodeError:
            target.SpecificCharacterSet = "ISO_IR 192"
            target.save_as(path, enforce_file_format=True)
