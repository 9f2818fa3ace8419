"""Check the pair's headers for what breaks the standard and would stop the results, before any work is done.

Results repeat UIDs of both images, as references, and the fixed image's patient and study. A UID can't be left empty
and can't be corrected (the reference would point to nothing): the pair is refused, or the settings say to keep it. What
may be empty (Type 2), as dates of ``***``, is written empty, with a warning.
"""

import re

from panreg.dicom.attributes import integer, pydicom_silenced, text
from panreg.dicom.elements import ACQUISITION_TYPE_2, PATIENT_STUDY_TYPE_2, breaks_the_standard, is_uid
from panreg.dicom.functional_groups import holder_of
from panreg.failures import Code, Failure
from panreg.ingest.stack import Stack

__all__ = ["check_conformity"]

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
VALID_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")


@pydicom_silenced()
def check_conformity(fixed: Stack, moving: Stack, invalid_uids: str) -> tuple[str, ...]:
    """Refuse UIDs that break the standard, or warn of them; warn of values that are left empty.

    Args:
        fixed: whose patient and study the results join.
        moving: which the results refer to.
        invalid_uids: refuse, or keep those whose only fault is a component with leading zeros.

    Returns:
        Warnings that name role, series and attribute.

    Raises:
        Failure: E_OUTPUT: the results would break the standard.
    """
    warnings = []
    for role, stack in (("fixed", fixed), ("moving", moving)):
        name = f"The {role} series ({_name(stack)})"
        for keyword in UIDS:
            worst = max((_fault(text(header, keyword) or "") for header in stack.instances()), default=0)
            if worst == 2 or (worst == 1 and invalid_uids == "refuse"):
                raise Failure(Code.E_OUTPUT, f"{name} has an invalid {keyword} {_remedy(worst)}")
            if worst:
                warnings.append(f"{name} has an invalid {keyword} (leading zeros), which the results repeat as it is.")
    copied = {
        "fixed": [keyword for keyword in PATIENT_STUDY_TYPE_2 if breaks_the_standard(fixed.header, keyword)],
        "moving": [
            keyword
            for keyword in ACQUISITION_TYPE_2.get(text(moving.header, "Modality") or "", ())
            if breaks_the_standard(holder_of(moving.frames[0], keyword), keyword)
        ],
    }
    for (role, stack), invalid in zip((("fixed", fixed), ("moving", moving)), copied.values()):
        if invalid:
            warnings.append(
                f"The {role} series ({_name(stack)}) has values that break the standard and are left empty in the "
                f"results: {', '.join(invalid)}."
            )
    return tuple(warnings)


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
