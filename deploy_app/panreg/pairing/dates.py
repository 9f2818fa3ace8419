"""Which of two stacks is the earlier: by the days of their headers, unless these contradict each other."""

from datetime import date

from panreg.dicom.attributes import text
from panreg.dicom.times import day
from panreg.failures import Code, Failure
from panreg.ingest.stack import AnyStack
from panreg.pairing.naming import HOW_TO_CHOOSE, listed

__all__ = ["day_of", "in_time"]

DATES = ("AcquisitionDateTime", "AcquisitionDate", "SeriesDate", "StudyDate")  # the first that a stack has counts
AGREEING = ("AcquisitionDate", "StudyDate")  # a series may be made anew long after the other's


def day_of(stack: AnyStack) -> date | None:
    """Read the day of a stack from the first date that it has; None where none is a full calendar day.

    A placeholder, as de-identification and clocks that were never set leave it, counts as absent (``times.day``).
    """
    return next(iter(_days(stack).values()), None)


def in_time(one: AnyStack, other: AnyStack) -> tuple[AnyStack, AnyStack] | None:
    """Tell the earlier and the later of two stacks; None where no day tells, or it is one day.

    Raises:
        Failure: E_AMBIGUOUS: by another of their dates, the order is the opposite.
    """
    first, second = _days(one), _days(other)
    decisive = [next(iter(days), None) for days in (first, second)]
    if decisive[0] is None or decisive[1] is None or first[decisive[0]] == second[decisive[1]]:
        return None
    is_first = first[decisive[0]] < second[decisive[1]]
    for keyword in AGREEING:
        days = (first.get(keyword), second.get(keyword))
        if days[0] and days[1] and days[0] != days[1] and (days[0] < days[1]) != is_first:
            counted = " and ".join(sorted({decisive[0], decisive[1]}))
            message = (
                f"By {keyword} another of the two image stacks ({listed([one, other])}) is the earlier than by "
                f"{counted}: {HOW_TO_CHOOSE}."
            )
            raise Failure(Code.E_AMBIGUOUS, message)
    return (one, other) if is_first else (other, one)


def _days(stack: AnyStack) -> dict[str, date]:
    """Read the dates of a stack that are days, in the order in which they count."""
    found = {keyword: day(text(stack.header, keyword)) for keyword in DATES}
    return {keyword: there for keyword, there in found.items() if there is not None}
