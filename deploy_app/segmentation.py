"""Propagated segmentations: what was drawn on the moving series, pulled to the fixed series' grid."""

from collections.abc import Container
from collections.abc import Sequence as Items
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attributes import discreet
from failures import Failure
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from highdicom_objects import finish, identification, source_images, sources
from modules import copy_elements, reference, save
from provenance import MANUFACTURER, MODEL_NAME, Provenance
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage
from registration import Registration
from scipy.ndimage import map_coordinates
from segmentation_masks import Masks, Unusable, place_masks
from settings import Settings
from stack import Stack

__all__ = ["Propagation", "propagate_segmentations"]

REVIEW = "Propagated by registration, review required"
# What reading a damaged or unusual file raises; a failure to write is none of these and ends the run.
UNREADABLE = (InvalidDicomError, AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError)

Mask = npt.NDArray[Any]  # bytes of 0 and 1, or fractions from 0 to 1 as float32


@dataclass(frozen=True)
class Propagation:
    """What became of the segmentations.

    Args:
        paths: files written.
        warnings: a sentence, without patient data, on each segmentation or segment that was not propagated.
    """

    paths: tuple[Path, ...]
    warnings: tuple[str, ...]


def propagate_segmentations(
    registration: Registration, segmentations: Items[Path], provenance: Provenance, settings: Settings, folder: Path
) -> Propagation:
    """Pull the segmentations of the moving series to the fixed series' grid: x_m = x + D(x).

    Binary segments are interpolated linearly and cut at 0.5; fractional ones stay fractional. Codes, labels and
    tracking identifiers are kept, the algorithm is ours. Whatever can't be propagated is told, and stops nothing.

    Args:
        registration: finished.
        segmentations: files of Segmentation objects.
        provenance: of the run.
        settings: with the limits and the series number.
        folder: where to write.
    """
    paths: list[Path] = []
    warnings: list[str] = []
    for number, source in enumerate(segmentations, 1):
        try:
            segmentation, masks = _read(source, registration.moving, settings)
            pulled = _pull(masks, registration)
            if pulled:
                target = _build(segmentation, pulled, registration.fixed, provenance, settings, len(paths) + 1)
                paths.append(_save(target, folder / f"segmentation_{len(paths) + 1:04d}.dcm"))
        except Unusable as reason:
            warnings.append(f"Segmentation {number} was not propagated: {reason}.")
            continue
        lost = sorted(set(masks.stored) - set(pulled))
        warnings += [f"Segment {n} of segmentation {number} has no voxel in the fixed image: left out." for n in lost]
    return Propagation(tuple(paths), tuple(warnings))


@discreet()
def _read(path: Path, moving: Stack, settings: Settings) -> tuple[Dataset, Masks]:
    """Read a segmentation and place its masks.

    Raises:
        Unusable: why not.
    """
    try:
        segmentation = dcmread(path)
        _check(segmentation, moving)
        segmentation.decode()
        segmentation.SegmentSequence = [SegmentDescription.from_dataset(item) for item in segmentation.SegmentSequence]
        return segmentation, place_masks(segmentation, moving, 8 * settings.limits.voxels)
    except Unusable:
        raise
    except UNREADABLE as error:
        raise Unusable("it can't be read as a segmentation") from error


def _check(segmentation: Dataset, moving: Stack) -> None:
    """Refuse what is another patient's, lies in another space or was drawn on something else."""
    if segmentation.SOPClassUID != SegmentationStorage:
        raise Unusable("it is no Segmentation object")
    if str(segmentation.get("PatientID", "")).strip() != str(moving.header.get("PatientID", "")).strip():
        raise Unusable("its PatientID is not that of the moving series")
    if segmentation.FrameOfReferenceUID != moving.frame_of_reference_uid:
        raise Unusable("its frame of reference is not that of the moving series")
    studies = segmentation.get("StudiesContainingOtherReferencedInstancesSequence", [])
    series = [item for holder in (segmentation, *studies) for item in holder.get("ReferencedSeriesSequence", [])]
    if moving.series_uid not in {item.SeriesInstanceUID for item in series}:
        raise Unusable("it does not refer to the moving series")


def _save(target: Dataset, path: Path) -> Path:
    """Save; what the source has against the standard is the source's fault, and ends no run."""
    try:
        save(target, path)
    except Failure as failure:
        raise Unusable(failure.message.rstrip(".")) from failure
    return path


def _pull(masks: Masks, registration: Registration) -> dict[int, Mask]:
    """Pull every segment to the fixed grid ``[k, j, i]``; those with nothing there are left out."""
    fixed, inverse = registration.fixed, np.linalg.inv(masks.affine)
    dtype: npt.DTypeLike = np.uint8 if masks.maximum == 1 else np.float32
    pulled = {number: np.zeros(fixed.shape, dtype) for number in masks.stored}
    for k in range(fixed.shape[0]):
        points = _slice_points(fixed, k)
        points = points + registration.transform.displacement_at(points).cpu().numpy()
        index = np.moveaxis(points @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)[::-1]
        for number, stored in masks.stored.items():
            # beyond the border the mask falls to 0 within one voxel, as if a slice of zeros followed
            value = map_coordinates(stored, index, np.float32, order=1, mode="grid-constant") / masks.maximum
            pulled[number][k] = value >= 0.5 if masks.maximum == 1 else value
    return {number: mask for number, mask in pulled.items() if mask.any()}


def _slice_points(stack: Stack, k: int) -> npt.NDArray[np.float64]:
    """Positions of the voxel centres of slice k, LPS mm: (rows, columns, 3)."""
    assert stack.affine is not None
    j, i = np.indices(stack.shape[1:])
    index = np.stack([i, j, np.full_like(i, k)], -1)
    return np.asarray(index @ stack.affine[:3, :3].T + stack.affine[:3, 3])


def _describe(segmentation: Dataset, kept: Container[int], provenance: Provenance) -> list[Dataset]:
    """Keep what the segments are, say who made them now; numbered from 1 as the standard wants."""
    algorithm = AlgorithmIdentificationSequence(
        MODEL_NAME, codes.cid7162.ArtificialIntelligence, provenance.version, MANUFACTURER
    )
    segments = sorted(segmentation.SegmentSequence, key=lambda item: int(item.SegmentNumber))
    described = [deepcopy(segment) for segment in segments if int(segment.SegmentNumber) in kept]
    for number, segment in enumerate(described, 1):
        segment.remove_private_tags()
        segment.SegmentNumber, segment.SegmentDescription = number, REVIEW
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "AUTOMATIC", MODEL_NAME
        segment.SegmentationAlgorithmIdentificationSequence = algorithm
    return described


def _build(
    segmentation: Dataset,
    pulled: dict[int, Mask],
    fixed: Stack,
    provenance: Provenance,
    settings: Settings,
    number: int,
) -> Segmentation:
    """Build the object: frames in the order of its source images, each on the plane of one."""
    order = np.argsort([frame.number or k for k, frame in enumerate(fixed.frames)])
    arguments = dict(identification("segmentation", settings, provenance, number))
    arguments["sop_instance_uid"] = provenance.uid(f"segmentation:{segmentation.SOPInstanceUID}")
    target = Segmentation(
        source_images=sources(fixed),
        pixel_array=np.stack([pulled[n] for n in sorted(pulled)], -1)[order],
        segmentation_type=segmentation.SegmentationType,
        segment_descriptions=_describe(segmentation, pulled, provenance),
        fractional_type=segmentation.get("SegmentationFractionalType", "PROBABILITY"),
        max_fractional_value=int(segmentation.get("MaximumFractionalValue", 255)),
        content_label="PANREG",
        content_description=REVIEW,
        **arguments,
    )
    description = segmentation.get("SeriesDescription") or "segmentation"
    finish(target, f"PROPAGATED: {description}", fixed, provenance, "Propagation of a segmentation by registration")
    copy_elements(target, segmentation, [f"LossyImageCompression{end}" for end in ("", "Ratio", "Method")])
    target.SourceImageSequence = source_images((*fixed.instances(), segmentation))
    _refer_to_source(target, segmentation)
    return target


def _refer_to_source(target: Dataset, segmentation: Dataset) -> None:
    """Say in which series and study the propagated segmentation is found."""
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID = segmentation.SeriesInstanceUID
    series.ReferencedInstanceSequence = Sequence([reference(segmentation)])
    if segmentation.StudyInstanceUID == target.StudyInstanceUID:
        target.ReferencedSeriesSequence.append(series)
        return
    study.StudyInstanceUID, study.ReferencedSeriesSequence = segmentation.StudyInstanceUID, Sequence([series])
    target.StudiesContainingOtherReferencedInstancesSequence = Sequence([study])
