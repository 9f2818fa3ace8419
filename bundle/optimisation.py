"""Pairwise optimisation: refine the field of one pair by gradient steps on the field itself."""

import math
from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import torch
import torch.nn.functional as F
from bundle.fields import compose, jacobian_determinant, warp
from bundle.losses import ncc_loss, smoothness_loss
from bundle.mind import CHANNELS, mind_ssc
from bundle.progress import Progress
from bundle.shapes import DDF, Volume
from bundle.smoothing import halve, restore, smooth, voxel_ratio

__all__ = ["SIMILARITIES", "PairwiseOptimiser", "remove_folds"]

SIMILARITIES = ("ncc", "mind")

Box: TypeAlias = tuple[slice, ...]

TILE = 40  # voxels, side of the parts of a field in which folds are smoothed

_MOMENTUM, _MEMORY = 0.8, 0.95  # of the direction, and of the mean square that scales it
_LONGEST = 0.4  # voxels: a smooth step this short does not fold, nor do compositions of such steps
_SLOWEST = 1e-4  # a smaller gain of the cost counts as none
_DESCRIPTOR_WEIGHT = 2.0  # of the descriptors' distance beside the smoothness
_ATTEMPTS = 20  # to smooth folds away
_NEARBY = 1.0  # voxels, width of the Gaussian that smooths them
_REACH = 2 + math.ceil(3 * _NEARBY)  # voxels around a fold that it changes
_SHOWN = 0.02  # intensity above which the fixed image shows something


class PairwiseOptimiser:
    """Refine a network's field for one pair, as instance optimisation does, but keep it regular by construction.

    Each step is the gradient of the cost with respect to the field, smoothed by a Gaussian, limited in length and
    *composed* with the field. Momentum and one running scale for the whole field (not one a voxel, which blows up the
    noise of flat regions) set the pace. Folds that remain are smoothed away. The field with the least cost wins, so
    that the result is never worse than the start.

    The cost is equation 1 (``ncc``), whose squared correlation does not ask which tissue is the brighter one, or the
    distance of MIND-SSC descriptors plus the smoothness (``mind``), at half the resolution.

    Args:
        iterations: most steps; 0 returns the field as it is.
        alpha: weight of the smoothness, as in training.
        step: length of a step in voxels, root mean square over the field.
        sigma: width of the Gaussian in voxels; by default 1 with ``ncc`` and 1.5 with ``mind``.
        patience: steps without gain after which the optimisation ends early.
        similarity: ``ncc`` or ``mind``.

    Raises:
        ValueError: a negative or broken number of iterations, or another similarity.

    Source:
        Equation 1 of the paper; the composed, smoothed update is that of greedy diffeomorphic registration (Avants,
        2008); for the descriptors see ``mind_ssc``. Not part of the paper.
    """

    def __init__(
        self,
        iterations: int,
        alpha: float = 1.0,
        step: float = 0.3,
        sigma: float | None = None,
        patience: int = 3,
        similarity: str = "ncc",
    ) -> None:
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
            raise ValueError(f"The number of optimisation steps is a whole number from 0 up, not {iterations}.")
        if similarity not in SIMILARITIES:
            raise ValueError(f"The similarity is one of {', '.join(SIMILARITIES)}, not '{similarity}'.")
        self.iterations, self.alpha, self.step, self.patience = iterations, alpha, step, patience
        self.similarity, self.sigma = similarity, sigma

    @torch.no_grad()
    def __call__(self, image: torch.Tensor, ddf: DDF) -> DDF:
        """Refine the fields of a batch, each for itself.

        Args:
            image: (B, 2, H, W, L), moving and fixed in [0, 1].
            ddf: (B, 3, H, W, L), voxels.

        Returns:
            (B, 3, H, W, L), voxels.
        """
        if self.iterations == 0:
            return ddf
        with torch.autocast(image.device.type, enabled=False):
            pairs = zip(image.float().split(1), ddf.float().split(1))
            return torch.cat([self._refine(one[:, :1], one[:, 1:], start) for one, start in pairs])

    def _refine(self, moving: Volume, fixed: Volume, start: DDF) -> DDF:
        if self.similarity == "mind":
            return self._refine_halved(moving, fixed, start)
        cost = _Equation1(moving, fixed, self.alpha)
        found, cost_at_start = self._descend(cost, start)
        smoothed = remove_folds(found)
        return smoothed if smoothed is found or cost(smoothed)[0] <= cost_at_start else found

    def _refine_halved(self, moving: Volume, fixed: Volume, start: DDF) -> DDF:
        """Refine at half the resolution, where descriptors of whole patches are, and add what the steps changed."""
        sides = start.shape[2:]
        ratio = torch.tensor(voxel_ratio(sides), device=start.device).view(1, 3, 1, 1, 1)
        coarse = halve(start) / ratio
        found, _ = self._descend(_Descriptors(halve(moving), halve(fixed), self.alpha), coarse)
        return start if found is coarse else remove_folds(start + ratio * restore(found - coarse, sides))

    def _descend(self, cost: "_Equation1 | _Descriptors", ddf: DDF) -> tuple[DDF, float]:
        """Take the steps; the field with the least cost, and the cost of the start."""
        best, least, waited, first = ddf, float("inf"), 0, float("nan")
        direction, square = torch.zeros_like(ddf), 0.0
        steps = self.iterations
        sigma = cost.sigma if self.sigma is None else self.sigma
        for i in Progress(range(steps + 1), title="optimising", leave=False):
            value, gradient = cost(ddf)
            first = value if i == 0 else first
            waited = 0 if value < least - _SLOWEST else waited + 1
            if value < least:
                best, least = ddf, value
            if waited == self.patience or i == steps:
                break
            gradient = smooth(gradient, sigma)
            direction = _MOMENTUM * direction + (1 - _MOMENTUM) * gradient
            square = _MEMORY * square + (1 - _MEMORY) * float(gradient.square().sum(1).mean())
            scale = (square / (1 - _MEMORY ** (i + 1))) ** 0.5 * (1 - _MOMENTUM ** (i + 1))
            if scale == 0:
                break
            update = -self.step / scale * direction
            length = update.square().sum(1, keepdim=True).sqrt()  # as a norm it takes 60 times as long on a CPU
            ddf = compose(ddf, update * (_LONGEST / length.clamp(min=_LONGEST)))
        return best, first


class _Equation1:
    """Equation 1 of a field, and its gradient.

    The warped image's own gradient stands for the moving image's at the warped place: smoother, and what is right for
    a step that is composed.
    """

    sigma = 1.0

    def __init__(self, moving: Volume, fixed: Volume, alpha: float) -> None:
        self.moving, self.fixed, self.alpha = moving, fixed, alpha

    def __call__(self, ddf: DDF) -> tuple[float, DDF]:
        warped, field = warp(self.moving, ddf).requires_grad_(), ddf.detach().requires_grad_()
        with torch.enable_grad():
            similarity, roughness = ncc_loss(warped, self.fixed), self.alpha * smoothness_loss(field)
            force, tension = torch.autograd.grad(similarity + roughness, (warped, field))
        slope = torch.stack(torch.gradient(warped.detach()[:, 0], dim=(1, 2, 3)), 1)
        return float((similarity + roughness).detach()), force * slope + tension


class _Descriptors:
    """The mean squared distance of two images' MIND-SSC descriptors where the fixed image shows something.

    The smoothness is added, and the gradient taken as for equation 1.
    """

    sigma = 1.5

    def __init__(self, moving: Volume, fixed: Volume, alpha: float) -> None:
        self.moving, self.fixed, self.alpha = mind_ssc(moving), mind_ssc(fixed), alpha
        shown = (fixed > _SHOWN).to(fixed.dtype)
        self.weight = _DESCRIPTOR_WEIGHT * shown / shown.numel()

    def __call__(self, ddf: DDF) -> tuple[float, DDF]:
        warped, field = warp(self.moving, ddf), ddf.detach().requires_grad_()
        difference = warped - self.fixed
        distance = (difference.square().mean(1, keepdim=True) * self.weight).sum()
        with torch.enable_grad():
            roughness = self.alpha * smoothness_loss(field)
            (tension,) = torch.autograd.grad(roughness, field)
        force = 2 / CHANNELS * difference * self.weight
        slopes = torch.gradient(warped, dim=(2, 3, 4))
        return float(distance + roughness.detach()), torch.stack([(force * s).sum(1) for s in slopes], 1) + tension


def remove_folds(ddf: DDF) -> DDF:
    """Smooth a field where it folds, and nowhere else; what is left after ``_ATTEMPTS`` stays.

    Args:
        ddf: (B, 3, H, W, L), voxels, every side ≥ 2.

    Returns:
        (B, 3, H, W, L); the very same tensor where there was nothing to do.
    """
    folded = jacobian_determinant(ddf) <= 0
    for attempt in range(_ATTEMPTS):
        if not folded.any():
            break
        tiles = _tiles_near(folded, _REACH + 1)
        smoothed = [_smooth_near(ddf, folded, tile) for tile in tiles]
        ddf = ddf.clone() if attempt == 0 else ddf
        for tile, part in zip(tiles, smoothed):
            ddf[tile] = part
        for tile in tiles:  # elsewhere nothing has changed, nor beside it
            wider, inner = _grown(tile, 1, ddf.shape)
            folded[tile] = jacobian_determinant(ddf[wider])[inner] <= 0
    return ddf


def _smooth_near(ddf: DDF, folded: torch.Tensor, tile: Box) -> DDF:
    """Smooth a tile of a field near its folds."""
    wider, inner = _grown(tile, _REACH, ddf.shape)
    near, part = folded[wider].to(ddf.dtype), ddf[wider]
    for kernel in ((5, 1, 1), (1, 5, 1), (1, 1, 5)):
        near = F.max_pool3d(near, kernel, stride=1, padding=[n // 2 for n in kernel])
    near = smooth(near, _NEARBY)  # no edge between what is smoothed and what is not
    return (part + near * (smooth(part, _NEARBY) - part))[inner]


def _tiles_near(mask: torch.Tensor, distance: int) -> list[Box]:
    """Divide (B, C, H, W, L) into tiles, and find those with something set, (B, 1, H, W, L), in or near them."""
    sides = torch.tensor(mask.shape[2:], device=mask.device)
    corners = torch.tensor(list(product((-distance, distance), repeat=3)), device=mask.device)  # less than a tile apart
    around = (mask.any(0)[0].nonzero()[:, None] + corners).clamp(min=0).minimum(sides - 1)
    cells = torch.unique(around.flatten(0, 1) // TILE, dim=0).tolist()
    return [(slice(None), slice(None), *(slice(i * TILE, (i + 1) * TILE) for i in cell)) for cell in cells]


def _grown(tile: Box, margin: int, shape: Sequence[int]) -> tuple[Box, Box]:
    """Grow a tile on all sides, as far as there is something; and where the tile lies in that."""
    wider, inner = [slice(None)] * 2, [slice(None)] * 2
    for part, n in zip(tile[2:], shape[2:]):
        start = max(0, part.start - margin)
        wider.append(slice(start, min(n, part.stop + margin)))
        inner.append(slice(part.start - start, min(n, part.stop) - start))
    return tuple(wider), tuple(inner)
