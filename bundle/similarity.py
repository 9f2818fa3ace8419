"""How alike two images are, and how alike their contrasts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from bundle.correlation import local_ncc
from bundle.inpainting import dilate
from bundle.smoothing import halve, restore, smooth

__all__ = [
    "contrast_correlation",
    "foreground_overlap",
    "is_misled",
    "likeness",
    "mutual_information",
    "similarity",
    "tissue_correlation",
]

ALIKE_FROM = 0.9
"""``contrast_correlation`` from which two scans of one person look alike, where weights name no other."""

LEAST_OVERLAP = 0.75
"""Of that by the headers that an alignment keeps, where ``similarity`` calls it worse. Of synthetic heads, and slabs of
them, right ones kept 0.86 or more, wrong ones 0.66 or less."""

WINDOW = 9  # voxels, as in the loss
COARSE = 3  # voxels of a side that are averaged first: what the alignment leaves matters less then
SHOWN = 0.05  # intensity above which an image shows something
BINS = 32  # of an image's intensities, for their mutual information
SHADING_SIGMAS = 3.0, 8.0  # coarse voxels: a receive coil's shading is smoother, anatomy finer

# of the tissues' correlation, in voxels of the halved images where it is a length
DEEP = 0.9  # share of the cube around a voxel that shows something, deep in a body
DARKEST = 0.8  # of the mean brightness around: fluid is darker in T1 and FLAIR
FEWEST = 50  # voxels that tell an order of tissues


class _Scale(NamedTuple):
    """How far around a voxel its brightness is compared.

    Args:
        surroundings: width of the Gaussian of the mean brightness around it.
        depth: side of the cube around it that tells whether it lies deep.
        brightest: of that mean: fat and vessels are brighter.
    """

    surroundings: float
    depth: int
    brightest: float


SCALES = _Scale(9.0, 15, 2.0), _Scale(4.0, 11, 1.3)  # the second where shading is steeper than the tissues differ


def similarity(warped: torch.Tensor, fixed: torch.Tensor, ignored: torch.Tensor | None = None) -> float:
    """Measure how alike two images are: the mean of ``local_ncc``, from 0 to 1, whatever their intensity scales.

    Args:
        warped: (1, H, W, L).
        fixed: same shape, in [0, 1].
        ignored: same shape, bool: voxels that do not count, nor do those whose window they lie in; None for none.
    """
    low, high = warped.aminmax()
    alike = local_ncc((warped - low).div_((high - low).clamp(min=1e-12))[None], fixed[None], WINDOW)
    if ignored is not None:
        alike = alike[~dilate(ignored[None], WINDOW // 2)]
    return float(alike.mean())


def mutual_information(warped: torch.Tensor, fixed: torch.Tensor, ignored: torch.Tensor | None = None) -> float:
    """Measure what one image tells of the other as a whole, whatever their contrasts and however far they are apart.

    ``similarity`` compares windows: of images that are farther apart than one, it says little. Where they hardly
    overlap this measure is high again, since each tells where the other one is not: ``foreground_overlap`` says so.

    Args:
        warped: (1, H, W, L), in [0, 1].
        fixed: same shape.
        ignored: same shape, bool: voxels that do not count; None for none.

    Returns:
        (H(warped) + H(fixed)) / H(warped, fixed), from 1, where neither tells anything, to 2; over the voxels where
        either image shows something.

    Source:
        Studholme, Hill, Hawkes, An overlap invariant entropy measure of 3D medical image alignment, 1999.
    """
    counts = (warped > SHOWN) | (fixed > SHOWN)
    counts = counts if ignored is None else counts & ~ignored
    rows, columns = ((image[counts].clamp(0, 1) * (BINS - 1)).round().long() for image in (warped, fixed))
    if not len(rows):
        return 1.0
    joint = torch.bincount(rows * BINS + columns, minlength=BINS**2).double().view(BINS, BINS) / len(rows)
    both, one, other = (-torch.xlogy(p, p).sum() for p in (joint, joint.sum(0), joint.sum(1)))
    return float((one + other) / both) if both > 0 else 1.0


def foreground_overlap(warped: torch.Tensor, fixed: torch.Tensor, ignored: torch.Tensor | None = None) -> float:
    """Measure how far what two images show lies over each other, whatever they show: the Dice overlap, from 0 to 1.

    Args:
        warped: (1, H, W, L), in [0, 1].
        fixed: same shape.
        ignored: same shape, bool: voxels that do not count; None for none.

    Returns:
        Dice of the voxels where each image shows something; 1 where neither does.
    """
    one, other = ((image > SHOWN) & (True if ignored is None else ~ignored) for image in (warped, fixed))
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def is_misled(
    by_headers: Sequence[torch.Tensor], aligned: Sequence[torch.Tensor], ignored: torch.Tensor | None = None
) -> bool:
    """Tell whether an alignment that lowers the ``similarity`` of two images is wrong.

    It may be right: windows tell little of images that are far apart by their headers.

    Args:
        by_headers: moving and fixed image by their headers, (1, H, W, L) each, in [0, 1].
        aligned: both as the alignment lays them, same shapes.
        ignored: same shape, bool: voxels that do not count; None for none.

    Returns:
        Whether their ``mutual_information`` is lower, too, or less than ``LEAST_OVERLAP`` is left of their overlap.
    """
    told = [mutual_information(one, other, ignored) for one, other in (by_headers, aligned)]
    overlap = [foreground_overlap(one, other, ignored) for one, other in (by_headers, aligned)]
    return told[1] < told[0] or overlap[1] < LEAST_OVERLAP * overlap[0]


def contrast_correlation(moving: torch.Tensor, fixed: torch.Tensor) -> float:
    """Correlate the intensities of two aligned images where both show something, from −1 to 1.

    Near 1 for one contrast. Unlike ``similarity`` it is low wherever dark and bright tissues have changed places.
    Shading is divided out first, at two scales, and the higher correlation counts: of two people what is large
    corresponds, of one person what is small does, whatever the shading.

    Args:
        moving: (1, H, W, L), in [0, 1], aligned.
        fixed: same shape.

    Returns:
        Pearson's correlation; 0 where nothing is shown by both, or one of them is flat.
    """
    size = [min(COARSE, n) for n in moving.shape[1:]]
    one, other = (F.avg_pool3d(image[None].float(), size) for image in (moving, fixed))
    shown = (one > SHOWN) & (other > SHOWN)
    if shown.sum() < 2:
        return 0.0
    return max(
        _pearson(*(_without_shading(image, shown, sigma)[shown].double() for image in (one, other)))
        for sigma in SHADING_SIGMAS
    )


def tissue_correlation(moving: torch.Tensor, fixed: torch.Tensor) -> float:
    """Correlate the order of brightness of the tissues in two aligned images, from −1 to 1.

    Two T1 images of a head, by whatever scanners, or two FLAIR images, have white and gray matter in one order; a T1
    and a FLAIR image have not. Air, skin, bone, fat and fluid are dark or bright in all of them, and most of what
    ``contrast_correlation`` sees: they are left out here. What counts lies deep in both images, and neither is much
    darker nor brighter there than around, where the surroundings are what counts alone. They are wide, and narrower
    against steep shading: the higher correlation counts, since shading lowers it.

    Args:
        moving: (1, H, W, L), in [0, 1], aligned; voxels of 1 to 2 mm.
        fixed: same shape.

    Returns:
        Spearman's rank correlation; 0 where too few voxels are left to tell.

    Source:
        This project; docs/accuracy.md tells how well it tells contrasts.
    """
    pair = [halve(image[None].float()) for image in (moving, fixed)]
    shown = ((pair[0] > SHOWN) & (pair[1] > SHOWN)).float()
    found = [_tissue_correlation(pair, shown, scale) for scale in SCALES]
    return max((value for value in found if value is not None), default=0.0)


def likeness(moving: torch.Tensor, fixed: torch.Tensor) -> dict[str, float]:
    """Measure what tells which weights suit two aligned images, (1, H, W, L): both correlations, by their names."""
    return {measure.__name__: measure(moving, fixed) for measure in (contrast_correlation, tissue_correlation)}


def _tissue_correlation(pair: list[torch.Tensor], shown: torch.Tensor, scale: _Scale) -> float | None:
    """Rank and correlate at one scale; None where too few voxels are left to tell."""
    deep = _box_mean(shown, scale.depth) > DEEP
    counts = deep
    for _ in range(4):  # the surroundings are those of what counts
        level = [image / _around(image, counts.float(), scale.surroundings).clamp(min=1e-3) for image in pair]
        counts = deep & (level[0] > DARKEST) & (level[1] > DARKEST)
    counts &= (level[0] < scale.brightest) & (level[1] < scale.brightest)
    counts = -F.max_pool3d(-counts.float(), 3, stride=1, padding=1) > 0  # no border of two tissues
    if counts.sum() < FEWEST:
        return None
    return _pearson(*(image[counts].argsort().argsort().double() for image in level))


def _box_mean(image: torch.Tensor, side: int) -> torch.Tensor:
    """Average (1, 1, H, W, L) over the cube around each voxel, as far as there are voxels."""
    for dim in range(3):
        reach = min(side, image.shape[2 + dim] - 1 | 1)  # odd, and no longer than the image
        kernel = [reach if axis == dim else 1 for axis in range(3)]
        image = F.avg_pool3d(image, kernel, 1, [n // 2 for n in kernel], count_include_pad=False)
    return image


def _around(image: torch.Tensor, weight: torch.Tensor, sigma: float) -> torch.Tensor:
    """Average (1, 1, H, W, L), weighted, around each voxel: at a resolution where ``sigma`` is a few voxels."""
    both, sides = torch.cat([image * weight, weight], 1), []
    while sigma > 3:
        sides.append(both.shape[2:])
        both, sigma = halve(both), sigma / 2
    mean, share = smooth(both, sigma).split(1, 1)
    mean = mean / share.clamp(min=1e-3)
    for size in reversed(sides):
        mean = restore(mean, size)
    return mean


def _without_shading(image: torch.Tensor, shown: torch.Tensor, sigma: float) -> torch.Tensor:
    """Divide an image, (1, 1, H, W, L), by the mean around each voxel of what is shown."""
    weight = shown.float()
    mean = smooth(image * weight, sigma) / smooth(weight, sigma).clamp(min=1e-3)
    return image / mean.clamp(min=1e-3)


def _pearson(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = (one.square().sum() * other.square().sum()).sqrt()
    return float((one * other).sum() / scale) if scale > 0 else 0.0
