"""Propagated segmentations: what was drawn on the moving series, pulled to the fixed series' grid."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from panreg.dicom.attributes import pydicom_silenced, text
from panreg.failures import Failure
from panreg.ingest.scan import LABEL_MAP_CLASS, SEGMENTATION_CLASS
from panreg.ingest.stack import Stack
from panreg.objects.modules import save
from panreg.objects.provenance import Provenance
from panreg.objects.segmentation.labels import read_descriptions
from panreg.objects.segmentation.masks import Block, Masks, SegmentSource, Unusable, place_masks
from panreg.objects.segmentation.references import listed_series, own_images
from panreg.objects.segmentation.structure_set import read_structure_set
from panreg.objects.segmentation.writer import Pulled, build_segmentation
from panreg.registration.result import Registration
from panreg.settings import Settings
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import RTStructureSetStorage
from scipy.ndimage import map_coordinates

__all__ = ["Propagation", "propagate_segmentations"]

# What reading a damaged or unusual file raises; a failure to write is none of these and ends the run.
UNREADABLE = (InvalidDicomError, AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError)


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
    """Pull what was drawn on the moving series to the fixed series' grid: x_m = x + D(x).

    Masks, and contours filled, are interpolated linearly and cut at 0.5; fractional segments stay fractional. Codes,
    labels and tracking identifiers are kept, the algorithm is ours. Whatever can't be propagated becomes a
    warning, and ends no run.

    Args:
        registration: finished.
        segmentations: files of Segmentation, Label Map Segmentation and RT Structure Set objects.
        provenance: of the run.
        settings: with the limits and the series number.
        folder: where to write.
    """
    paths: list[Path] = []
    warnings: list[str] = []
    for number, path in enumerate(segmentations, 1):
        name = f"segmentation {number}"
        try:
            source = _read(path, registration, settings)
            warnings += [f"In {name}: {warning}" for warning in source.warnings]
            pulled = _pull(source.masks, registration)
            if pulled:
                target = _build(source, pulled, registration, provenance, settings)
                paths.append(_save(target, folder / f"segmentation_{len(paths) + 1:04d}.dcm"))
        except Unusable as reason:
            warnings += [f"In {name}: {warning}" for warning in reason.warnings]
            warnings.append(f"{name.capitalize()} was not propagated: {reason}.")
            continue
        lost = sorted(set(source.masks.stored) - set(pulled))
        warnings += [f"Segment {n} of {name} has no voxel in the fixed image: left out." for n in lost]
    return Propagation(tuple(paths), tuple(warnings))


@pydicom_silenced()
def _read(path: Path, registration: Registration, settings: Settings) -> SegmentSource:
    """Read a segmentation or a structure set, and place its masks.

    Raises:
        Unusable: why not.
    """
    moving, most_voxels = registration.moving, 8 * settings.limits.voxels
    try:
        instance = dcmread(path)
        _check_patient(instance, moving)
        own = own_images(instance, registration.fixed, moving)
        if instance.SOPClassUID == RTStructureSetStorage:
            return read_structure_set(instance, moving, own, most_voxels)
        _check(instance, moving)
        instance.decode()
        descriptions, warnings = read_descriptions(instance)
        masks = place_masks(instance, moving, own, most_voxels)
        described = {int(item.SegmentNumber) for item in descriptions}
        stored = {number: block for number, block in masks.stored.items() if number in described}
        return SegmentSource(instance, descriptions, replace(masks, stored=stored), (*warnings, *masks.warnings))
    except Unusable:
        raise
    except UNREADABLE as error:
        raise Unusable("it can't be read as a segmentation") from error


def _check_patient(instance: Dataset, moving: Stack) -> None:
    """Refuse what is another patient's."""
    if str(instance.get("PatientID", "")).strip() != str(moving.header.get("PatientID", "")).strip():
        raise Unusable("its PatientID is not that of the moving series")


def _check(segmentation: Dataset, moving: Stack) -> None:
    """Refuse what is no segmentation, lies in another space or was drawn on something else."""
    if segmentation.SOPClassUID not in (SEGMENTATION_CLASS, LABEL_MAP_CLASS):
        raise Unusable("it is no Segmentation object")
    if segmentation.FrameOfReferenceUID != moving.frame_of_reference_uid:
        raise Unusable("its frame of reference is not that of the moving series")
    if moving.series_uid not in {text(item, "SeriesInstanceUID") for item in listed_series(segmentation)}:
        raise Unusable("it does not refer to the moving series")


def _build(
    source: SegmentSource,
    pulled: dict[int, Pulled],
    registration: Registration,
    provenance: Provenance,
    settings: Settings,
) -> Dataset:
    """Build the object; what highdicom has against it, or the source, ends no run."""
    try:
        return build_segmentation(source, pulled, registration, provenance, settings)
    except Unusable:
        raise
    except UNREADABLE as error:
        raise Unusable(f"no Segmentation object can be made of it ({type(error).__name__})") from error


def _save(target: Dataset, path: Path) -> Path:
    """Save; what the source has against the standard is the source's fault, and ends no run."""
    try:
        save(target, path)
    except Failure as failure:
        raise Unusable(failure.message.rstrip(".")) from failure
    return path


def _pull(masks: Masks, registration: Registration) -> dict[int, Pulled]:
    """Pull every segment to the fixed grid; those with nothing there are left out."""
    fixed, inverse = registration.fixed, np.linalg.inv(masks.affine)
    found: dict[int, list[Pulled]] = {number: [] for number in masks.stored}
    for k in range(fixed.shape[0]):
        points = _slice_points(fixed, k)
        points = points + registration.transform.displacement_at(points).cpu().numpy()
        index = (points @ inverse[:3, :3].T + inverse[:3, 3]).reshape(-1, 3)[:, ::-1]
        first = k * len(index)
        for number, block in masks.stored.items():
            places, values = _sample(block, index, masks.maximum)
            if len(places):
                found[number].append(Pulled(places + first, values))
    return {
        number: Pulled(np.concatenate([p.places for p in parts]), np.concatenate([p.values for p in parts]))
        for number, parts in found.items()
        if parts
    }


def _sample(
    block: Block, index: npt.NDArray[np.float64], maximum: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Interpolate a segment at indices (n, 3), (k, j, i) of its grid: which of them it reaches, and the values there.

    Beyond its border a mask falls to 0 within one voxel, as if a slice of zeros followed.
    """
    low, high = np.array(block.first) - 1, np.array(block.first) + block.values.shape
    near = np.flatnonzero(((index > low) & (index < high)).all(-1))
    coordinates = (index[near] - block.first).T
    values = map_coordinates(block.values, coordinates, np.float32, order=1, mode="grid-constant") / maximum
    if maximum == 1:
        values = (values >= 0.5).astype(np.float32)
    there = values > 0
    return near[there].astype(np.int64), values[there]


def _slice_points(stack: Stack, k: int) -> npt.NDArray[np.float64]:
    """Positions of the voxel centres of slice k, LPS mm: (rows, columns, 3)."""
    j, i = np.indices(stack.shape[1:])
    index = np.stack([i, j, np.full_like(i, k)], -1)
    return np.asarray(index @ stack.affine[:3, :3].T + stack.affine[:3, 3])
