"""What messages call stacks, and how they say to choose: by nothing that identifies a patient."""

from collections.abc import Sequence

from panreg.dicom.attributes import integer, text
from panreg.ingest.stack import AnyStack

__all__ = ["HOW_TO_CHOOSE", "LISTED", "describe", "listed", "modality_of"]

LISTED = 20  # stacks that a message names
HOW_TO_CHOOSE = (
    "name them by PANREG_FIXED_SERIES_UID and PANREG_MOVING_SERIES_UID, by folders fixed/ and moving/, or by rules in "
    "app.yaml"
)


def describe(stack: AnyStack) -> str:
    """Tell a person which stack is meant, by nothing that identifies a patient."""
    number, (slices, _, _) = integer(stack.header, "SeriesNumber"), stack.shape
    return f"series {'without number' if number is None else number}, {modality_of(stack)}, {slices} slices"


def listed(stacks: Sequence[AnyStack]) -> str:
    """Describe several stacks, in an order that does not depend on theirs."""
    names = sorted(map(describe, stacks))
    return "; ".join(names[:LISTED]) + ("; …" if len(names) > LISTED else "")


def modality_of(stack: AnyStack) -> str:
    """Name the modality, if it is one of ours: the attribute itself may hold any text."""
    modality = text(stack.header, "Modality")
    return modality if modality in ("CT", "MR") else "other"
