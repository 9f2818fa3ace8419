"""Series split into stacks: parallel images of one acquisition, checked and placed in space.

A stack that fails a check stays in the list with its refusal, so that a damaged series can't silently change which pair
is chosen.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from panreg.dicom.attributes import integer, macro, numbers, pydicom_silenced, series_name, text
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import holder_of
from panreg.failures import Code, Failure
from panreg.ingest.scan import MULTI_FRAME_CLASSES, UNREADABLE, Scan
from panreg.ingest.stack import AnyStack, Matrix, RefusedStack, Stack
from panreg.limits import Limits
from pydicom import Dataset

__all__ = ["candidates", "find_stacks"]

EXACT = ("Rows", "Columns", "EchoNumbers", "TemporalPositionIdentifier", "TemporalPositionIndex")
GEOMETRY = (("ImageOrientationPatient", 6, 1e-3), ("PixelSpacing", 2, 1e-4))  # keyword, values, tolerance
CONTRAST = (("EchoTime", 1, 0.01), ("EffectiveEchoTime", 1, 0.01), ("DiffusionBValue", 1, 0.1))
OFF_LINE_MM, OFF_LINE_SHARE = 0.1, 0.3  # of the step between slices, where these are thinner than a third of a mm
GREYSCALE = {"MONOCHROME1", "MONOCHROME2"}
NEVER_CANDIDATES = {"LOCALIZER", "MOSAIC", "REGISTERED"}  # the last are our own outputs


@pydicom_silenced()
def find_stacks(scan: Scan) -> tuple[AnyStack, ...]:
    """Split the images of a scan into stacks, in an order that no file's name or place changes."""
    series: dict[str, list[Frame]] = defaultdict(list)
    for instance in scan.instances:
        series[str(instance.header.SeriesInstanceUID)].append(instance)
    stacks = [stack for instances in series.values() for stack in _stacks_of_series(instances, scan)]
    return tuple(sorted(stacks, key=lambda stack: (stack.study_uid, stack.series_uid, min(stack.sop_instance_uids))))


def candidates(stacks: Iterable[AnyStack]) -> tuple[AnyStack, ...]:
    """Keep the stacks that may be chosen (and then perhaps refused): no localizers, mosaics or our own outputs."""
    return tuple(
        stack
        for stack in stacks
        if not any(NEVER_CANDIDATES.intersection(_image_type(header)) for header in stack.instances())
    )


def _stacks_of_series(instances: list[Frame], scan: Scan) -> Iterator[AnyStack]:
    refusal = _refusal_of_series(instances, scan)
    classic: list[Frame] = []
    enhanced: list[Frame] = []  # of one frame an instance
    for instance in instances:
        if str(instance.header.SOPClassUID) not in MULTI_FRAME_CLASSES:
            classic.append(instance)
            continue
        count = integer(instance.header, "NumberOfFrames") or 1
        last = min(max(count, 1), scan.limits.frames)  # where there are more, it is refused
        frames = [replace(instance, number=number) for number in range(1, last + 1)]
        if last > 1 or "ConcatenationUID" in instance.header:
            yield _build(frames, (), refusal, scan)
        else:
            enhanced += frames
    for slices in (classic, enhanced):
        for frames in _split(slices):
            yield _build(frames, _numbering_warnings(frames, slices), refusal, scan)


# splitting
def _split(frames: list[Frame]) -> list[list[Frame]]:
    """Split a series's images of one frame each by what must be equal in a stack.

    Images without geometry stay with the largest part, which is then refused: alone, they would only leave a shorter
    stack behind.
    """
    groups: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        key = (*(text(_holder(frame, keyword), keyword) for keyword in EXACT), *_image_type(frame.header)[2:4])
        groups[key].append(frame)
    return [part for group in groups.values() for part in _cut_group(group)]


def _cut_group(frames: list[Frame]) -> list[list[Frame]]:
    """Cut by frame of reference, geometry and contrast, these within tolerances.

    Frames without geometry go to the largest part.
    """
    placed: dict[str | None, list[Frame]] = defaultdict(list)
    lacking: list[Frame] = []
    for frame in frames:
        (lacking if _plane(frame) is None else placed[text(frame.header, "FrameOfReferenceUID")]).append(frame)
    parts = [*placed.values()] or [[]]
    for keyword, count, tolerance in (*GEOMETRY, *CONTRAST):
        parts = [piece for part in parts for piece in _cut(part, keyword, count, tolerance)]
    max(parts, key=len).extend(lacking)
    return parts


def _cut(frames: list[Frame], keyword: str, count: int, tolerance: float) -> list[list[Frame]]:
    """Cut where the sorted values of any component have a gap above the tolerance.

    Rounded values as keys would part 0.9925 ± 1e-8. Contrast that is absent, as the b-value of some vendors' b0 images,
    differs from every value.
    """
    values = [numbers(_holder(frame, keyword), keyword, count) or (-1.0,) * count for frame in frames]
    parts = [np.arange(len(frames))]
    for column in np.array(values).reshape(-1, count).T:
        parts = [piece for part in parts for piece in _cut_sorted(part[np.argsort(column[part])], column, tolerance)]
    return [[frames[n] for n in sorted(part)] for part in parts]


def _cut_sorted(part: npt.NDArray[np.intp], column: Matrix, tolerance: float) -> list[npt.NDArray[np.intp]]:
    return np.split(part, np.flatnonzero(np.diff(column[part]) > tolerance) + 1)


def _holder(frame: Frame, keyword: str) -> Dataset:
    """Find what holds a frame's attribute, whatever bytes lie in its functional groups."""
    try:
        return frame.header if frame.number is None else holder_of(frame, keyword)
    except Exception:  # pydicom raises whatever its converters meet in damaged bytes
        return frame.header


def _image_type(header: Any) -> list[str]:
    return (text(header, "ImageType") or "").upper().split("\\")


# checking
def _refusal_of_series(instances: list[Frame], scan: Scan) -> Failure | None:
    """Say why nothing of a series can be trusted: asked of all its images, since each stack of them may seem whole."""
    headers = [instance.header for instance in instances]
    if len({(text(one, "PatientID"), text(one, "IssuerOfPatientID")) for one in headers}) > 1:
        return Failure(Code.E_TWO_PATIENTS, "its images carry different patient identifiers; correct the source.")
    if str(headers[0].SeriesInstanceUID) in scan.collisions:
        message = "two different files have one SOP Instance UID; send the series again, and each image once."
        return Failure(Code.E_UID_COLLISION, message)
    spans = "its images are of more than one {} under one Series Instance UID; correct the source."
    if len({text(one, "StudyInstanceUID") for one in headers}) > 1:
        return Failure(Code.E_UID_COLLISION, spans.format("study"))
    images = [one for one in headers if not NEVER_CANDIDATES.intersection(_image_type(one))]
    if len({text(one, "FrameOfReferenceUID") for one in images} - {None}) > 1:
        return Failure(Code.E_UID_COLLISION, spans.format("frame of reference"))
    modalities = {text(one, "Modality") for one in headers}
    if not modalities <= {"CT", "MR"}:
        return Failure(Code.E_NO_MATCH, "its Modality is neither CT nor MR; choose another series, or correct it.")
    if len(modalities) > 1:
        return Failure(Code.E_NO_MATCH, "its images are of two modalities, CT and MR; correct the source.")
    return None


def _build(frames: list[Frame], warnings: tuple[str, ...], refusal: Failure | None, scan: Scan) -> AnyStack:
    """Check and place the frames of one stack, of a series that may be refused already."""
    warnings += tuple(_image_warnings(frames, scan))
    try:
        if refusal is not None:
            raise refusal
        _check_image(frames, scan.limits)
        positions, axes, spacing = _geometry(frames)
        order, origin, step = _check_positions(positions, np.cross(*axes))
    except Failure as failure:
        refusal = Failure(failure.code, f"{series_name(frames[0].header)}: {failure.message}")
        return RefusedStack(tuple(frames), refusal, warnings)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = axes[0] * spacing[1], axes[1] * spacing[0]
    affine[:3, 2], affine[:3, 3] = step, origin
    return Stack(tuple(frames[n] for n in order), affine, warnings)


def _check_image(frames: list[Frame], limits: Limits) -> None:
    """Refuse what is no greyscale image, beyond the limits, or a part of one."""
    header = frames[0].header
    headers = [*{frame.sop_instance_uid: frame.header for frame in frames}.values()]
    shown = {text(one, "PhotometricInterpretation") for one in headers} - {None}  # absent, it can't be decoded
    if any(integer(one, "SamplesPerPixel") is None for one in headers):
        raise Failure(Code.E_DECODE, "its images lack a valid Samples per Pixel; send the original images.")
    if not shown <= GREYSCALE or any(integer(one, "SamplesPerPixel") != 1 for one in headers):
        raise Failure(Code.E_COLOUR, "its images are not greyscale; send the original images.")
    _check_size(headers, limits)
    if len(frames) * int(header.Rows) * int(header.Columns) > limits.voxels:
        message = f"it has more than {limits.voxels} voxels (PANREG_LIMITS_VOXELS); send a smaller series."
        raise Failure(Code.E_LIMIT, message)
    if "ConcatenationUID" in header:
        message = "it is one part of a concatenation; send it as one multi-frame image or as single frames."
        raise Failure(Code.E_MISSING_SLICES, message)


def _check_size(headers: list[Dataset], limits: Limits) -> None:
    """Refuse images beyond the limits, or of a size that is none."""
    for keyword, name in (("Rows", "rows"), ("Columns", "columns"), ("NumberOfFrames", "frames")):
        most = getattr(limits, name)
        values = [integer(header, keyword) if keyword in header else 1 for header in headers]
        if any(value is None or not 1 <= value <= most for value in values):
            message = f"its {keyword} is not from 1 to {most} (PANREG_LIMITS_{name.upper()}); choose another series."
            raise Failure(Code.E_LIMIT, message)


def _geometry(frames: list[Frame]) -> tuple[Matrix, Matrix, Matrix]:
    """Read positions (frames, 3), the axes along a row and a column (2, 3), and the pixel spacing (row, column)."""
    values = [_plane(frame) for frame in frames]
    planes = [plane for plane in values if plane is not None]
    if len(planes) < len(frames):
        message = (
            f"{len(frames) - len(planes)} of {len(frames)} slices lack a valid Image Position, Image Orientation, "
            "Pixel Spacing or Frame of Reference UID; send the original images."
        )
        raise Failure(Code.E_NO_GEOMETRY, message)
    positions, orientations, spacings = (np.array(part, dtype=np.float64) for part in zip(*planes))
    if np.ptp(orientations, axis=0).max() > 2 * GEOMETRY[0][2]:
        raise Failure(Code.E_MIXED_ORIENTATION, "its images are not parallel; send each orientation as its own series.")
    if np.ptp(spacings, axis=0).max() > 2 * GEOMETRY[1][2]:
        raise Failure(Code.E_VARIABLE_SPACING, "its images differ in Pixel Spacing; send the original images.")
    if len(frames) < 3:
        raise Failure(Code.E_TOO_FEW, f"it has {len(frames)} slices, and 3 are the least; send the whole series.")
    axes = orientations[0].reshape(2, 3)
    if max(*np.abs(np.linalg.norm(axes, axis=1) - 1), abs(axes[0] @ axes[1])) > 1e-3:
        raise Failure(Code.E_ORIENTATION, "its Image Orientation is no pair of orthogonal unit vectors.")
    return positions, axes, spacings[0]


def _plane(frame: Frame) -> tuple[tuple[float, ...], ...] | None:
    """Position, orientation and pixel spacing of a frame, or None where it isn't placed."""
    position = numbers(macro(frame, "PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = numbers(macro(frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing = numbers(macro(frame, "PixelMeasuresSequence"), "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    return (position, orientation, spacing) if text(frame.header, "FrameOfReferenceUID") else None


def _check_positions(positions: Matrix, normal: Matrix) -> tuple[list[int], Matrix, Matrix]:
    """Order slices along the normal: their order, the first origin, and the step to the next (oblique under tilt).

    Origin and step are those of the even line that fits the positions best. What lies within ``OFF_LINE_MM`` of it is
    even: scanners round positions, to 0.1 mm at the coarsest, 0.087 mm in space.
    """
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    if gaps.min() < 1e-3:
        message = f"{int((gaps < 1e-3).sum())} slices lie where another lies; send one echo, phase or repetition only."
        raise Failure(Code.E_DUPLICATE_POSITION, message)
    origin, step, residuals = _fit_line(positions[order])
    tolerance = min(OFF_LINE_MM, OFF_LINE_SHARE * float(np.linalg.norm(step)))
    if np.linalg.norm(residuals, axis=1).max() > tolerance:
        _check_gaps(gaps)
        raise Failure(Code.E_NOT_A_LINE, "its slices don't lie on one line; send one stack a series.")
    return order.tolist(), origin, step


def _fit_line(origins: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Fit origin + k · step by least squares: both, and what is left of each position."""
    k = np.arange(len(origins)) - (len(origins) - 1) / 2
    step = k @ origins / (k @ k)
    origin = origins.mean(0) + k[0] * step
    return origin, step, origins - (origin + np.arange(len(origins))[:, None] * step)


def _check_gaps(gaps: Matrix) -> None:
    median = float(np.median(gaps))
    bad = np.flatnonzero(np.abs(gaps - median) > max(0.01 * median, 0.02))
    if not bad.size:
        return
    holes = np.flatnonzero(gaps > 1.5 * median)
    steps = np.rint(gaps[holes] / median).astype(int)
    uneven = gaps / median
    uneven[holes] /= steps
    if holes.size and (np.abs(uneven - 1) <= np.maximum(0.05, 2 * OFF_LINE_MM / median)).all():
        after = ", ".join(str(n + 1) for n in holes[:5]) + (" …" if holes.size > 5 else "")
        message = f"{int((steps - 1).sum())} slices are missing after slice {after}; send the whole series."
        raise Failure(Code.E_MISSING_SLICES, message)
    message = f"the distance between its slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm; it must be even."
    raise Failure(Code.E_VARIABLE_SPACING, message)


# warnings
def _image_warnings(frames: list[Frame], scan: Scan) -> Iterator[str]:
    if any(text(frame.header, "PhotometricInterpretation") == "MONOCHROME1" for frame in frames):
        yield "The images are MONOCHROME1: their values are used as they are, not inverted."
    unreadable = sum(scan.skipped[reason] for reason in UNREADABLE)
    if unreadable:
        yield f"DICOM files of the input that can't be read: {unreadable}; a slice at an end may be missing."


def _numbering_warnings(frames: list[Frame], series: list[Frame]) -> tuple[str, ...]:
    """A slice that is missing at an end leaves no gap in space, but perhaps one in the counts."""
    result = []
    if len(frames) < len(series):
        result.append(f"The series was split: {len(frames)} of its {len(series)} images are in this stack.")
    numbering = {integer(frame.header, "InstanceNumber") for frame in series} - {None}
    if numbering and numbering != set(range(1, len(numbering) + 1)):
        result.append("Instance Numbers don't run from 1 without a hole: a slice at an end may be missing.")
    expected = {integer(frame.header, "ImagesInAcquisition") for frame in frames} - {None}
    if expected - {len(frames), len(series)}:
        result.append("The number of slices differs from Images in Acquisition: a slice at an end may be missing.")
    return tuple(result)
