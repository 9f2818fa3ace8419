"""How alike two images are, and how alike their contrasts."""

import torch
import torch.nn.functional as F
from bundle.correlation import local_ncc
from bundle.inpainting import dilate
from bundle.smoothing import smooth

__all__ = ["contrast_correlation", "foreground_overlap", "mutual_information", "similarity"]

WINDOW = 9  # voxels, as in the loss
COARSE = 3  # voxels of a side that are averaged first: what the alignment leaves matters less then
SHOWN = 0.05  # intensity above which an image shows something
BINS = 32  # of an image's intensities, for their mutual information
SHADING_SIGMAS = 3.0, 8.0  # coarse voxels: a receive coil's shading is smoother, anatomy finer


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


def _without_shading(image: torch.Tensor, shown: torch.Tensor, sigma: float) -> torch.Tensor:
    """Divide an image, (1, 1, H, W, L), by the mean around each voxel of what is shown."""
    weight = shown.float()
    mean = smooth(image * weight, sigma) / smooth(weight, sigma).clamp(min=1e-3)
    return image / mean.clamp(min=1e-3)


def _pearson(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = (one.square().sum() * other.square().sum()).sqrt()
    return float((one * other).sum() / scale) if scale > 0 else 0.0
