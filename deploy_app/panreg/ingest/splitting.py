"""What must be equal in a stack: series are split by it, and a multi-frame image that mixes it is refused."""

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from panreg.dicom.attributes import numbers, text
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import holder_of
from panreg.failures import Code, Failure
from panreg.ingest.placement import GEOMETRY, plane
from panreg.ingest.stack import Matrix

__all__ = ["check_uniform", "image_type", "split"]

EXACT = ("Rows", "Columns", "EchoNumbers", "TemporalPositionIdentifier", "TemporalPositionIndex", "StackID")
CONTRAST = (("EchoTime", 1, 0.01), ("EffectiveEchoTime", 1, 0.01), ("DiffusionBValue", 1, 0.1))


def split(frames: list[Frame]) -> list[list[Frame]]:
    """Split a series's images of one frame each by what must be equal in a stack.

    Images without geometry stay with the largest part, which is then refused: alone, they would only leave a shorter
    stack behind.
    """
    groups: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[_exact(frame)].append(frame)
    return [part for group in groups.values() for part in _cut_group(group)]


def check_uniform(frames: list[Frame]) -> None:
    """Refuse the frames of one multi-frame image that are of several stacks, phases or contrasts.

    Raises:
        Failure: E_MIXED_FRAMES, naming the attributes that differ.
    """
    exact = [keyword for keyword in EXACT if len({text(holder_of(frame, keyword), keyword) for frame in frames}) > 1]
    cut = [keyword for keyword, count, most in CONTRAST if len(_cut(frames, keyword, count, most)) > 1]
    kinds = {_kind(frame) for frame in frames}
    differing = [*exact, *cut, *(["FrameType"] if len(kinds) > 1 else [])]
    if differing:
        message = f"its frames differ in {', '.join(differing)}; send each stack, phase and contrast as its own image."
        raise Failure(Code.E_MIXED_FRAMES, message)


def _cut_group(frames: list[Frame]) -> list[list[Frame]]:
    """Cut by frame of reference, geometry and contrast, these within tolerances.

    Frames without geometry go to the largest part.
    """
    placed: dict[str | None, list[Frame]] = defaultdict(list)
    lacking: list[Frame] = []
    for frame in frames:
        (lacking if plane(frame) is None else placed[text(frame.header, "FrameOfReferenceUID")]).append(frame)
    parts = [*placed.values()] or [[]]
    for keyword, count, tolerance in (*GEOMETRY, *CONTRAST):
        parts = [piece for part in parts for piece in _cut(part, keyword, count, tolerance)]
    max(parts, key=len).extend(lacking)
    return parts


def _cut(frames: list[Frame], keyword: str, count: int, tolerance: float) -> list[list[Frame]]:
    """Cut where the sorted values of any component have a gap above the tolerance.

    Rounded values as keys would part 0.9925 ± 1e-8. Contrast that is absent, as the b-value of some vendors' b0 images,
    differs from every value.
    """
    values = [numbers(holder_of(frame, keyword), keyword, count) or (-1.0,) * count for frame in frames]
    parts = [np.arange(len(frames))]
    for column in np.array(values).reshape(-1, count).T:
        parts = [piece for part in parts for piece in _cut_sorted(part[np.argsort(column[part])], column, tolerance)]
    return [[frames[n] for n in sorted(part)] for part in parts]


def _cut_sorted(part: npt.NDArray[np.intp], column: Matrix, tolerance: float) -> list[npt.NDArray[np.intp]]:
    return np.split(part, np.flatnonzero(np.diff(column[part]) > tolerance) + 1)


def _exact(frame: Frame) -> tuple[str | None, ...]:
    """Read what must be the same text in a stack: the attributes ``EXACT``, and what kind of image it is."""
    return (*(text(holder_of(frame, keyword), keyword) for keyword in EXACT), *_kind(frame))


def _kind(frame: Frame) -> tuple[str, ...]:
    """Read values 3 and 4 of Frame Type, or where there is none of Image Type, in capitals."""
    kind = text(holder_of(frame, "FrameType"), "FrameType") if frame.number is not None else None
    return tuple(kind.upper().split("\\") if kind else image_type(frame.header))[2:4]


def image_type(header: Any) -> list[str]:
    """Read the values of Image Type, in capitals."""
    return (text(header, "ImageType") or "").upper().split("\\")
