"""Elements of data sets: copied as the standard allows them, checked, and written strictly."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from panreg.dicom.attributes import pydicom_silenced
from pydicom import DataElement, Dataset, config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VM
from pydicom.valuerep import format_number_as_ds

__all__ = [
    *("ACQUISITION_TYPE_2", "PATIENT_STUDY_OPTIONAL", "PATIENT_STUDY_TYPE_2", "breaks_the_standard", "copy_elements"),
    *("decimal", "invalid", "is_character_set", "is_code", "is_timezone", "is_uid", "strict"),
]

# Type 2: results have these attributes, empty where the source has none
PATIENT_STUDY_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
# written where the fixed image has them
PATIENT_STUDY_OPTIONAL = (
    *("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "TypeOfPatientID"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("LongitudinalTemporalInformationModified", "PatientAge", "PatientSize", "PatientWeight", "PregnancyStatus"),
    *("StudyDescription", "IssuerOfAccessionNumberSequence", "TimezoneOffsetFromUTC"),
)
ACQUISITION_TYPE_2 = {
    "MR": ("AcquisitionNumber", "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
    "CT": ("AcquisitionNumber", "KVP"),
}


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


def decimal(value: float) -> str:
    """Write a number as a Decimal String, 16 characters at most."""
    return str(format_number_as_ds(float(value)))


@pydicom_silenced()
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


@pydicom_silenced()
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


def invalid(elements: Iterable[DataElement]) -> Iterator[str]:
    """Yield keywords of elements, also in sequences, whose values, or the number of them, the standard forbids.

    pydicom checks most values when they are set, not when they are written, and these may have been set leniently.
    """
    for element in elements:
        if element.VR == "SQ":
            yield from invalid(e for item in element.value for e in item)
            continue
        if not (_has_allowed_count(element) and _is_possible(element)):
            yield element.keyword
            continue
        if element.VR == "UI" and all(map(is_uid, [element.value] if element.VM == 1 else element.value or ["0"])):
            continue
        try:
            with strict():
                DataElement(element.tag, element.VR, _checkable(element))
        except (ValueError, OverflowError, TypeError):
            yield element.keyword or str(element.tag)


def _has_allowed_count(element: DataElement) -> bool:
    """Tell whether an element has none or as many values as its Value Multiplicity allows (1, 1-n, 3-3n)."""
    match = re.fullmatch(r"(\d+)(?:-(\d*)(n?))?", _multiplicity(element))
    count = int(element.VM)
    if match is None or not count:
        return True
    low, factor, unbounded = int(match[1]), match[2], match[3]
    if unbounded:
        return count >= low and count % int(factor or 1) == 0
    return low <= count <= int(factor or low)


def _multiplicity(element: DataElement) -> str:
    """Look an element's Value Multiplicity up; empty for private elements, which say it nowhere."""
    return dictionary_VM(element.tag) if dictionary_has_tag(element.tag) else ""


def _is_possible(element: DataElement) -> bool:
    """Tell whether a value is one that exists, where more than its VR says so."""
    offset = element.value if element.keyword == "TimezoneOffsetFromUTC" else None
    return not offset or is_timezone(str(offset).strip())


def _checkable(element: DataElement) -> Any:
    """Take the value as pydicom checks it: names that it has read pass whatever they hold, unless they are texts."""
    if element.VR != "PN" or not element.value:
        return element.value
    return str(element.value) if element.VM == 1 else [str(name) for name in element.value]


def is_timezone(value: str) -> bool:
    """Tell whether a text is an offset from UTC that a place on earth may have: from -1200 to +1400, and not -0000."""
    match = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", value)
    minutes = 60 * int(match[2]) + int(match[3]) if match else -1
    return match is not None and (0 < minutes <= 720 if match[1] == "-" else minutes <= 840)


def is_character_set(value: str) -> bool:
    """Tell whether a Specific Character Set, several joined by backslashes, is spelt as the standard does, or empty."""
    return all(part in python_encoding for part in value.split("\\"))


def is_code(value: str) -> bool:
    """Tell whether a text is a Code String (CS): 1 to 16 capital letters, digits, blanks and underscores."""
    return re.fullmatch("[A-Z0-9_ ]{1,16}", value) is not None


def is_uid(value: str) -> bool:
    """Tell whether a text has a UID's characters and length.

    Components with leading zeros pass, though the standard forbids them: archives publish such UIDs, a reference has to
    repeat them, and whether it may was decided when the pair was chosen (``pair.invalid_uids``).
    """
    return len(value) <= 64 and re.fullmatch(r"\d+(\.\d+)*", value) is not None
