"""What a scanner adds to an image: partial volumes, thick slices, a bias field, noise, and the display's curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from bundle.intensity import PERCENTILES, quantiles
from bundle.spatial.resampling import FWHM

__all__ = ["Acquisition", "blur", "draw_acquisition", "smooth_noise"]

SAMPLES = 20_000  # voxels that percentiles are taken from


@dataclass(frozen=True)
class Acquisition:
    """One simulated scan.

    Args:
        blur: standard deviation of the partial-volume blur, voxels; 0 for none.
        slice_axis: array axis that the slices are stacked along.
        slice_factor: their thickness in voxels; 1 leaves the resolution as it is.
        bias: standard deviation of the logarithm of the bias field.
        noise: standard deviation of the noise of either channel, where the brightest tissue is about 1.
        gamma: exponent of the intensities.
    """

    blur: float = 0.0
    slice_axis: int = 0
    slice_factor: float = 1.0
    bias: float = 0.0
    noise: float = 0.0
    gamma: float = 1.0

    def __call__(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Scan an image, (1, H, W, L) from 0 up; returned in [0, 1], what was exactly 0 (no tissue, masked) still 0."""
        blank = image == 0
        image = thick_slices(blur(image, self.blur), self.slice_axis, self.slice_factor)
        if self.bias > 0:
            image = image * smooth_noise(image.shape[1:], 4, generator).mul_(self.bias).exp_()
        if self.noise > 0:  # Rician: the magnitude of two noisy channels
            real, imaginary = (torch.randn(image.shape, generator=generator) * self.noise for _ in range(2))
            image = real.add_(image).square_().addcmul_(imaginary, imaginary).sqrt_()
        return scale(image.masked_fill(blank, 0.0)).pow_(self.gamma)


def draw_acquisition(state: np.random.RandomState, least_blur: float = 0.0) -> Acquisition:
    """Draw a scan at random; ``least_blur`` in voxels."""
    thick = state.rand() < 0.35
    return Acquisition(
        blur=least_blur + state.uniform(0, 0.5),
        slice_axis=int(state.randint(3)),
        slice_factor=state.uniform(1.5, 3.0) if thick else 1.0,
        bias=state.uniform(0, 0.3) if state.rand() < 0.6 else 0.0,
        noise=state.uniform(0, 0.05) if state.rand() < 0.8 else 0.0,
        gamma=float(np.exp(state.normal(0, 0.2))),
    )


def blur(image: torch.Tensor, sigma: float, axes: Sequence[int] = (0, 1, 2)) -> torch.Tensor:
    """Smooth (C, H, W, L) by a Gaussian of ``sigma`` voxels along array axes, border values repeated."""
    if sigma < 0.1:  # the neighbours would weigh less than 1e-20
        return image
    radius = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for dim in (axis + 1 for axis in axes):
        pad = [0] * 6
        pad[6 - 2 * dim] = pad[7 - 2 * dim] = radius
        padded, n = F.pad(image[None], pad, mode="replicate")[0], image.shape[dim]
        image = kernel[radius] * padded.narrow(dim, radius, n)
        for step in range(radius):  # additions of shifted images: many times the speed of a convolution on a CPU
            image.add_(padded.narrow(dim, step, n), alpha=float(kernel[step]))
            image.add_(padded.narrow(dim, 2 * radius - step, n), alpha=float(kernel[step]))
    return image


def thick_slices(image: torch.Tensor, axis: int, factor: float) -> torch.Tensor:
    """Average (1, H, W, L) into slices ``factor`` voxels thick, and interpolate between their middles.

    The slice profile is a Gaussian whose full width at half maximum is the thickness. Averaging by
    ``F.interpolate(mode="area")`` would shift structures by up to a third of a voxel where the factor is no whole one.
    """
    if factor <= 1:
        return image
    size = list(image.shape[1:])
    coarse = list(size)
    coarse[axis] = max(2, round(size[axis] / factor))
    profile = blur(image, size[axis] / coarse[axis] / FWHM, [axis])
    slices = F.interpolate(profile[None], coarse, mode="trilinear", align_corners=False)
    return F.interpolate(slices, size, mode="trilinear", align_corners=False)[0]


def smooth_noise(
    size: tuple[int, ...] | torch.Size, points: int, generator: torch.Generator, channels: int = 1
) -> torch.Tensor:
    """Draw a smooth random volume: normal noise on ``points`` per axis, interpolated to ``channels`` of ``size``."""
    coarse = torch.randn(1, channels, points, points, points, generator=generator)
    fine: torch.Tensor = F.interpolate(coarse, tuple(size), mode="trilinear", align_corners=True)[0]
    return fine


def scale(image: torch.Tensor) -> torch.Tensor:
    """Bring the 0.5th to 99.5th percentile to [0, 1] and cut off what lies beyond, as the network's input is scaled.

    Other than there, the percentiles are those of ``SAMPLES`` voxels, up to twice as many, evenly spread.
    """
    low, high = quantiles(image.flatten()[:: max(1, image.numel() // SAMPLES)], [p / 100 for p in PERCENTILES])
    return ((image - low) / max(high - low, 1e-6)).clamp_(0, 1)
