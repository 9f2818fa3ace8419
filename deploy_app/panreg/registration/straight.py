"""Straight grids for sheared stacks (gantry tilt), which most programs straighten in silence, and so misplace."""

import numpy as np
import numpy.typing as npt
from panreg.dicom.elements import decimal
from panreg.dicom.frame import Frame
from panreg.ingest.stack import Matrix, Stack
from pydicom import Dataset
from scipy.ndimage import map_coordinates

__all__ = ["drift_mm", "grid_of_result", "resample_onto"]

SHEARED_DEGREES = 0.1
"""Tilt from which a stack counts as sheared: below, the last slice of a head is less than half a millimetre off."""
PLACED = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
STRAIGHT_MM = 0.01
"""Drift that a straight grid is free of: the last digits of an Image Position."""


def drift_mm(stack: Stack) -> float:
    """Measure how far within its plane the last slice lies from where it would in a straight stack, mm."""
    step, between = stack.affine[:3, 2], stack.spacing_mm[2]
    return float(np.sqrt(np.maximum(step @ step - between**2, 0))) * (stack.shape[0] - 1)


def grid_of_result(fixed: Stack, setting: str) -> tuple[Stack, tuple[str, ...]]:
    """Choose the grid that results lie on.

    Args:
        fixed: the fixed stack.
        setting: ``original`` for its own, ``straight`` for a straight one, ``auto`` for a straight one where the fixed
            stack is sheared: a result that most programs misplace is worse than one whose rows begin elsewhere.

    Returns:
        The fixed stack itself or its straight version, and what a person must know of it.
    """
    drift, sheared = drift_mm(fixed), fixed.tilt_degrees > SHEARED_DEGREES
    if not sheared and (setting != "straight" or drift <= STRAIGHT_MM):
        return fixed, ()
    shear = (
        f"The slices of the fixed series are sheared by {fixed.tilt_degrees:.1f} degrees (gantry tilt): most programs "
        f"straighten such a series in silence and misplace it by up to {drift:.1f} mm"
    )
    if setting == "original":
        return fixed, (f"{shear}, the results on its grid, too (PANREG_GRID=straight gives them a straight one).",)
    return straighten(fixed), (
        f"{shear}; the results lie on a straight grid of the same planes (PANREG_GRID=original keeps the series' own).",
    )


def straighten(stack: Stack) -> Stack:
    """Build the smallest straight grid on the planes of a stack that holds all its voxels.

    Every frame stays the one of its plane, with another position, other rows and columns. The bundle's
    ``Grid.orthogonal`` builds the same grid, but the two meet in a workflow alone, and import nothing of each other.
    """
    axes, upper = np.linalg.qr(stack.affine[:3, :3])
    axes = axes * np.sign(np.diag(upper))  # each axis the way it ran before
    spacing = np.array(stack.spacing_mm)
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * [*(np.array(stack.shape[::-1]) - 1), 1]
    along = (corners @ stack.affine.T)[:, :3] @ axes
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, axes @ along.min(0)
    columns, rows, _ = np.ceil(np.ptp(along, axis=0) / spacing - 1e-6).astype(int) + 1
    frames = (_placed(frame, affine, k, (int(rows), int(columns))) for k, frame in enumerate(stack.frames))
    return Stack(tuple(frames), affine, stack.warnings)


def _placed(frame: Frame, affine: Matrix, k: int, size: tuple[int, int]) -> Frame:
    header, spacing = Dataset(), np.linalg.norm(affine[:3, :3], axis=0)
    # without what changes: set where it is, it would change in the frame's own header, too
    header.update({element.tag: element for element in frame.header if element.keyword not in PLACED})
    header.file_meta = getattr(frame.header, "file_meta", Dataset())
    header.Rows, header.Columns = size
    header.ImagePositionPatient = [decimal(value) for value in affine[:3, 3] + k * affine[:3, 2]]
    header.ImageOrientationPatient = [decimal(value) for value in (affine[:3, :2] / spacing[:2]).T.ravel()]
    header.PixelSpacing = [decimal(spacing[1]), decimal(spacing[0])]
    return Frame(frame.path, header, frame.number, frame.copies)


def resample_onto(
    grid: Stack, stack: Stack, values: npt.NDArray[np.float32], outside: float
) -> npt.NDArray[np.float32]:
    """Interpolate a stack's values ``[k, j, i]`` linearly on the straight grid of its planes."""
    result = np.empty(grid.shape, np.float32)
    matrix = (np.linalg.inv(stack.affine) @ grid.affine)[:3]
    j, i = np.mgrid[: grid.shape[1], : grid.shape[2]]
    for k, plane in enumerate(values):
        columns, rows = (row[0] * i + row[1] * j + row[2] * k + row[3] for row in matrix[:2])
        map_coordinates(plane, [rows, columns], result[k], order=1, cval=outside)
    return result
