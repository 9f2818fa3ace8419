"""Which images a contour or a frame says that it was drawn on: those of the moving series, or others."""

from collections.abc import Iterable, Iterator

from panreg.dicom.attributes import text
from panreg.ingest.stack import Stack
from pydicom import Dataset

__all__ = ["OF_OTHERS", "is_of_others", "listed_series", "own_images"]

OF_OTHERS = "on other images than those of the moving series"


def listed_series(instance: Dataset) -> Iterator[Dataset]:
    """Yield the series that an object lists, whichever way its class does: items with Series Instance UIDs."""
    studies = instance.get("StudiesContainingOtherReferencedInstancesSequence") or []
    for holder in (instance, *studies):
        yield from holder.get("ReferencedSeriesSequence") or []
    for frame in instance.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            yield from study.get("RTReferencedSeriesSequence") or []


def own_images(instance: Dataset, fixed: Stack, moving: Stack) -> frozenset[str]:
    """Find the SOP Instance UIDs of what may be drawn on: the moving images, and the rest of their series.

    A series may hold more stacks than the one that moves (another echo): what the object lists under the series counts,
    but for the fixed images, which may be one of these stacks.
    """
    beside = {
        str(image.get("ReferencedSOPInstanceUID"))
        for series in listed_series(instance)
        if text(series, "SeriesInstanceUID") == moving.series_uid
        for keyword in ("ReferencedInstanceSequence", "ContourImageSequence")
        for image in series.get(keyword) or []
    }
    return frozenset(moving.sop_instance_uids) | (beside - set(fixed.sop_instance_uids))


def is_of_others(images: Iterable[Dataset], own: frozenset[str]) -> bool:
    """Tell whether images are named (items with SOP Instance UIDs), and none of them is one of our own."""
    named = {text(image, "ReferencedSOPInstanceUID") for image in images} - {None}
    return bool(named) and not named & own
