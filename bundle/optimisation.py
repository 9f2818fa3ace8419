"""Pairwise optimisation: refine the field of one pair by gradient steps on equation 1, on the field itself."""

import torch
import torch.nn.functional as F
from bundle.fields import compose, jacobian_determinant, warp
from bundle.losses import ncc_loss, smoothness_loss
from bundle.shapes import DDF, Volume
from bundle.smoothing import smooth
from tqdm import tqdm

__all__ = ["PairwiseOptimiser", "remove_folds"]

_MOMENTUM, _MEMORY = 0.8, 0.95  # of the direction, and of the mean square that scales it
_LONGEST = 0.4  # voxels: a smooth step this short does not fold, nor do compositions of such steps
_SLOWEST = 1e-4  # a smaller gain of the loss counts as none


class PairwiseOptimiser:
    """Refine a network's field for one pair, as instance optimisation does, but keep it regular by construction.

    Each step is the gradient of equation 1 with respect to the field, smoothed by a Gaussian, limited in length and
    *composed* with the field. Momentum and one running scale for the whole field (not one a voxel, which blows up the
    noise of flat regions) set the pace. Folds that remain are smoothed away. The field with the least loss wins, so
    that the result is never worse than the start.

    Args:
        iterations: most steps; 0 returns the field as it is.
        alpha: weight of the smoothness, as in training.
        step: length of a step in voxels, root mean square over the field.
        sigma: width of the Gaussian in voxels.
        patience: steps without gain after which the optimisation ends early.

    Raises:
        ValueError: a negative or broken number of iterations.

    Source:
        Equation 1 of the paper; the composed, smoothed update is that of greedy diffeomorphic registration (Avants,
        2008). Not part of the paper.
    """

    def __init__(
        self, iterations: int, alpha: float = 1.0, step: float = 0.3, sigma: float = 1.0, patience: int = 3
    ) -> None:
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
            raise ValueError(f"The number of optimisation steps is a whole number from 0 up, not {iterations}.")
        self.iterations, self.alpha, self.step, self.sigma = iterations, alpha, step, sigma
        self.patience = patience

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
        found, loss_at_start = self._descend(moving, fixed, start)
        smoothed = remove_folds(found)
        if smoothed is found or self._loss_and_gradient(moving, fixed, smoothed)[0] <= loss_at_start:
            return smoothed
        return found

    def _descend(self, moving: Volume, fixed: Volume, ddf: DDF) -> tuple[DDF, float]:
        """Take the steps; the field with the least loss, and the loss of the start."""
        best, least, waited, first = ddf, float("inf"), 0, float("nan")
        direction, square = torch.zeros_like(ddf), 0.0
        for i in tqdm(range(self.iterations + 1), desc="optimising", leave=False, disable=None):
            loss, gradient = self._loss_and_gradient(moving, fixed, ddf)
            first = loss if i == 0 else first
            waited = 0 if loss < least - _SLOWEST else waited + 1
            if loss < least:
                best, least = ddf, loss
            if waited == self.patience or i == self.iterations:
                break
            gradient = smooth(gradient, self.sigma)
            direction = _MOMENTUM * direction + (1 - _MOMENTUM) * gradient
            square = _MEMORY * square + (1 - _MEMORY) * float(gradient.square().sum(1).mean())
            scale = (square / (1 - _MEMORY ** (i + 1))) ** 0.5 * (1 - _MOMENTUM ** (i + 1))
            if scale == 0:
                break
            update = -self.step / scale * direction
            length = update.square().sum(1, keepdim=True).sqrt()  # as a norm it takes 60 times as long on a CPU
            ddf = compose(ddf, update * (_LONGEST / length.clamp(min=_LONGEST)))
        return best, first

    def _loss_and_gradient(self, moving: Volume, fixed: Volume, ddf: DDF) -> tuple[float, DDF]:
        """Equation 1 of a field, and its gradient.

        The warped image's own gradient stands for the moving image's at the warped place: smoother, and what is right
        for a step that is composed.
        """
        warped, field = warp(moving, ddf).requires_grad_(), ddf.detach().requires_grad_()
        with torch.enable_grad():
            similarity, roughness = ncc_loss(warped, fixed), self.alpha * smoothness_loss(field)
            force, tension = torch.autograd.grad(similarity + roughness, (warped, field))
        slope = torch.stack(torch.gradient(warped.detach()[:, 0], dim=(1, 2, 3)), 1)
        return float((similarity + roughness).detach()), force * slope + tension


def remove_folds(ddf: DDF, sigma: float = 1.0, attempts: int = 20) -> DDF:
    """Smooth a field where it folds, and nowhere else.

    Args:
        ddf: (B, 3, H, W, L), voxels, every side ≥ 2.
        sigma: width of the Gaussian in voxels.
        attempts: how often at most; what is left then stays.

    Returns:
        (B, 3, H, W, L); the very same tensor where there was nothing to do.
    """
    for _ in range(attempts):
        folded = (jacobian_determinant(ddf) <= 0).to(ddf.dtype)
        if not folded.any():
            break
        near = folded
        for kernel in ((5, 1, 1), (1, 5, 1), (1, 1, 5)):
            near = F.max_pool3d(near, kernel, stride=1, padding=[n // 2 for n in kernel])
        near = smooth(near, sigma)  # no edge between what is smoothed and what is not
        ddf = ddf + near * (smooth(ddf, sigma) - ddf)
    return ddf
