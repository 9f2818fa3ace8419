"""Series split into stacks: parallel images of one acquisition, checked and placed in space.

A stack that fails a check stays in the list with its refusal, so that a damaged series can't silently change which pair
is chosen.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from panreg.dicom.attributes import integer, macro, pydicom_silenced, series_name, text
from panreg.dicom.frame import Frame
from panreg.failures import Code, Failure
from panreg.ingest.placement import check_positions, geometry
from panreg.ingest.scan import MULTI_FRAME_CLASSES, UNREADABLE, Scan
from panreg.ingest.splitting import check_uniform, image_type, split
from panreg.ingest.stack import AnyStack, RefusedStack, Stack
from panreg.limits import Limits
from pydicom import Dataset

__all__ = ["candidates", "find_stacks"]

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
        if not any(NEVER_CANDIDATES.intersection(image_type(header)) for header in stack.instances())
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
            yield _build(frames, _in_stack_warnings(frames), refusal, scan)
        else:
            enhanced += frames
    for slices in (classic, enhanced):
        for frames in split(slices):
            yield _build(frames, _numbering_warnings(frames, slices), refusal, scan)


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
    images = [one for one in headers if not NEVER_CANDIDATES.intersection(image_type(one))]
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
        positions, axes, spacing = geometry(frames)
        if frames[0].number is not None and len({frame.sop_instance_uid for frame in frames}) == 1:
            check_uniform(frames)  # the others were split
        order, origin, step = check_positions(positions, np.cross(*axes))
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


def _in_stack_warnings(frames: list[Frame]) -> tuple[str, ...]:
    """The same of the frames of one image, which have no Instance Numbers of their own."""
    keyword = "InStackPositionNumber"
    numbering = {integer(macro(frame, "FrameContentSequence"), keyword) for frame in frames} - {None}
    if not numbering or numbering == set(range(1, len(numbering) + 1)):
        return ()
    return ("In-Stack Position Numbers don't run from 1 without a hole: a slice at an end may be missing.",)
