"""Where an attribute of a frame lies: in the header of its instance, or in a functional group of a multi-frame one."""

from collections.abc import Iterator

from attributes import discreet
from pydicom import Dataset
from stack import Frame

__all__ = ["holder_of"]


@discreet()
def holder_of(frame: Frame, keyword: str) -> Dataset:
    """Find the data set that holds a frame's attribute: a functional group, per frame before shared, or the header.

    The attributes that a converter of single-frame images could not place lie in functional groups, too.

    Returns:
        The data set; the header if none has the attribute.
    """
    if frame.number is not None and keyword not in frame.header:
        for item in _items(frame, frame.number):
            if keyword in item:
                return item
    return frame.header


def _items(frame: Frame, number: int) -> Iterator[Dataset]:
    per_frame = frame.header.get("PerFrameFunctionalGroupsSequence") or []
    shared = frame.header.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[number - 1 : number], *shared[:1]):
        for element in group:
            if element.VR == "SQ":
                yield from element.value[:1]
