"""Intensities: the range that an image really uses, what lies beyond it, and what to fill with where an image ends."""

import torch

__all__ = ["clip_outliers", "fill_value", "intensity_range"]

SHARE = 0.001
"""Of the voxels, at each end, that do not count for the range."""

FEWEST = 3  # voxels that do not count, of a small image
SAMPLES = 2**20


def intensity_range(image: torch.Tensor) -> tuple[float, float]:
    """Find the lowest and the highest intensity of an image, but for outliers.

    An outlier is further beyond the range of all but a thousandth of the voxels at each end than that range is wide:
    the hot voxel of a detector, the −32768 that marks what is missing. A value that most voxels share is background:
    within the range, and not counted.

    Args:
        image: any shape, finite.

    Returns:
        The minimum and maximum of the image, or where outliers lie beyond, the ends of the range of the others.
    """
    values = image.flatten()
    lowest, highest = float(values.min()), float(values.max())
    values = values[:: -(-len(values) // SAMPLES)].float()
    background = values.median()
    values = values[values != background]
    few = max(round(SHARE * len(values)), FEWEST)
    if len(values) <= 4 * few:
        return lowest, highest
    low = min(float(values.kthvalue(few + 1).values), float(background))
    high = max(float(values.kthvalue(len(values) - few).values), float(background))
    width = high - low
    if width <= 0:
        return lowest, highest
    return (lowest if lowest >= low - width else low), (highest if highest <= high + width else high)


def clip_outliers(image: torch.Tensor) -> torch.Tensor:
    """Bring outliers to the ends of ``intensity_range``; an image without any is returned as it is."""
    low, high = intensity_range(image)
    return image.clamp(low, high) if image.min() < low or image.max() > high else image


def fill_value(image: torch.Tensor, declared: float | None = None) -> float:
    """Choose what to write where nothing of an image is.

    Args:
        image: any shape, finite.
        declared: value that the image's own header declares as padding, if any.

    Returns:
        The declared padding; else the lowest intensity but for outliers where that is below 0, as the air of a CT; else
        0.
    """
    return declared if declared is not None else min(intensity_range(image)[0], 0.0)
