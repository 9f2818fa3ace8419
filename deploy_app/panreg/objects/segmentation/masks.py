"""A segmentation read: its frames, which may be sparse and in any order, placed on one grid in space."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from panreg.dicom.attributes import macro
from panreg.dicom.frame import Frame
from panreg.ingest.stack import Matrix, Stack
from panreg.objects.segmentation.references import OF_OTHERS, is_of_others
from pydicom import Dataset
from scipy.ndimage import find_objects

__all__ = ["Block", "Masks", "SegmentSource", "Unusable", "place_masks"]

TOLERANCE_MM = 0.1

Pixels = npt.NDArray[np.integer]


class Unusable(ValueError):  # noqa: N818 - reads as what it says of a segmentation
    """Why a segmentation can't be propagated, without patient data.

    Args:
        reason: the end of a sentence.
        warnings: sentences on its parts that led to that.
    """

    def __init__(self, reason: str, warnings: Iterable[str] = ()) -> None:  # noqa: B042 - str() gives the reason alone
        super().__init__(reason)
        self.warnings = tuple(warnings)


@dataclass(frozen=True, eq=False)
class Block:
    """The part of a grid that holds a segment; it is 0 elsewhere.

    Args:
        values: stored values ``[k, j, i]``.
        first: index (k, j, i) of the block's first voxel in the grid.
    """

    values: npt.NDArray[np.uint8]
    first: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, eq=False)
class Masks:
    """The segments of a segmentation on one grid.

    Args:
        affine: (i, j, k, 1) to LPS mm, 4×4.
        stored: segment number → stored values, 0 where the segmentation has no frame.
        maximum: stored value that means fully inside.
        is_exclusive: a voxel belongs to one segment at most: they come from a label map.
        warnings: what of the segmentation is left out, without patient data.
    """

    affine: Matrix
    stored: Mapping[int, Block]
    maximum: int
    is_exclusive: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SegmentSource:
    """What was drawn on the moving series: an object read.

    Args:
        instance: the object.
        descriptions: items of a Segment Sequence, numbered as the masks are.
        masks: the segments.
        warnings: what of it is left out, without patient data.
    """

    instance: Dataset
    descriptions: Sequence[Dataset]
    masks: Masks
    warnings: tuple[str, ...] = ()


def place_masks(segmentation: Dataset, moving: Stack, own: frozenset[str], most_voxels: int) -> Masks:
    """Place the frames of a segmentation: on the moving stack's grid if all lie there, else on a grid of their own.

    Args:
        segmentation: complete data set, with pixels; of masks or a label map.
        moving: the stack that it most likely was drawn on; frames are matched by their positions, not by order.
        own: SOP Instance UIDs of the images that a frame may name (``own_images``); one that names others is left out.
        most_voxels: of all segments together; more is refused before anything is allocated.

    Raises:
        Unusable: the frames do not make a grid, too many voxels, or nothing is left.
    """
    every = [_FrameOf(segmentation, n) for n in range(int(segmentation.NumberOfFrames))]
    frames = [frame for frame in every if not is_of_others(frame.images, own)]
    if not frames:
        raise Unusable("all its frames are on other images than those of the moving series")
    in_plane, positions = frames[0].in_plane, np.array([frame.position for frame in frames])
    if any(np.abs(frame.in_plane - in_plane).max() > 1e-3 for frame in frames):
        raise Unusable("its frames differ in orientation or spacing")
    size = int(segmentation.Rows), int(segmentation.Columns)
    affine, index, slices = _on_stack(moving, size, in_plane, positions) or _own_grid(frames[0], in_plane, positions)
    is_map = segmentation.SegmentationType == "LABELMAP"
    volumes = 1 if is_map else len(segmentation.SegmentSequence)
    if max(volumes * slices, len(every)) * size[0] * size[1] > most_voxels:
        raise Unusable("it has too many voxels for this machine's limits")
    pixels = segmentation.pixel_array.reshape(-1, *size)
    planes = [(frame, k, pixels[frame.number]) for frame, k in zip(frames, index.tolist())]
    others = {frame.number for frame in every} - {frame.number for frame in frames}
    lost = Counter(n for frame in every if frame.number in others for n in frame.segments(pixels[frame.number]))
    warnings = tuple(f"Segment {n}: {count} frames {OF_OTHERS} are left out." for n, count in sorted(lost.items()))
    if is_map:
        labels = np.zeros((slices, *size), pixels.dtype)
        for _, k, plane in planes:
            labels[k] = plane
        return Masks(affine, dict(_blocks(labels, segmentation)), 1, is_exclusive=True, warnings=warnings)
    stored = _stored(segmentation, planes, (slices, *size))
    return Masks(affine, stored, _maximum(segmentation), warnings=warnings)


def _maximum(segmentation: Dataset) -> int:
    """Read which stored value means fully inside."""
    return int(segmentation.MaximumFractionalValue) if segmentation.SegmentationType == "FRACTIONAL" else 1


def _stored(
    segmentation: Dataset, planes: list[tuple["_FrameOf", int, Pixels]], shape: tuple[int, int, int]
) -> dict[int, Block]:
    """Put frames into one volume a segment; of two on one slice the greater value counts.

    Raises:
        Unusable: a value is above the maximum.
    """
    stored = {int(item.SegmentNumber): np.zeros(shape, np.uint8) for item in segmentation.SegmentSequence}
    for frame, k, plane in planes:
        (segment,) = frame.segments(plane)
        stored[segment][k] = np.maximum(stored[segment][k], plane)
    if any(values.max() > _maximum(segmentation) for values in stored.values()):
        raise Unusable("its values exceed the maximum that it declares")
    return {number: Block(stored[number]) for number in sorted(stored)}


def _background(segmentation: Dataset) -> int:
    """Read which label of a label map means that no segment is there."""
    return int(segmentation.get("PixelPaddingValue") or 0)


def _blocks(labels: Pixels, segmentation: Dataset) -> Iterator[tuple[int, Block]]:
    """Cut a label map into one block a segment; a segment without a voxel gets an empty one.

    Raises:
        Unusable: there are labels that no segment describes.
    """
    background = _background(segmentation)
    numbers = sorted(int(item.SegmentNumber) for item in segmentation.SegmentSequence)
    if set(np.unique(labels).tolist()) - {*numbers, background}:
        raise Unusable("it has labels that it does not describe")
    boxes = find_objects(labels.astype(np.int32) + 1)  # the label 0 would count as nothing
    for number in numbers:
        box = boxes[number] if number < len(boxes) else None
        if number == background:
            continue
        if box is None:
            yield number, Block(np.zeros((1, 1, 1), np.uint8))
            continue
        yield number, Block((labels[box] == number).astype(np.uint8), tuple(part.start for part in box))


class _FrameOf:
    """What the functional groups say of one frame."""

    def __init__(self, segmentation: Dataset, n: int) -> None:
        def group(name: str) -> Dataset:
            return macro(Frame(Path(), segmentation, n + 1), f"{name}Sequence")

        self.number, self._segmentation = n, segmentation
        self.measures = group("PixelMeasures")
        between_rows, between_columns = map(float, self.measures.PixelSpacing)
        orientation = np.array(group("PlaneOrientation").ImageOrientationPatient, np.float64).reshape(2, 3)
        self.in_plane = np.stack([orientation[0] * between_columns, orientation[1] * between_rows], 1)
        self.position = np.array(group("PlanePosition").ImagePositionPatient, np.float64)
        self._group = group

    @property
    def images(self) -> list[Dataset]:
        """The images that the frame says it was derived from: items, none where it names none."""
        per_frame = self._segmentation.get("PerFrameFunctionalGroupsSequence") or []
        groups = [*per_frame[self.number : self.number + 1]]
        groups += self._segmentation.get("SharedFunctionalGroupsSequence") or []
        derivations = [item for group in groups for item in group.get("DerivationImageSequence") or []]
        return [image for item in derivations for image in item.get("SourceImageSequence") or []]

    def segments(self, plane: Pixels) -> list[int]:
        """Numbers of the segments that the frame shows; of a mask there is one, of a label map's plane any number."""
        if self._segmentation.SegmentationType == "LABELMAP":
            return sorted(set(np.unique(plane).tolist()) - {_background(self._segmentation)})
        return [int(self._group("SegmentIdentification").ReferencedSegmentNumber)]


Placement = tuple[Matrix, npt.NDArray[np.int64], int]


def _on_stack(stack: Stack, size: tuple[int, int], in_plane: Matrix, positions: Matrix) -> Placement | None:
    """Match frames to the slices of a stack: affine, slice of each frame, slices; None where they do not lie there."""
    affine, (slices, rows, columns) = stack.affine, stack.shape
    drift = np.abs(in_plane - affine[:3, :2]).max() * max(rows, columns)
    origins = affine[:3, 3] + np.arange(slices)[:, None] * affine[:3, 2]
    distances = np.linalg.norm(positions[:, None] - origins, axis=-1)
    if size != (rows, columns) or drift > TOLERANCE_MM or distances.min(1).max() > TOLERANCE_MM:
        return None
    return affine, distances.argmin(1), slices


def _own_grid(frame: _FrameOf, in_plane: Matrix, positions: Matrix) -> Placement:
    """Fit a regular grid through the frames: affine, slice of each frame, slices."""
    normal = np.cross(in_plane[:, 0], in_plane[:, 1])
    heights = positions @ (normal / np.linalg.norm(normal))
    first, last = heights.argmin(), heights.argmax()
    gaps = np.diff(np.sort(heights))
    declared = [frame.measures.get("SpacingBetweenSlices"), min(gaps[gaps > TOLERANCE_MM / 10], default=None)]
    for spacing in [float(s) for s in declared if s]:
        index = np.rint((heights - heights[first]) / spacing).astype(np.int64)
        step = (positions[last] - positions[first]) / max(index[last], 1)
        away = positions - (positions[first] + index[:, None] * step)
        if index[last] > 0 and np.linalg.norm(away, axis=1).max() <= TOLERANCE_MM:
            return _affine(in_plane, step, positions[first]), index, int(index[last]) + 1
    if np.ptp(heights) > TOLERANCE_MM / 10:
        raise Unusable("its frames do not lie at regular distances")
    thickness = float(declared[0] or frame.measures.SliceThickness)
    step = normal / np.linalg.norm(normal) * thickness
    return _affine(in_plane, step, positions[0]), np.zeros(len(positions), np.int64), 1


def _affine(in_plane: Matrix, step: Matrix, origin: Matrix) -> Matrix:
    affine = np.eye(4)
    affine[:3] = np.column_stack([in_plane, step, origin])
    return affine
