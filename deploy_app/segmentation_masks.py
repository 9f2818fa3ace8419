"""A segmentation read: its frames, which may be sparse and in any order, placed on one grid in space."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from attributes import macro
from pydicom import Dataset
from stack import Frame, Matrix, Stack

__all__ = ["Masks", "Unusable", "place_masks"]

TOLERANCE_MM = 0.1


class Unusable(ValueError):  # noqa: N818 - reads as what it says of a segmentation
    """Why a segmentation can't be propagated, without patient data."""


@dataclass(frozen=True, eq=False)
class Masks:
    """The segments of a segmentation on one grid.

    Args:
        affine: (i, j, k, 1) to LPS mm, 4×4.
        stored: segment number → stored values ``[k, j, i]``, 0 where the segmentation has no frame.
        maximum: stored value that means fully inside.
    """

    affine: Matrix
    stored: Mapping[int, npt.NDArray[np.uint8]]
    maximum: int


def place_masks(segmentation: Dataset, moving: Stack, most_voxels: int) -> Masks:
    """Place the frames of a segmentation: on the moving stack's grid if all lie there, else on a grid of their own.

    Args:
        segmentation: complete data set, with pixels.
        moving: the stack that it most likely was drawn on; frames are matched by their positions, not by order.
        most_voxels: of all segments together; more is refused before anything is allocated.

    Raises:
        Unusable: the frames do not make a grid, or too many voxels.
    """
    frames = [_FrameOf(segmentation, n) for n in range(int(segmentation.NumberOfFrames))]
    in_plane, positions = frames[0].in_plane, np.array([frame.position for frame in frames])
    if any(np.abs(frame.in_plane - in_plane).max() > 1e-3 for frame in frames):
        raise Unusable("its frames differ in orientation or spacing")
    size = int(segmentation.Rows), int(segmentation.Columns)
    affine, index, slices = _on_stack(moving, size, in_plane, positions) or _own_grid(frames[0], in_plane, positions)
    numbers = sorted(int(item.SegmentNumber) for item in segmentation.SegmentSequence)
    if len(numbers) * slices * size[0] * size[1] > most_voxels or len(frames) * size[0] * size[1] > most_voxels:
        raise Unusable("it has too many voxels for this machine's limits")
    stored = {number: np.zeros((slices, *size), np.uint8) for number in numbers}
    for frame, k, pixels in zip(frames, index, segmentation.pixel_array.reshape(-1, *size), strict=True):
        stored[frame.segment][k] = np.maximum(stored[frame.segment][k], pixels)
    fractional = segmentation.SegmentationType == "FRACTIONAL"
    maximum = int(segmentation.MaximumFractionalValue) if fractional else 1
    if any(values.max() > maximum for values in stored.values()):
        raise Unusable("its values exceed the maximum that it declares")
    return Masks(affine, stored, maximum)


class _FrameOf:
    """What the functional groups say of one frame."""

    def __init__(self, segmentation: Dataset, n: int) -> None:
        def group(name: str) -> Dataset:
            return macro(Frame(Path(), segmentation, n + 1), f"{name}Sequence")

        self.measures = group("PixelMeasures")
        between_rows, between_columns = map(float, self.measures.PixelSpacing)
        orientation = np.array(group("PlaneOrientation").ImageOrientationPatient, np.float64).reshape(2, 3)
        self.in_plane = np.stack([orientation[0] * between_columns, orientation[1] * between_rows], 1)
        self.position = np.array(group("PlanePosition").ImagePositionPatient, np.float64)
        self.segment = int(group("SegmentIdentification").ReferencedSegmentNumber)


Placement = tuple[Matrix, npt.NDArray[np.int64], int]


def _on_stack(stack: Stack, size: tuple[int, int], in_plane: Matrix, positions: Matrix) -> Placement | None:
    """Match frames to the slices of a stack: affine, slice of each frame, slices; None where they do not lie there."""
    affine, (slices, rows, columns) = stack.affine, stack.shape
    assert affine is not None
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
