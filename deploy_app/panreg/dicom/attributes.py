"""Attributes of a frame as plain values: what is absent, empty or malformed is None, and never an exception."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from panreg.dicom.frame import Frame
from pydicom import Dataset, config

__all__ = ["integer", "macro", "numbers", "pydicom_silenced", "series_name", "text"]


@contextmanager
def pydicom_silenced() -> Iterator[None]:
    """Keep values out of warnings and logs: pydicom quotes whatever is malformed there, a patient's name too."""
    logger, settings = logging.getLogger("pydicom"), config.settings
    was_disabled, mode = logger.disabled, settings.reading_validation_mode
    logger.disabled, settings.reading_validation_mode = True, config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled, settings.reading_validation_mode = was_disabled, mode


def macro(frame: Frame, sequence: str) -> Dataset:
    """Find the data set that holds the attributes of a functional group macro.

    Args:
        frame: whose attributes are asked for.
        sequence: the macro, such as ``PlanePositionSequence``.

    Returns:
        For a single-frame instance its header, where the same attributes lie; for a frame of a multi-frame instance the
        macro's item, per frame or else shared; an empty data set where there is none.
    """
    if frame.number is None:
        return frame.header
    try:
        per_frame = frame.header.get("PerFrameFunctionalGroupsSequence") or []
        groups = [*per_frame[frame.number - 1 : frame.number]]
        groups += frame.header.get("SharedFunctionalGroupsSequence") or []
        return next((group[sequence].value[0] for group in groups if group.get(sequence)), Dataset())
    except Exception:  # pydicom raises whatever its converters meet in damaged bytes
        return Dataset()


def numbers(header: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """Read an attribute of ``count`` finite numbers, or of any number of them."""
    try:
        values = np.atleast_1d(np.asarray(header[keyword].value, dtype=np.float64))
    except Exception:  # as above; also KeyError: absent
        return None
    expected = (values.size if count is None else count,)
    return tuple(map(float, values)) if values.shape == expected and np.isfinite(values).all() else None


def integer(header: Dataset, keyword: str) -> int | None:
    """Read an attribute of one whole number."""
    value = numbers(header, keyword, 1)
    return int(value[0]) if value is not None and value[0].is_integer() else None


def text(header: Dataset, keyword: str) -> str | None:
    """Read an attribute's text without the padding around it; several values stay joined by backslashes."""
    try:
        value = header[keyword].value
        joined = value if isinstance(value, str) else "\\".join(map(str, [value] if np.ndim(value) == 0 else value))
    except Exception:  # as above
        return None
    return joined.strip(" \0") or None if value is not None else None


def series_name(header: Dataset) -> str:
    """Name a series in messages by what identifies no patient: its number."""
    number = integer(header, "SeriesNumber")
    return "Series without a number" if number is None else f"Series {number}"
