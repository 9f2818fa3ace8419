"""Where left, front and top are in an array without a header that says so: its label map knows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from bundle.recipes.recipe import Array, Matrix

__all__ = ["affine_from_labels"]

Landmarks = tuple[Sequence[int], Sequence[int]]


def affine_from_labels(
    label: Array, spacing_mm: npt.ArrayLike, to_right: Landmarks, to_front: Landmarks, to_top: Landmarks
) -> Matrix:
    """Orient an array by the centres of regions that lie apart in a known direction.

    Args:
        label: (H, W, L).
        spacing_mm: distance between neighbours along each array axis.
        to_right: labels on the left of the body, labels on its right.
        to_front: labels further back, labels further front.
        to_top: labels further down, labels further up.

    Returns:
        Index to mm, RAS, 4×4; the middle of the array lies at the origin.

    Raises:
        ValueError: no 3-D array, a region is missing, or the regions do not lie along three axes.
    """
    if label.ndim != 3:
        raise ValueError(f"The label map has {label.ndim} axes, not 3.")
    steps = np.array([_centre(label, end) - _centre(label, start) for start, end in (to_right, to_front, to_top)])
    steps *= np.asarray(spacing_mm)
    axes = np.abs(steps).argmax(1)
    if not np.isfinite(steps).all() or len(set(axes)) < 3:
        raise ValueError("The label map does not tell left from right, back from front and bottom from top.")
    affine = np.eye(4)
    affine[:3, :3] = 0
    for row, axis in enumerate(axes):
        affine[row, axis] = np.sign(steps[row, axis]) * np.asarray(spacing_mm)[axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(label.shape) - 1) / 2)
    return affine


def _centre(label: Array, regions: Sequence[int]) -> Matrix:
    """Mean index of the voxels of some regions; NaN where there are none."""
    indices = np.nonzero(np.isin(label, regions))
    return np.array([axis.mean() if len(axis) else np.nan for axis in indices])
