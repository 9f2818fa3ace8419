"""Dates and times of headers, and what they are in the time zone of another header."""

import re
from datetime import date, datetime, timedelta, timezone

from panreg.dicom.attributes import text
from panreg.dicom.elements import copy_elements, is_timezone
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import holder_of
from pydicom import Dataset

__all__ = ["TIMES", "acquisition_times", "day", "share_clock", "timezone_of"]

TIMES = ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime")
PRECISIONS = {2: "%H", 4: "%H%M", 6: "%H%M%S"}  # by the digits of a time (TM), before its fraction
OFFSET = r".*[+-]\d{4}"
# what stands where no day is known: 19000101, 00010101 and 99991231 by programs, days that clocks count from by devices
EARLIEST, LATEST = date(1901, 1, 2), date(9998, 12, 31)
ORIGINS = {date(1904, 1, 1), date(1970, 1, 1), date(1980, 1, 1)}


def day(value: str | None) -> date | None:
    """Read the day of an image from a date (DA), or a date and time (DT).

    Returns:
        None where that is no full calendar day, or one that is no image's but a placeholder: 1 January 1901 and before,
        1 January of 1904, 1970 and 1980, and the year 9999.
    """
    stamp = (value or "")[:8]
    try:
        found = datetime.strptime(stamp, "%Y%m%d").date() if re.fullmatch("[0-9]{8}", stamp) else None
    except ValueError:
        return None
    return found if found and EARLIEST <= found <= LATEST and found not in ORIGINS else None


def timezone_of(header: Dataset) -> timezone | None:
    """Read Timezone Offset From UTC, in which a header's dates and times are meant; None if it says nothing."""
    value = text(header, "TimezoneOffsetFromUTC") or ""
    if not is_timezone(value):
        return None
    offset = timedelta(hours=int(value[1:3]), minutes=int(value[3:]))
    return timezone(-offset if value[0] == "-" else offset)


def share_clock(one: Dataset, other: Dataset) -> bool:
    """Tell whether two headers' times mean the same, as far as their time zones tell."""
    first, second = timezone_of(one), timezone_of(other)
    return first is None or second is None or first == second


def acquisition_times(frame: Frame, target: Dataset) -> Dataset:
    """Tell when a frame was acquired in the time zone of another header, as exactly as the frame says it and no more.

    A date and time in one (DT) names the zone that it is in. Date and time apart are converted together; a date alone,
    and what no calendar has in the other zone, is left out.

    Args:
        frame: with Acquisition Date, Time and DateTime, or some of them.
        target: whose time zone counts; where either says nothing of its zone, the values are taken as they are.
    """
    times = Dataset()
    for keyword in TIMES:
        copy_elements(times, holder_of(frame, keyword), [keyword])
    if share_clock(frame.header, target):
        return times
    date, time, moment = (text(times, keyword) for keyword in TIMES)
    converted = Dataset()
    if date and time and (there := _converted(date, time, timezone_of(frame.header), timezone_of(target))):
        converted.AcquisitionDate, converted.AcquisitionTime = there
    if moment:
        offset = "" if re.fullmatch(OFFSET, moment) else text(frame.header, "TimezoneOffsetFromUTC")
        converted.AcquisitionDateTime = f"{moment}{offset}"
    return converted


def _converted(date: str, time: str, theirs: timezone | None, ours: timezone | None) -> tuple[str, str] | None:
    """Convert a date and a time, as exact as it was; None where that is impossible."""
    whole, dot, fraction = time.partition(".")
    try:
        form = PRECISIONS[len(whole)]
        there = datetime.strptime(f"{date} {whole}", f"%Y%m%d {form}").replace(tzinfo=theirs).astimezone(ours)
    except (KeyError, ValueError, OverflowError):
        return None
    if form == "%H" and there.minute:  # whose hour, nobody knows
        return None
    return f"{there.year:04d}{there:%m%d}", f"{there:{form}}{dot}{fraction}"
