"""Intensities: the range that an image really uses, what lies beyond it, its foreground, and what to fill with."""

from collections.abc import Sequence
from typing import Any

import torch

__all__ = [
    "PERCENTILES",
    "above_air",
    "clip_outliers",
    "fill_value",
    "foreground",
    "intensity_range",
    "percentile_range",
    "quantiles",
    "scale_between",
    "shows_nothing",
]

PERCENTILES = (0.5, 99.5)
"""Of the intensities that the network sees from 0 to 1, and that pictures show from black to white."""

SHARE = 0.001
"""Of the voxels, at each end, that do not count for the range."""

FEWEST = 3  # voxels that do not count, of a small image
SAMPLES = 2**20
MOST = 2**24  # values that torch.quantile takes
BINS = 256  # of the histogram that a foreground is found by
SPECKS = 0.0005  # of the foreground
SMALL = 0.1  # of the image: a region that may be all of the foreground without being all that the image shows
PLATEAU = 1e-12  # rounding


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


def above_air(image: torch.Tensor) -> torch.Tensor:
    """Count intensities from the darkest one, outliers clipped: what is blank, and beyond the border, is 0 then.

    Args:
        image: any shape, floating-point, finite.

    Returns:
        The same, 0 where the image is darkest: nothing that is 0 is brighter than the air of a CT.
    """
    clipped = clip_outliers(image)
    return clipped - clipped.min()


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


def shows_nothing(image: torch.Tensor, ignored: torch.Tensor | None = None) -> bool:
    """Tell whether an image has nothing but background where it counts.

    Args:
        image: (1, H, W, L).
        ignored: same shape, bool: where it does not count; None for nowhere.

    Returns:
        True where one value alone is left; and where no more than specks of the foreground are, unless what does not
        count is small: the foreground may be that alone where it is far brighter than all else (a bladder in PET).
    """
    if ignored is None or not ignored.any():
        return bool(image.min() == image.max())
    left = image[~ignored]
    if not len(left) or left.min() == left.max():
        return True
    shown = foreground(image[0])
    lost = (shown & ~ignored[0]).sum() <= SPECKS * shown.sum()
    return bool(lost and ignored.double().mean() >= SMALL)


def foreground(image: torch.Tensor) -> torch.Tensor:
    """Find where an image shows something: above Otsu's threshold, halved, since dark tissue is tissue too.

    Args:
        image: (H, W, L), any range.

    Returns:
        Boolean, same shape; nothing in a constant image.

    Source:
        Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 9 (1979).
    """
    low, high = float(image.min()), float(image.max())
    if not high > low:
        return torch.zeros_like(image, dtype=torch.bool)
    counts = torch.histc(image.float(), BINS, low, high).double()
    centres = low + (torch.arange(BINS, dtype=torch.float64, device=image.device) + 0.5) * (high - low) / BINS
    below, sums = counts.cumsum(0), (counts * centres).cumsum(0)
    above = below[-1] - below
    between = (sums / below.clamp(min=1) - (sums[-1] - sums) / above.clamp(min=1)) ** 2 * below * above
    best = between >= between.max() * (1 - PLATEAU)  # where no voxel lies, all thresholds are as good
    threshold = float(centres[best].mean())
    return image > low + (threshold - low) / 2


def quantiles(values: torch.Tensor, shares: Sequence[float]) -> list[float]:
    """Find quantiles of any number of values: of more than ``torch.quantile`` takes, every so many-th counts.

    Args:
        values: (n,), floating-point, at least one.
        shares: from 0 to 1.
    """
    some = values[:: max(1, -(-len(values) // MOST))]
    return [float(value) for value in torch.quantile(some, torch.tensor(shares, dtype=some.dtype, device=some.device))]


def percentile_range(image: Any) -> tuple[float, float]:
    """Find the ``PERCENTILES`` of an image; where both are the background, they are widened by those of all else.

    That is where fewer voxels than lie beyond a percentile show something: vessels, a tracer, a small image in a large
    grid. What they show would be black and white alone.

    Args:
        image: a tensor or an array of any shape, at least one voxel.
    """
    from monai.transforms.utils_pytorch_numpy_unification import percentile  # here, so that the rest needs torch alone

    low, high = (float(value) for value in percentile(image, PERCENTILES))
    if low == high and (image != low).any():
        ends = percentile(image[image != low], PERCENTILES)
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return low, high


def scale_between(image: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Bring intensities to [0, 1] in place, since new memory takes longer than the sums; cut off what lies beyond.

    Args:
        image: any shape, floating-point.
        low: what becomes 0.
        high: what becomes 1; where it is not above ``low``, intensities count from that one.
    """
    image.sub_(low)
    return (image.div_(high - low) if high > low else image).clamp_(0, 1)
