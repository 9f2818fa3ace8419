"""Whether an image is what the weights were trained on; a departure is flagged, not refused."""

from collections.abc import Mapping
from typing import Any

from panreg.dicom.attributes import numbers
from panreg.dicom.functional_groups import agent_given, body_part_of, echo_time_of, holder_of, sequence_of
from panreg.ingest.stack import Stack

__all__ = ["contrast_of", "departures"]


def departures(stack: Stack, role: str, intended: Mapping[str, Any]) -> tuple[str, ...]:
    """List how a stack departs from the images that the weights are meant for.

    Contrasts are recognised by the sequence's times. T1: a short echo, and either a gradient echo, an inversion pulse
    or a short repetition. FLAIR: an inversion pulse, a long echo and a long repetition.

    Args:
        stack: fixed or moving.
        role: what sentences call it.
        intended: ``intended_input`` of the weights' description: modality, body_parts, contrasts.

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
    contrasts = intended.get("contrasts", [])
    if contrasts and stack.modality == "MR" and contrast_of(stack) not in contrasts:
        found.append(
            f"The contrast of the {role} series does not look like {' or '.join(contrasts)}, as the weights want it."
        )
    if agent_given(frame):
        found.append(f"The {role} series was taken with a contrast agent, which the weights have not seen.")
    return tuple(found)


def contrast_of(stack: Stack) -> str | None:
    """Tell T1 and FLAIR by the header; None for another, or where it does not tell."""
    frame = stack.frames[len(stack.frames) // 2]
    echo, sequence = echo_time_of(frame), sequence_of(frame)
    repetition = numbers(holder_of(frame, "RepetitionTime"), "RepetitionTime", 1)
    if echo is None:
        return None
    if echo <= 30:
        short_repetition = repetition is not None and repetition[0] <= 1000
        return "T1" if "GR" in sequence or "IR" in sequence or short_repetition else None
    long_repetition = repetition is not None and repetition[0] >= 4000
    return "FLAIR" if echo >= 60 and long_repetition and "IR" in sequence else None
