"""Check the pair's headers for what breaks the standard and would stop the results, before any work is done.

Results repeat UIDs of both images, as references, and the fixed image's patient and study. A UID can't be left empty
and can't be corrected (the reference would point to nothing): the pair is refused, or the settings say to keep it. Nor
can results do without the patient. What else may be empty (Type 2), as dates of ``***``, is written empty, with a
warning, and what may be absent is left out, likewise.
"""

import re

from panreg.dicom.attributes import integer, pydicom_silenced, text
from panreg.dicom.elements import (
    ACQUISITION_TYPE_2,
    PATIENT_STUDY_OPTIONAL,
    PATIENT_STUDY_TYPE_2,
    breaks_the_standard,
    is_character_set,
    is_uid,
)
from panreg.dicom.functional_groups import holder_of
from panreg.dicom.times import TIMES, acquisition_times
from panreg.failures import Code, Failure
from panreg.ingest.stack import Stack

__all__ = ["check_conformity"]

PATIENT = ("PatientID", "PatientName")
LOST = "\ufffd"  # what stands for bytes that a character set doesn't have
READ_BY_PEOPLE = (*PATIENT_STUDY_TYPE_2, "StudyDescription", "SeriesDescription")
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
VALID_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")


@pydicom_silenced()
def check_conformity(fixed: Stack, moving: Stack, invalid_uids: str) -> tuple[str, ...]:
    """Refuse patients and UIDs that break the standard, or warn of these; warn of values left empty, or garbled.

    Args:
        fixed: whose patient and study the results join.
        moving: which the results refer to.
        invalid_uids: refuse, or keep those whose only fault is a component with leading zeros.

    Returns:
        Warnings that name role, series and attribute.

    Raises:
        Failure: E_OUTPUT: the results would break the standard.
    """
    _check_identity(fixed)
    lost = {"fixed": _broken_patient_and_study(fixed), "moving": _broken_acquisition(moving)}
    warnings = []
    for role, stack in (("fixed", fixed), ("moving", moving)):
        name = f"The {role} series ({_name(stack)})"
        warnings += _kept_uids(name, stack, invalid_uids)
        faults = {
            "values that break the standard and are left empty in the results, or out": lost[role],
            "times that can't be told in the fixed series' time zone and are left out of the results": (
                [keyword for keyword in _untold(moving, fixed) if keyword not in lost[role]] if role == "moving" else []
            ),
            "a character set that the standard does not know": _unknown_character_set(stack),
            "text of another character set than it declares, part of which can't be read": [
                keyword for keyword in READ_BY_PEOPLE if LOST in (text(stack.header, keyword) or "")
            ],
        }
        warnings += [f"{name} has {fault}: {', '.join(names)}." for fault, names in faults.items() if names]
        if stack.has_burned_in_text:
            shown = "registered series, montage and report.html may show it, and whom it names"
            warnings.append(f"{name} has text burned into its pixels (Burned In Annotation): {shown}.")
    return tuple(warnings)


def _broken_patient_and_study(fixed: Stack) -> list[str]:
    """List what the results would repeat of the fixed image, and can't."""
    keywords = (*PATIENT_STUDY_TYPE_2, *PATIENT_STUDY_OPTIONAL)
    return [keyword for keyword in keywords if breaks_the_standard(fixed.header, keyword)]


def _broken_acquisition(moving: Stack) -> list[str]:
    """List what the registered series would repeat of the moving image, and can't."""
    keywords = *ACQUISITION_TYPE_2.get(text(moving.header, "Modality") or "", ()), *TIMES, "TimezoneOffsetFromUTC"
    return [keyword for keyword in keywords if breaks_the_standard(holder_of(moving.frames[0], keyword), keyword)]


def _untold(moving: Stack, fixed: Stack) -> list[str]:
    """List the times of the acquisition that the fixed image's time zone can't tell."""
    first = moving.frames[0]
    told = acquisition_times(first, fixed.header)
    return [keyword for keyword in TIMES if text(holder_of(first, keyword), keyword) and keyword not in told]


def _unknown_character_set(stack: Stack) -> list[str]:
    known = is_character_set(text(stack.header, "SpecificCharacterSet") or "")
    return [] if known else ["SpecificCharacterSet"]


def _kept_uids(name: str, stack: Stack, invalid_uids: str) -> list[str]:
    """Warn of the UIDs that are kept though they break the standard.

    Raises:
        Failure: E_OUTPUT, of one that can't be.
    """
    warnings = []
    for keyword in UIDS:
        worst = max((_fault(text(header, keyword) or "") for header in stack.instances()), default=0)
        if worst == 2 or (worst == 1 and invalid_uids == "refuse"):
            raise Failure(Code.E_OUTPUT, f"{name} has an invalid {keyword} {_remedy(worst)}")
        if worst:
            warnings.append(f"{name} has an invalid {keyword} (leading zeros), which the results repeat as it is.")
    return warnings


def _check_identity(fixed: Stack) -> None:
    """Refuse a patient whom the results could not name: without ID or name they would be nobody's.

    Raises:
        Failure: E_OUTPUT.
    """
    if wrong := [keyword for keyword in PATIENT if breaks_the_standard(fixed.header, keyword)]:
        message = (
            f"The fixed series ({_name(fixed)}) has a {' and a '.join(wrong)} that breaks the standard (its length, "
            "its characters or a backslash), which the results would have to repeat: correct the source."
        )
        raise Failure(Code.E_OUTPUT, message)


def _fault(uid: str) -> int:
    """Grade a UID: 0 valid, 1 components with leading zeros, 2 anything else."""
    if not is_uid(uid):
        return 2
    return 0 if VALID_UID.fullmatch(uid) else 1


def _remedy(fault: int) -> str:
    if fault == 1:
        return (
            "(a component with leading zeros), which the results would have to repeat: correct the UIDs of the whole "
            "study, or let PANREG_INVALID_UIDS=keep repeat them as they are."
        )
    return "(characters or a length that no UID has), which the results would have to repeat: correct the source."


def _name(stack: Stack) -> str:
    number = integer(stack.header, "SeriesNumber")
    return "without a number" if number is None else f"number {number}"
