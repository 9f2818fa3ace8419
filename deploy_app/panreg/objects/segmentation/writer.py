"""The object of a propagated segmentation: what the segments are is kept, who made them now is said."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation
from panreg.dicom.elements import copy_elements
from panreg.objects.highdicom_objects import (
    complete_measures,
    finish,
    identification,
    is_multi_frame,
    source_images,
    sources,
)
from panreg.objects.modules import reference
from panreg.objects.provenance import MANUFACTURER, MODEL_NAME, Provenance
from panreg.objects.registered_series import SOP_CLASSES, references_to_registered
from panreg.objects.segmentation.masks import SegmentSource, Unusable
from panreg.registration.result import Registration
from panreg.settings import Settings
from pydicom import DataElement, Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import RTStructureSetStorage

__all__ = ["Pulled", "build_segmentation"]

REVIEW = "Propagated by registration, review required"


@dataclass(frozen=True, eq=False)
class Pulled:
    """A segment on the fixed grid, as its voxels that are not 0.

    Args:
        places: of these voxels in the flattened grid.
        values: 1, or fractions.
    """

    places: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


def build_segmentation(
    source: SegmentSource,
    pulled: Mapping[int, Pulled],
    registration: Registration,
    provenance: Provenance,
    settings: Settings,
) -> Segmentation:
    """Build the object: masks, each on the plane of one image.

    The images are the fixed ones, or the registered ones where the result lies on a straight grid of its own. Whatever
    it was made from, it holds masks: few programs know label maps, and segments of a structure set may overlap.

    Args:
        source: what was drawn on the moving series.
        pulled: its segments on the fixed grid; those that it lacks are left out.
        registration: finished.
        provenance: of the run.
        settings: with the limits, the series number and the label.

    Raises:
        Unusable: too many voxels.
    """
    fixed, instance = registration.fixed, source.instance
    images, order, classes = _images(registration, provenance)
    is_fractional = instance.get("SegmentationType") == "FRACTIONAL"
    target = Segmentation(
        source_images=images,
        pixel_array=_pixels(source, pulled, fixed.shape, 8 * settings.limits.voxels)[order],
        segmentation_type="FRACTIONAL" if is_fractional else "BINARY",
        segment_descriptions=_describe(source.descriptions, pulled, provenance),
        fractional_type=instance.get("SegmentationFractionalType", "PROBABILITY"),
        max_fractional_value=int(instance.get("MaximumFractionalValue", 255)),
        content_label="PANREG",
        content_description=REVIEW,
        # a series each, whatever else was drawn: their descriptions differ
        **identification("segmentation", settings, provenance, source=str(instance.SOPInstanceUID)),
    )
    description = instance.get("SeriesDescription") or instance.get("StructureSetLabel") or "segmentation"
    finish(target, f"PROPAGATED: {description}", fixed, provenance, "Propagation of a segmentation by registration")
    target.ImageComments = settings.label
    copy_elements(target, instance, [f"LossyImageCompression{end}" for end in ("", "Ratio", "Method")])
    _name_sources(target, instance, registration)
    _name_classes(target, classes)
    return target


def _images(
    registration: Registration, provenance: Provenance
) -> tuple[list[Dataset], npt.NDArray[np.intp], dict[str, str]]:
    """Build the images that the masks lie on as highdicom takes them: several of a classic class, or one enhanced.

    Returns:
        The images, the order of the stack's slices in them, and their SOP classes by SOP Instance UID.
    """
    fixed = registration.fixed
    order = np.arange(len(fixed.frames))
    if registration.is_straightened:
        images = references_to_registered(registration, provenance)
        for image in images:
            complete_measures(image, fixed)
    else:
        images = sources(fixed)
        if is_multi_frame(fixed):
            order = np.argsort([frame.number or 0 for frame in fixed.frames])
    classes = {str(image.SOPInstanceUID): str(image.SOPClassUID) for image in images}
    if len(images) > 1:
        for image in images:
            image.SOPClassUID = SOP_CLASSES[fixed.modality]
    return images, order, classes


def _name_classes(target: Dataset, classes: Mapping[str, str]) -> None:
    """Give references to images the SOP classes that these have."""

    def name(item: Dataset, element: DataElement) -> None:
        if element.keyword == "ReferencedSOPInstanceUID" and element.value in classes:
            item.ReferencedSOPClassUID = classes[element.value]

    target.walk(name)


def _pixels(
    source: SegmentSource, pulled: Mapping[int, Pulled], shape: tuple[int, int, int], most_voxels: int
) -> npt.NDArray[Any]:
    """Lay the segments out as highdicom takes them: one array of numbers where none overlap, else one a segment."""
    labels: npt.NDArray[Any] = np.zeros(shape, np.uint8 if len(pulled) < 256 else np.uint16)
    overlap = source.instance.get("SegmentationType") == "FRACTIONAL"
    for n, key in enumerate(sorted(pulled), 1):
        places = pulled[key].places
        if source.masks.is_exclusive:  # at a tie the first segment has the voxel
            places = places[labels.flat[places] == 0]
        overlap = overlap or bool(labels.flat[places].any())
        labels.flat[places] = n
    if not overlap and np.array_equal(np.unique(labels)[-len(pulled) :], np.arange(1, len(pulled) + 1)):
        return labels
    if len(pulled) * labels.size > most_voxels:
        raise Unusable("it has too many voxels for this machine's limits")
    is_fractional = source.masks.maximum > 1
    masks = np.zeros((len(pulled), labels.size), np.float32 if is_fractional else np.uint8)
    for mask, key in zip(masks, sorted(pulled)):
        mask[pulled[key].places] = pulled[key].values
    return np.moveaxis(masks.reshape(-1, *shape), 0, -1)


def _describe(described: Iterable[Dataset], kept: Mapping[int, Pulled], provenance: Provenance) -> list[Dataset]:
    """Keep what the segments are, say who made them now; numbered from 1 as the standard wants."""
    algorithm = AlgorithmIdentificationSequence(
        MODEL_NAME, codes.cid7162.ArtificialIntelligence, provenance.version, MANUFACTURER
    )
    segments = sorted(described, key=lambda item: int(item.SegmentNumber))
    result = [deepcopy(segment) for segment in segments if int(segment.SegmentNumber) in kept]
    for number, segment in enumerate(result, 1):
        segment.remove_private_tags()
        segment.SegmentNumber, segment.SegmentDescription = number, REVIEW
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "AUTOMATIC", MODEL_NAME
        segment.SegmentationAlgorithmIdentificationSequence = algorithm
    return result


def _name_sources(target: Dataset, instance: Dataset, registration: Registration) -> None:
    """Say what the object was made from, and in which series and study that is found."""
    images = [*registration.fixed.instances()]
    if instance.SOPClassUID == RTStructureSetStorage:  # no image
        target.SourceInstanceSequence = source_images([instance])
    else:
        images.append(instance)
    target.SourceImageSequence = source_images(images)
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID = instance.SeriesInstanceUID
    series.ReferencedInstanceSequence = Sequence([reference(instance)])
    if instance.StudyInstanceUID == target.StudyInstanceUID:
        target.ReferencedSeriesSequence.append(series)
        return
    study.StudyInstanceUID, study.ReferencedSeriesSequence = instance.StudyInstanceUID, Sequence([series])
    target.StudiesContainingOtherReferencedInstancesSequence = Sequence([study])
