"""DICOM modules that all our objects share, and how an object is saved: strictly, or not at all."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from panreg.dicom.attributes import pydicom_silenced, text
from panreg.dicom.elements import (
    PATIENT_STUDY_OPTIONAL,
    PATIENT_STUDY_TYPE_2,
    copy_elements,
    invalid,
    is_character_set,
    is_code,
    strict,
)
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import body_part_of, laterality_of
from panreg.dicom.times import timezone_of
from panreg.failures import Code, Failure
from panreg.ingest.stack import Stack
from panreg.objects.provenance import IMPLEMENTATION_CLASS_UID, MANUFACTURER, MODEL_NAME, Provenance
from pydicom import DataElement, Dataset, FileDataset
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, encode_string
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

__all__ = [
    *("burned_in_annotation", "code", "copy_patient_and_study", "describe_body_part", "describe_equipment"),
    *("describe_series", "frame_references", "local_time", "long_string", "new_object", "reference", "save"),
]

LONG_STRING = 64
"""Characters of the longest Long String (LO)."""
UTF_8 = "ISO_IR 192"
UNPAIRED = frozenset(
    (
        "ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS "
        "CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD "
        "HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH NECK "
        "NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE RECTUM SKULL SPINE "
        "SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA "
        "VULVA WHOLEBODY"
    ).split()
)
"""Defined terms of Body Part Examined (PS3.16, annex L) for what there is once."""

COPIED = frozenset((*PATIENT_STUDY_TYPE_2, *PATIENT_STUDY_OPTIONAL))


def long_string(value: str) -> str:
    """Make a Long String (LO) of a text: without control characters and backslashes, and cut at 64 characters."""
    return re.sub(r"[\x00-\x1f\x7f\\]+", " ", value).strip()[:LONG_STRING].rstrip()


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


def frame_references(frames: Iterable[Frame]) -> list[Dataset]:
    """Build one reference to each instance of some frames, with frame numbers where it has others, too."""
    instances: dict[str, list[Frame]] = {}
    for frame in frames:
        instances.setdefault(frame.sop_instance_uid, []).append(frame)
    items = []
    for together in instances.values():
        header, numbers = together[0].header, [frame.number for frame in together if frame.number is not None]
        items.append(reference(header))
        if numbers and len(numbers) < int(header.NumberOfFrames):
            items[-1].ReferencedFrameNumber = numbers if len(numbers) > 1 else numbers[0]
    return items


def describe_series(target: Dataset, title: str, stack: Stack) -> None:
    """Write a Series Description: a title, and the description of the series that the object is made from."""
    description = stack.header.get("SeriesDescription") or ""
    words = [description] if isinstance(description, str) else map(str, description)
    target.SeriesDescription = f"{title}: {' '.join(words)}"[:LONG_STRING].rstrip(" :")


def describe_body_part(target: Dataset, source: Frame) -> None:
    """Write Body Part Examined where a frame's headers have it, and Laterality (Type 2C of General Series).

    Laterality is written, perhaps empty, unless the body part is known to be there once: the standard then forbids it,
    and an empty one would say that a side is missing.
    """
    part, side = body_part_of(source), laterality_of(source)
    if is_code(part):
        target.BodyPartExamined = part
    if part not in UNPAIRED:
        target.Laterality = side or None


def burned_in_annotation(*stacks: Stack) -> str:
    """Say whether pixels made of some stacks may show text: YES if any of their images says so."""
    return "YES" if any(stack.has_burned_in_text for stack in stacks) else "NO"


def copy_patient_and_study(target: Dataset, fixed: Dataset) -> None:
    """Say that an object belongs to the fixed image's patient and study, in its character set."""
    _declare_character_set(target, fixed)
    copy_elements(target, fixed, ["StudyInstanceUID", *PATIENT_STUDY_TYPE_2], empty=True)
    copy_elements(target, fixed, PATIENT_STUDY_OPTIONAL)


@pydicom_silenced()
def _declare_character_set(target: Dataset, fixed: Dataset) -> None:
    """Declare the fixed image's character set.

    One that is misspelt, but was understood, becomes UTF-8, which every reader understands. What nobody understands
    declares nothing, and neither do the results.
    """
    if is_character_set(text(fixed, "SpecificCharacterSet") or ""):
        copy_elements(target, fixed, ["SpecificCharacterSet"])
    elif set(convert_encodings(fixed.SpecificCharacterSet)) != {default_encoding}:
        target.SpecificCharacterSet = UTF_8


def local_time(target: Dataset, clock: datetime) -> datetime:
    """Convert the time to the target's Timezone Offset From UTC, if it has one."""
    zone = timezone_of(target)
    return clock.astimezone(zone) if zone else clock


def describe_equipment(target: Dataset, provenance: Provenance, contribution: str) -> None:
    """Write General and Enhanced General Equipment, and the Contributing Equipment item with the device's UID."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([code("109102", "DCM", "Processing Equipment")])
    for equipment in (target, item):
        equipment.Manufacturer, equipment.ManufacturerModelName = MANUFACTURER, MODEL_NAME
        equipment.DeviceSerialNumber = provenance.version
        equipment.SoftwareVersions = provenance.software_versions
    item.DeviceUID = provenance.device_uid
    item.ContributionDateTime = local_time(target, provenance.clock).strftime("%Y%m%d%H%M%S")
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
    now = local_time(target, provenance.clock)
    for prefix in ("InstanceCreation", "Content", "Series"):
        setattr(target, f"{prefix}Date", now.strftime("%Y%m%d"))
        setattr(target, f"{prefix}Time", now.strftime("%H%M%S"))
    return target


def _encodes(text: str, encodings: list[str]) -> bool:
    """Tell whether bytes in a character set bring a text back."""
    try:
        with strict():
            parts = [part for part in re.split("[\\^=]", text) if part]  # what a person's name encodes one by one
            return all(decode_bytes(encode_string(part, encodings), encodings, set()) == part for part in parts)
    except ValueError:  # a UnicodeError, or an escape sequence that no character set knows
        return False


def _texts(elements: Iterable[DataElement]) -> Iterator[str]:
    """Yield all texts, also in sequences, that a character set applies to."""
    for element in elements:
        if element.VR == "SQ":
            yield from _texts(e for item in element.value for e in item)
        elif element.VR in CUSTOMIZABLE_CHARSET_VR and element.value is not None:
            yield from map(str, element.value if element.VM > 1 else [element.value])


def _is_undeclared(target: Dataset, encodings: list[str]) -> bool:
    """Tell whether an object in plain ASCII, as its character set says, has letters that are none.

    An empty first value, or none, means ASCII, but pydicom would write Latin-1 there, which no one could tell. What was
    copied from an image that declares nothing keeps its bytes, as long as nothing else in the object needs a set.
    """
    if encodings[0] != "iso8859":
        return False
    copied = COPIED if len(encodings) == 1 else frozenset()
    own = (element for element in target if element.keyword not in copied)
    return any(re.search("[\x80-\xff]", text) for text in _texts(own))


def save(target: Dataset, path: Path) -> None:
    """Write a complete file, or refuse; text that its character set can't hold turns the whole object to UTF-8.

    Raises:
        Failure: an attribute, which is named, has a value that the standard forbids.
    """
    if wrong := list(invalid(target)):
        names = ", ".join(dict.fromkeys(wrong))
        raise Failure(
            Code.E_OUTPUT, f"{names}: the value breaks the DICOM standard, so nothing is written; repair the input."
        )
    encodings = convert_encodings(target.get("SpecificCharacterSet"))
    if _is_undeclared(target, encodings) or not all(_encodes(text, encodings) for text in _texts(target)):
        target.SpecificCharacterSet = UTF_8
    with strict():
        target.save_as(path, enforce_file_format=True)
