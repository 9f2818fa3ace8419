"""What changed between two like scans of one person: the likeliest displacement, given noise and elastic tissue."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from bundle.fields import warp
from bundle.options import check_numbers
from bundle.progress import Progress
from bundle.shapes import DDF, Volume
from bundle.similarity import SHOWN
from bundle.smoothing import halve, restore, smooth, voxel_ratio

__all__ = ["ElasticRefiner"]

# of the images compared
_SHADING = 4.0  # voxels, width of the mean brightness around a voxel that its own is divided by
_BRIGHTEST = 3.0  # times that mean: fat and vessels are no better a measure
_OUTLIER = 3.0  # standard deviations of the noise from which a difference counts less
_RELATED = 3.0  # voxels whose noise is one another's, interpolated as they are
_BLURS = 2  # times that the sharper image is blurred: the second time by what the first one left
_ALIKE = 0.2  # voxels: a blur by less is none
_EVEN = 1e-3  # of the squared curvature: images without any tell nothing

# of the displacement
_START = 0.1  # voxels, by which the prior's own field may miss the one to begin with
_SOLVING = 8  # steps of conjugate gradients for each linearisation


class ElasticRefiner:
    """Refine a field between two scans of one person in one contrast by the differences of their intensities.

    A network that is to be wrong by as little as possible on average finds a part of a change alone. Here the
    displacement u is the one that makes exp(−(Σ r² / σ² + |v|²) / 2) largest (maximum a posteriori, by Gauss-Newton
    steps): r are the differences between the warped moving and the fixed image, each divided by its mean brightness
    nearby so that the shading of a receive coil makes none, and the sharper one blurred; σ is their noise, and u is
    drawn from white noise v of unit variance by two smooth parts. Where a part of an elastic body grows or shrinks, it
    and all around it is displaced along the gradient of a potential (Goodier's thermoelastic potential), so that this
    is the larger part; the other one, of any direction, is wider and smaller.

    Args:
        iterations: linearisations.
        growth: standard deviation along each axis of the part that has a potential, voxels.
        growth_width: width of the Gaussian that makes the potential smooth, voxels.
        other: standard deviation of the other part, voxels.
        other_width: width of its Gaussian, voxels.

    Raises:
        ValueError: less than one iteration or a broken number, or a width or deviation that is not above 0.

    Source:
        This project; not part of the paper. Goodier, On the integration of the thermo-elastic equations, 1937.
        docs/accuracy.md tells what it changes.
    """

    def __init__(
        self,
        iterations: int = 5,
        growth: float = 2.0,
        growth_width: float = 4.0,
        other: float = 0.5,
        other_width: float = 6.0,
    ) -> None:
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"The number of linearisations is a whole number from 1 up, not {iterations}.")
        lengths = {"growth": growth, "growth_width": growth_width, "other": other, "other_width": other_width}
        check_numbers(**lengths)
        for name, value in lengths.items():
            if value <= 0:
                raise ValueError(f"{name} is a number of voxels above 0, not {value}.")
        self.iterations, self.prior = iterations, _Prior(**lengths)

    @torch.no_grad()
    def __call__(self, image: torch.Tensor, ddf: DDF) -> DDF:
        """Refine the field of a pair.

        Args:
            image: (1, 2, H, W, L), moving and fixed in [0, 1].
            ddf: (1, 3, H, W, L), voxels.

        Returns:
            (1, 3, H, W, L), voxels; ``ddf`` itself where the images show nothing in common.
        """
        with torch.autocast(image.device.type, enabled=False):
            moving, fixed = image.float().split(1, 1)
            return self._refine(moving, fixed, ddf.float())

    def _refine(self, moving: Volume, fixed: Volume, start: DDF) -> DDF:
        prior, sides = self.prior, start.shape[2:]
        shown = ((warp(moving, start) > SHOWN) & (fixed > SHOWN)).float()
        counts = (smooth(shown, 1.0) > 0.5).float()
        if not counts.any():
            return start
        moving, fixed = _equally_sharp(_without_shading(moving), _without_shading(fixed), start, counts)
        noise = _variance((warp(moving, start) - fixed)[counts > 0])
        latent = self._latent(halve(start))
        for _ in Progress(range(self.iterations), title="refining", leave=False):
            warped = warp(moving, restore(prior.draw(latent), sides))
            difference = warped - fixed
            weight = counts / (_RELATED * noise) / (1 + difference.square() / (_OUTLIER**2 * noise))
            slope = _gradient((warped + fixed) / 2, "replicate")
            normal = _NormalMatrix(weight, slope)
            downhill = -(prior.transposed(_sum(weight * difference * slope)) + latent)
            latent = latent + self._solve(normal, downhill)
        return restore(prior.draw(latent), sides)

    def _latent(self, halved: DDF) -> torch.Tensor:
        """Find the noise, (1, 4, h, w, l), whose displacement comes near a given one."""
        return self._solve(lambda field: field / _START**2, self.prior.transposed(halved / _START**2))

    def _solve(self, normal: Callable[[DDF], DDF], right: torch.Tensor) -> torch.Tensor:
        """Solve (Kᵀ N K + 1) x = right by conjugate gradients, K drawing from the prior and N the normal matrix."""
        found, residual = torch.zeros_like(right), right
        direction, square = residual, residual.square().sum()
        for _ in range(_SOLVING):
            if square == 0:
                break
            image = self.prior.transposed(normal(self.prior.draw(direction))) + direction
            step = square / (direction * image).sum()
            found, residual = found + step * direction, residual - step * image
            before, square = square, residual.square().sum()
            direction = residual + square / before * direction
        return found


class _Prior:
    """Smooth displacements, drawn from white noise of unit variance on the halved grid."""

    def __init__(self, growth: float, growth_width: float, other: float, other_width: float) -> None:
        self.growth_width, self.other_width = growth_width / 2, other_width / 2
        # white noise smoothed by a Gaussian has the variance (4 π s²)^(-3/2), its slope that over 2 s²
        self.growth = growth * _amplitude(self.growth_width) * math.sqrt(2) * self.growth_width
        self.other = other * _amplitude(self.other_width)

    def draw(self, latent: torch.Tensor) -> DDF:
        """From noise, (1, 4, h, w, l), to a displacement, (1, 3, h, w, l), voxels of the whole grid."""
        potential = smooth(latent[:, 3:], self.growth_width)
        return self.growth * _gradient(potential) + self.other * smooth(latent[:, :3], self.other_width)

    def transposed(self, field: DDF) -> torch.Tensor:
        """``draw``, transposed: (1, 3, h, w, l) to (1, 4, h, w, l)."""
        potential = smooth(-_divergence(field), self.growth_width)
        return torch.cat([self.other * smooth(field, self.other_width), self.growth * potential], 1)


class _NormalMatrix:
    """Σ weight · slope slopeᵀ over the voxels of each halved one, in which the displacement hardly differs."""

    def __init__(self, weight: Volume, slope: torch.Tensor) -> None:
        self.rows = [_sum(weight * slope[:, axis : axis + 1] * slope) for axis in range(3)]

    def __call__(self, field: DDF) -> DDF:
        return torch.cat([(row * field).sum(1, keepdim=True) for row in self.rows], 1)


def _amplitude(width: float) -> float:
    """What makes white noise of unit variance so again that was smoothed by a Gaussian."""
    return (2 * math.sqrt(math.pi) * width) ** 1.5


def _sum(volume: torch.Tensor) -> torch.Tensor:
    """Sum the voxels of each halved one."""
    return F.avg_pool3d(volume, voxel_ratio(volume.shape[2:]), ceil_mode=True, divisor_override=1)


def _neighbours(volume: torch.Tensor, axis: int, beyond: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What lies before and after each voxel along an axis; beyond the border as ``F.pad`` continues it."""
    padded = F.pad(volume, [int(axis == other) for other in (4, 4, 3, 3, 2, 2)], mode=beyond)
    return padded.narrow(axis, 0, volume.shape[axis]), padded.narrow(axis, 2, volume.shape[axis])


def _difference(volume: torch.Tensor, axis: int, beyond: str) -> torch.Tensor:
    before, after = _neighbours(volume, axis, beyond)
    return (after - before) / 2


def _gradient(volume: Volume, beyond: str = "constant") -> torch.Tensor:
    """Central differences of (1, 1, h, w, l): (1, 3, h, w, l)."""
    return torch.cat([_difference(volume, axis, beyond) for axis in (2, 3, 4)], 1)


def _divergence(field: DDF) -> Volume:
    """Likewise of (1, 3, h, w, l), 0 beyond the border; minus its transpose is ``_gradient``."""
    along = [_difference(part, axis, "constant") for axis, part in enumerate(field.split(1, 1), 2)]
    return along[0] + along[1] + along[2]


def _second_differences(volume: Volume) -> torch.Tensor:
    """Along each axis, the outermost value going on: (1, 1, h, w, l) to (1, 3, h, w, l)."""
    pairs = [_neighbours(volume, axis, "replicate") for axis in (2, 3, 4)]
    return torch.cat([before + after - 2 * volume for before, after in pairs], 1)


def _without_shading(image: Volume) -> Volume:
    """Divide an image by its mean brightness nearby, of what shows something."""
    shown = (image > SHOWN).to(image.dtype)
    level, share = (smooth(halve(part), _SHADING / 2) for part in (image * shown, shown))
    return (image / restore(level / share.clamp(min=1e-3), image.shape[2:]).clamp(min=SHOWN)).clamp(max=_BRIGHTEST)


def _equally_sharp(moving: Volume, fixed: Volume, ddf: DDF, counts: Volume) -> tuple[Volume, Volume]:
    """Blur along each axis whichever image is the sharper one, so that edges differ by where they are alone.

    A blur by σ adds σ²/2 times the second derivative: as much of that as the images differ by is how far their σ²
    are apart. Noise says nothing of it, where both images have as much.
    """
    for _ in range(_BLURS):
        warped = warp(moving, ddf)
        curvature = (_second_differences((warped + fixed) / 2) * counts)[0].flatten(1)
        normal = curvature @ curvature.T + _EVEN * torch.eye(3, device=ddf.device)
        found = torch.linalg.solve(normal, curvature @ ((fixed - warped) * counts).flatten()).tolist()
        for axis, part in enumerate(found, 2):
            width = math.sqrt(2 * abs(part))
            if width < _ALIKE:
                continue
            if part > 0:
                moving = smooth(moving, width, [axis])
            else:
                fixed = smooth(fixed, width, [axis])
    return moving, fixed


def _variance(differences: torch.Tensor) -> torch.Tensor:
    """The variance of the noise, whatever a few differences are."""
    deviation = 1.4826 * (differences - differences.median()).abs().median()
    return deviation.square().clamp(min=1e-8)
