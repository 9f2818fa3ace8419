"""What segments are called: the names of what was drawn, as an object can hold them."""

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy

from highdicom.seg import SegmentDescription
from panreg.objects.modules import LONG_STRING, long_string
from panreg.objects.segmentation.masks import Unusable
from pydicom import DataElement, Dataset

__all__ = ["name_faults", "read_descriptions"]

LOST = "\ufffd"  # what stands for bytes that a character set doesn't have


def name_faults(name: str, whose: str) -> Iterator[str]:
    """Yield a sentence on what a label loses of a name, without the name."""
    if len(name) > LONG_STRING:
        yield f"{whose}: its name is cut at {LONG_STRING} characters."
    if LOST in name:
        yield f"{whose}: part of its name can't be read in the character set that the object declares."


def read_descriptions(segmentation: Dataset) -> tuple[list[SegmentDescription], list[str]]:
    """Read the Segment Sequence, its texts as the standard has them.

    Returns:
        The items but those of a background (0) and those that share a number, whose masks nobody could tell apart; and
        sentences on what is left out or cut.

    Raises:
        Unusable: none is left.
    """
    descriptions, warnings = [], []
    counts = Counter(int(item.SegmentNumber) for item in segmentation.SegmentSequence)
    for number in sorted(number for number, count in counts.items() if count > 1):
        warnings.append(f"Segment {number} stands there more than once; whose masks are whose is unknown: left out.")
    for item in segmentation.SegmentSequence:
        number = int(item.SegmentNumber)
        if number > 0 and counts[number] == 1:
            warnings += name_faults(str(item.get("SegmentLabel", "")), f"Segment {number}")
            described = deepcopy(item)
            described.walk(_as_long_string)
            descriptions.append(SegmentDescription.from_dataset(described))
    if not descriptions:
        raise Unusable("it describes no segment that can be told from others", warnings)
    return descriptions, warnings


def _as_long_string(_: Dataset, element: DataElement) -> None:
    if element.VR == "LO" and element.value:
        element.value = long_string(" ".join(map(str, [element.value] if element.VM == 1 else element.value)))
