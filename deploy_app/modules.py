"""DICOM modules that all our objects share, and how an object is saved: strictly, or not at all."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path

from attributes import discreet
from failures import Code, Failure
from provenance import IMPLEMENTATION_CLASS_UID, MANUFACTURER, MODEL_NAME, Provenance
from pydicom import DataElement, Dataset, FileDataset, config
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, format_number_as_ds
from stack import Frame, Stack

__all__ = [
    *(
        "PATIENT_STUDY_TYPE_2",
        "breaks_the_standard",
        "code",
        "copy_elements",
        "copy_patient_and_study",
        "decimal",
        "describe_equipment",
        "describe_series",
    ),
    *("frame_references", "invalid", "is_uid", "local_time", "new_object", "reference", "save", "timezone_of"),
]

LONG_STRING = 64
"""Characters of the longest Long String (LO)."""
UTF_8 = "ISO_IR 192"

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
    """Write a Series Description: a title, and the description of the series that the object is made from.

    Where no character set is declared, one is, if the description needs it: it may be another scanner's.
    """
    description = stack.header.get("SeriesDescription") or ""
    words = [description] if isinstance(description, str) else map(str, description)
    target.SeriesDescription = f"{title}: {' '.join(words)}"[:LONG_STRING].rstrip(" :")
    if not target.SeriesDescription.isascii() and not target.get("SpecificCharacterSet"):
        target.SpecificCharacterSet = UTF_8


def decimal(value: float) -> str:
    """Write a number as a Decimal String, 16 characters at most."""
    return str(format_number_as_ds(float(value)))


@discreet()
def copy_elements(target: Dataset, source: Dataset, keywords: Iterable[str], empty: bool = False) -> None:
    """Copy decoded elements that the source has, as copies: a change of the target leaves the source alone.

    Args:
        target: gets the elements.
        source: has them.
        keywords: which.
        empty: they must be there (Type 2): written without a value where the source has none, or one that breaks the
            standard. The others are then left out.
    """
    for keyword in keywords:
        element = _conforming(source, keyword)
        if element is not None:
            target[keyword] = element
        elif empty:
            setattr(target, keyword, None)


def _conforming(source: Dataset, keyword: str) -> DataElement | None:
    """Copy an element, its decimals shortened; None if it is absent or its value breaks the standard."""
    if keyword not in source:
        return None
    element = deepcopy(source[keyword])  # decoded: a raw element would keep bytes of another character set
    _shorten_decimals(element)
    return None if list(invalid([element])) else element


@discreet()
def breaks_the_standard(source: Dataset, keyword: str) -> bool:
    """Tell whether an attribute is there with a value that no result may repeat."""
    try:
        return keyword in source and _conforming(source, keyword) is None
    except Exception:  # pydicom raises whatever its converters meet in damaged bytes
        return True


def _shorten_decimals(element: DataElement) -> None:
    """Round decimals of more than 16 characters, which many devices write and no one may."""
    if element.VR == "DS" and element.value is not None:
        many = element.VM > 1
        texts = [str(v) for v in (element.value if many else [element.value])]
        if any(len(text) > 16 for text in texts):
            short = [text if len(text) <= 16 else decimal(float(text)) for text in texts]
            element.value = short if many else short[0]


def copy_patient_and_study(target: Dataset, fixed: Dataset) -> None:
    """Say that an object belongs to the fixed image's patient and study, in its character set."""
    copy_elements(target, fixed, ["SpecificCharacterSet"])
    copy_elements(target, fixed, ["StudyInstanceUID", *PATIENT_STUDY_TYPE_2], empty=True)
    copy_elements(target, fixed, PATIENT_STUDY_OPTIONAL)


def timezone_of(header: Dataset) -> timezone | None:
    """Read Timezone Offset From UTC, in which a header's dates and times are meant; None if it says nothing."""
    match = re.fullmatch(r"([+-])(\d\d)(\d\d)", str(header.get("TimezoneOffsetFromUTC") or "").strip())
    if not match:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)


def local_time(target: Dataset, clock: datetime) -> datetime:
    """Tell the time as the target's dates and times are meant: in its Timezone Offset From UTC if it has one."""
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


def invalid(elements: Iterable[DataElement]) -> Iterator[str]:
    """Yield keywords of elements, also in sequences, whose values the standard forbids.

    pydicom checks most values when they are set, not when they are written, and these may have been set leniently.
    """
    for element in elements:
        if element.VR == "SQ":
            yield from invalid(e for item in element.value for e in item)
            continue
        if element.VR == "UI" and all(map(is_uid, [element.value] if element.VM == 1 else element.value or ["0"])):
            continue
        try:
            with strict():
                DataElement(element.tag, element.VR, element.value)
        except (ValueError, OverflowError, TypeError):
            yield element.keyword or str(element.tag)


def is_uid(value: str) -> bool:
    """Tell whether a text has a UID's characters and length.

    Components with leading zeros pass, though the standard forbids them: archives publish such UIDs, a reference has to
    repeat them, and whether it may was decided when the pair was chosen (``pair.invalid_uids``).
    """
    return len(value) <= 64 and re.fullmatch(r"\d+(\.\d+)*", value) is not None


def _encodes(text: str, encodings: list[str]) -> bool:
    """Tell whether bytes in a character set bring a text back."""
    try:
        with strict():
            parts = [part for part in re.split("[\\^=]", text) if part]  # what a person's name encodes one by one
            return all(decode_bytes(encode_string(part, encodings), encodings, set()) == part for part in parts)
    except UnicodeError:
        return False


def _texts(elements: Iterable[DataElement]) -> Iterator[str]:
    """Yield all texts, also in sequences, that a character set applies to."""
    for element in elements:
        if element.VR == "SQ":
            yield from _texts(e for item in element.value for e in item)
        elif element.VR in CUSTOMIZABLE_CHARSET_VR and element.value is not None:
            yield from map(str, element.value if element.VM > 1 else [element.value])


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
    # an empty first value means ASCII, but pydicom would write Latin-1 there, which no one could tell
    undeclared = re.compile("[\x80-\xff]" if len(encodings) > 1 and encodings[0] == "iso8859" else "(?!)")
    if any(undeclared.search(text) or not _encodes(text, encodings) for text in _texts(target)):
        target.SpecificCharacterSet = UTF_8
    with strict():
        target.save_as(path, enforce_file_format=True)
