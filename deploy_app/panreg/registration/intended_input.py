"""Whether an image is what the weights were trained on; a departure is flagged, not refused."""

from collections.abc import Mapping
from typing import Any

from panreg.dicom.attributes import numbers
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import agent_given, body_part_of, echo_time_of, holder_of, sequence_of
from panreg.ingest.stack import Stack

__all__ = ["departures"]


def departures(stack: Stack, role: str, intended: Mapping[str, Any]) -> tuple[str, ...]:
    """List how a stack departs from the images that the weights are meant for.

    T1 weighting is recognised by the sequence's times: a short echo, and either a gradient echo, an inversion pulse or
    a short repetition.

    Args:
        stack: fixed or moving.
        role: what sentences call it.
        intended: ``intended_input`` of the weights' description: modality, body_parts, contrast.

    Returns:
        Sentences without patient data.
    """
    frame, found = stack.frames[len(stack.frames) // 2], []
    modality = intended.get("modality")
    if modality and stack.modality != modality:
        found.append(f"The {role} series is no {modality}, which the weights were trained on.")
    body_part = body_part_of(frame)
    body_parts = intended.get("body_parts", [])
    if body_parts and body_part not in body_parts:
        known = "does not say which body part it shows" if not body_part else "shows another body part"
        found.append(
            f"The {role} series {known}; the weights were trained on {' or '.join(body_parts).lower()} images."
        )
    if intended.get("contrast") == "T1" and stack.modality == "MR" and not _is_t1_weighted(frame):
        found.append(f"The {role} series does not look T1-weighted, which the weights were trained on.")
    if agent_given(frame):
        found.append(f"The {role} series was taken with a contrast agent, which the weights have not seen.")
    return tuple(found)


def _is_t1_weighted(frame: Frame) -> bool:
    echo, sequence = echo_time_of(frame), sequence_of(frame)
    repetition = numbers(holder_of(frame, "RepetitionTime"), "RepetitionTime", 1)
    if echo is None:
        return False
    short_repetition = repetition is not None and repetition[0] <= 1000
    return echo <= 30 and ("GR" in sequence or "IR" in sequence or short_repetition)
