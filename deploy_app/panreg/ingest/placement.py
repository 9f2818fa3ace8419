"""Where the frames of a stack lie: read, and checked to be parallel, evenly apart and on one line."""

import numpy as np
from panreg.dicom.attributes import macro, numbers, text
from panreg.dicom.frame import Frame
from panreg.failures import Code, Failure
from panreg.ingest.stack import Matrix

__all__ = ["GEOMETRY", "check_positions", "geometry", "plane"]

GEOMETRY = (("ImageOrientationPatient", 6, 1e-3), ("PixelSpacing", 2, 1e-4))  # keyword, values, tolerance
OFF_LINE_MM, OFF_LINE_SHARE = 0.1, 0.3  # of the step between slices, where these are thinner than a third of a mm


def geometry(frames: list[Frame]) -> tuple[Matrix, Matrix, Matrix]:
    """Read positions (frames, 3), the axes along a row and a column (2, 3), and the pixel spacing (row, column)."""
    values = [plane(frame) for frame in frames]
    planes = [value for value in values if value is not None]
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


def plane(frame: Frame) -> tuple[tuple[float, ...], ...] | None:
    """Position, orientation and pixel spacing of a frame, or None where it isn't placed."""
    position = numbers(macro(frame, "PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = numbers(macro(frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing = numbers(macro(frame, "PixelMeasuresSequence"), "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    return (position, orientation, spacing) if text(frame.header, "FrameOfReferenceUID") else None


def check_positions(positions: Matrix, normal: Matrix) -> tuple[list[int], Matrix, Matrix]:
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
