"""Where an image shows the body: the voxels in which errors count."""

import math

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import binary_closing, binary_fill_holes, binary_opening

__all__ = ["foreground"]

WORKING_MM = 4.0
NARROW, WIDE = 256, 1024
"""Ranges of values: below the first ITK's search for the threshold fails or errs; the second suits it."""
BRIGHTEST = 99.5
"""Percentile above which values count as this one: one bright vessel must not move the threshold."""


def foreground(values: npt.NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.bool_]:
    """Find the body: what is brighter than air by Huang's threshold, closed, with its holes filled.

    Args:
        values: of an image, ``[k, j, i]``.
        spacing_mm: between columns, rows and slices (i, j, k).

    Returns:
        A mask ``[k, j, i]``; everything where nothing stands out.
    """
    steps = tuple(max(1, round(WORKING_MM / spacing)) for spacing in spacing_mm[::-1])
    coarse = values[tuple(slice(None, None, step) for step in steps)]
    low, high = np.percentile(coarse, (0.5, BRIGHTEST))
    if not high > low:
        return np.ones(values.shape, np.bool_)
    image = sitk.GetImageFromArray(np.clip(coarse, low, high) * _stretch(float(high - low)))
    mask = sitk.GetArrayFromImage(sitk.HuangThreshold(image, 0, 1)).astype(np.bool_)
    mask = binary_opening(np.pad(mask, 2))
    mask = binary_fill_holes(binary_closing(mask, iterations=2))[2:-2, 2:-2, 2:-2]
    if not mask.any():
        return np.ones(values.shape, np.bool_)
    index = [
        np.minimum((np.arange(n) + step // 2) // step, m - 1) for n, step, m in zip(values.shape, steps, mask.shape)
    ]
    return np.asarray(mask[np.ix_(*index)])


def _stretch(width: float) -> float:
    """Choose the power of two, which rounds nothing, that makes a narrow range of values a wide one."""
    power = 0 if width >= NARROW else min(int(np.ceil(np.log2(WIDE / width))), 126)
    return math.ldexp(1.0, power)
