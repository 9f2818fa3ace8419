"""RT Structure Sets read: the closed planar contours of each ROI, filled on the slices that they were drawn on."""

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from highdicom.seg import SegmentDescription
from panreg.dicom.attributes import integer, numbers, text
from panreg.dicom.elements import breaks_the_standard
from panreg.ingest.stack import Matrix, Stack
from panreg.objects.modules import long_string
from panreg.objects.segmentation.contours import Contour, fill
from panreg.objects.segmentation.labels import name_faults
from panreg.objects.segmentation.masks import Block, Masks, SegmentSource, Unusable
from panreg.objects.segmentation.references import OF_OTHERS, is_of_others, listed_series
from pydicom import Dataset
from pydicom.sr.coding import Code

__all__ = ["read_structure_set"]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
TISSUE = Code("85756007", "SCT", "Tissue")
BODY_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")
CODE = ("CodeValue", "CodingSchemeDesignator")
OFF_PLANE_MM = 0.1
"""How far a contour may lie from the plane of a slice; or a tenth of the distance between slices, if that is more."""

Slices = Mapping[int, list[Contour]]


def read_structure_set(structures: Dataset, moving: Stack, own: frozenset[str], most_voxels: int) -> SegmentSource:
    """Fill the ROIs of a structure set on the moving stack's grid, one segment each, numbered in their order.

    What can't be filled becomes a warning: points and open contours, contours on no slice of the stack, those that name
    other images than our own, and ROIs in another frame of reference.

    Args:
        structures: RT Structure Set.
        moving: stack that it must have been drawn on.
        own: SOP Instance UIDs of the images that a contour may name (``own_images``).
        most_voxels: of all masks together; more is refused.

    Raises:
        Unusable: it was drawn on another series, or nothing of it can be filled.
    """
    _check(structures, moving)
    contours = _by_number(structures, "ROIContourSequence", "ReferencedROINumber")
    observations = _by_number(structures, "RTROIObservationsSequence", "ReferencedROINumber")
    blocks: dict[int, Block] = {}
    descriptions: list[SegmentDescription] = []
    warnings: list[str] = []
    for number, rois in _by_number(structures, "StructureSetROISequence", "ROINumber").items():
        try:
            block, faults = _filled(number, rois, contours[number], moving, own)
        except Unusable as reason:
            warnings += [*reason.warnings, str(reason)]
            continue
        warnings += faults
        segment = len(blocks) + 1
        blocks[segment] = block
        descriptions.append(_description(segment, rois[0], observations[number]))
        if sum(found.values.size for found in blocks.values()) > most_voxels:
            raise Unusable("it has too many voxels for this machine's limits")
    if not blocks:
        raise Unusable("it has no closed planar contour on the slices of the moving series", warnings)
    return SegmentSource(structures, descriptions, Masks(moving.affine, blocks, 1), tuple(warnings))


def _by_number(structures: Dataset, sequence: str, keyword: str) -> dict[int | None, list[Dataset]]:
    """Sort the items of a sequence by the number of the ROI that they are of; None of those that have none."""
    found: dict[int | None, list[Dataset]] = defaultdict(list)
    for item in structures.get(sequence) or []:
        found[integer(item, keyword)].append(item)
    return found


def _filled(
    number: int | None, rois: list[Dataset], drawn: list[Dataset], moving: Stack, own: frozenset[str]
) -> tuple[Block, list[str]]:
    """Fill what was drawn of the ROIs of one number: its voxels, and sentences on what of it is left out.

    Raises:
        Unusable: a sentence on why nothing of it can be taken.
    """
    if number is None:
        raise Unusable("ROIs without a number, by which their contours are found, are left out.")
    if len(rois) > 1 or len(drawn) > 1:
        raise Unusable(f"ROI {number} stands there more than once; whose contours are whose is unknown: left out.")
    if text(rois[0], "ReferencedFrameOfReferenceUID") != moving.frame_of_reference_uid:
        raise Unusable(f"ROI {number} lies in another frame of reference than the moving series: left out.")
    try:
        slices, faults = _slices(drawn[0] if drawn else Dataset(), moving, own)
    except Unusable as reason:
        raise Unusable(f"ROI {number} is left out: {reason}.") from None
    faults = [f"ROI {number}: {fault}." for fault in faults]
    block = _block(slices, moving) if slices else None
    if block is None or not block.values.any():
        raise Unusable(f"ROI {number} encloses no voxel of the moving series: left out.", faults)
    return block, [*faults, *name_faults(text(rois[0], "ROIName") or "", f"ROI {number}")]


def _check(structures: Dataset, moving: Stack) -> None:
    """Refuse what was drawn on another series: the images that it names, if it names any, are not the moving ones."""
    series = {text(item, "SeriesInstanceUID") for item in listed_series(structures)}
    if series and moving.series_uid not in series:
        raise Unusable("it does not refer to the moving series")
    rois = structures.get("StructureSetROISequence") or []
    if not any(text(roi, "ReferencedFrameOfReferenceUID") == moving.frame_of_reference_uid for roi in rois):
        raise Unusable("its frame of reference is not that of the moving series")


def _slices(roi: Dataset, moving: Stack, own: frozenset[str]) -> tuple[Slices, list[str]]:
    """Sort an ROI's contours by the slice that they lie on; what is wrong with those left out."""
    inverse, between = np.linalg.inv(moving.affine), moving.spacing_mm[2]
    tolerance = max(OFF_PLANE_MM, between / 10) / between
    found: dict[int, list[Contour]] = defaultdict(list)
    lost: Counter[str] = Counter()
    for item in roi.get("ContourSequence") or []:
        kind = text(item, "ContourGeometricType") or ""
        if kind not in CLOSED:
            lost["of points or open lines"] += 1
            continue
        if is_of_others(item.get("ContourImageSequence") or [], own):
            lost[OF_OTHERS] += 1
            continue
        index = _points(item) @ inverse[:3, :3].T + inverse[:3, 3]
        k = int(np.rint(index[:, 2].mean()))
        if not 0 <= k < moving.shape[0] or np.abs(index[:, 2] - k).max() > tolerance:
            lost["on no slice of the moving series"] += 1
            continue
        found[k].append(Contour(index[:, :2], kind == "CLOSEDPLANAR_XOR"))
    faults = [f"{count} contours {what} are left out" for what, count in lost.items()]
    skipped = set(range(min(found), max(found))) - set(found) if found else ()
    if skipped:
        faults.append(f"{len(skipped)} slices between its contours have none and stay empty")
    return found, faults


def _points(contour: Dataset) -> Matrix:
    """Read a contour's points, LPS mm: (n, 3)."""
    values = numbers(contour, "ContourData")
    if not values or len(values) % 3:
        raise Unusable("a contour's points are damaged")
    return np.array(values).reshape(-1, 3)


def _block(slices: Slices, moving: Stack) -> Block:
    """Fill an ROI's contours, slice by slice, in the box that holds them."""
    corners = np.concatenate([contour.points for contours in slices.values() for contour in contours])
    last = np.array(moving.shape[:0:-1]) - 1
    low = np.clip(np.floor(corners.min(0)), 0, last).astype(int)
    high = np.clip(np.ceil(corners.max(0)), 0, last).astype(int)
    first = min(slices)
    columns, rows = high - low + 1
    values: npt.NDArray[np.uint8] = np.zeros((max(slices) - first + 1, rows, columns), np.uint8)
    for k, contours in slices.items():
        values[k - first] = fill([Contour(c.points - low, c.is_xor) for c in contours], rows, columns)
    return Block(values, (first, int(low[1]), int(low[0])))


def _description(segment: int, roi: Dataset, observations: list[Dataset]) -> SegmentDescription:
    """Describe a segment by its ROI's name, and its anatomy where that is coded, and by one code alone."""
    label = long_string(text(roi, "ROIName") or "") or f"ROI {integer(roi, 'ROINumber')}"
    coded = {code for item in observations for code in [_anatomy(item)] if code is not None}
    if len(coded) == 1:
        return SegmentDescription(segment, label, BODY_STRUCTURE, coded.pop(), "MANUAL")
    return SegmentDescription(segment, label, TISSUE, TISSUE, "MANUAL")


def _anatomy(observation: Dataset) -> Code | None:
    """Read the code of what was drawn; None where there is none, or one that the standard forbids."""
    for item in (observation.get("RTROIIdentificationCodeSequence") or [])[:1]:
        value, scheme = text(item, "CodeValue"), text(item, "CodingSchemeDesignator")
        if value and scheme and not any(breaks_the_standard(item, keyword) for keyword in CODE):
            return Code(value, scheme, long_string(text(item, "CodeMeaning") or "") or value)
    return None
