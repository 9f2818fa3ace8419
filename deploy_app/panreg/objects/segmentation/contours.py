"""Closed planar contours filled: which voxels of a plane they enclose."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.path import Path as Polygon

__all__ = ["Contour", "fill"]

ON_LINE = 1e-3
"""Pixels: a pixel whose centre is as near to a line lies on it."""

Points = npt.NDArray[np.float64]
Plane = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Contour:
    """A closed contour in the plane of an image.

    Args:
        points: (n, 2): column and row, pixels; pixel centres are whole numbers.
        is_xor: declared to be combined with the others of its plane by exclusive or (CLOSEDPLANAR_XOR).
    """

    points: Points
    is_xor: bool = False


def fill(contours: Iterable[Contour], rows: int, columns: int) -> Plane:
    """Find the pixels whose centres lie in the region of a plane's contours, or on its outline: (rows, columns).

    A contour inside another is a hole, and one inside that an island, whatever its type; so is what a keyhole leaves
    out. Contours that overlap in part are united, unless they are declared as CLOSEDPLANAR_XOR (PS3.3 C.8.8.6.3). The
    outline belongs to the region, that of a hole, too: many programs draw their contours through pixel centres.
    """
    interior, outline = np.zeros((rows, columns), np.bool_), np.zeros((rows, columns), np.bool_)
    for contour in sorted(contours, key=lambda contour: -_area(contour.points)):
        on = _on_lines(contour.points, rows, columns)
        inside = _enclosed(contour.points, rows, columns) & ~on
        shared = inside & interior
        nested = not shared.any() or bool((inside <= (interior | outline)).all())
        interior = interior ^ inside if nested or contour.is_xor else interior | inside
        outline |= on
    return interior | outline


def _area(points: Points) -> float:
    i, j = points.T
    return float(abs(i @ np.roll(j, -1) - j @ np.roll(i, -1))) / 2


def _enclosed(points: Points, rows: int, columns: int) -> Plane:
    """Find the pixels inside a polygon by the even-odd rule."""
    mask = np.zeros((rows, columns), np.bool_)
    first = np.clip(np.floor(points.min(0)), 0, [columns, rows]).astype(int)
    last = np.clip(np.ceil(points.max(0)) + 1, 0, [columns, rows]).astype(int)
    if len(points) < 3 or (last <= first).any():
        return mask
    j, i = np.mgrid[first[1] : last[1], first[0] : last[0]]
    closed = Polygon(np.vstack([points, points[:1]]), closed=True)
    mask[first[1] : last[1], first[0] : last[0]] = closed.contains_points(np.column_stack([i.flat, j.flat])).reshape(
        i.shape
    )
    return mask


def _on_lines(points: Points, rows: int, columns: int) -> Plane:
    """Find the pixels whose centres lie on the polygon's lines."""
    mask = np.zeros((rows, columns), np.bool_)
    for view, corners in ((mask, points), (mask.T, points[:, ::-1])):  # along rows, then along columns
        across, along = _crossings(corners)
        whole = np.rint(across)
        there = np.abs(across - whole) <= ON_LINE
        there &= (along >= 0) & (along < view.shape[0]) & (whole >= 0) & (whole < view.shape[1])
        view[along[there], whole[there].astype(int)] = True
    return mask


def _crossings(points: Points) -> tuple[Points, npt.NDArray[np.int64]]:
    """Find where a closed polygon's lines cross rows, or end on them: columns and rows."""
    start, end = points, np.roll(points, -1, axis=0)
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = np.ceil(low - ON_LINE).astype(np.int64), np.floor(high + ON_LINE).astype(np.int64)
    count = last - first + 1
    line = np.repeat(np.arange(len(points)), count)
    row = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count) + first[line]
    length = (end - start)[line, 1]
    share = np.divide(row - start[line, 1], length, out=np.zeros(len(line)), where=length != 0)
    return start[line, 0] + np.clip(share, 0, 1) * (end - start)[line, 0], row
