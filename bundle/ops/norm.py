"""Instance norm and leaky ReLU in one step, in the layout the convolutions like.

Convolutions run up to 2× faster on channels-last volumes, which ``F.instance_norm`` copies back and forth. This step
works on them as they are, run by run so that the passes meet in the cache, with statistics about each run's own mean
merged in float64. It keeps only its result for the backward pass: a leaky ReLU can be undone, so the normalised values
are recovered from it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from bundle.shapes import Features

__all__ = ["StreamedNorm", "instance_norm_leaky_relu"]

ELEMENTS_PER_RUN = 2**19
ELEMENTS_PER_ROW = 2**8


class Moments(NamedTuple):
    """What one run of rows holds: how many rows, and the mean and the variance of every column."""

    rows: int
    means: torch.Tensor
    variances: torch.Tensor


def _runs(planes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Split contiguous planes, (planes, W, L, C), into runs of voxels: views of (rows, voxels a row · C).

    A row holds several voxels where the number in a plane allows it: over C elements at a time each step takes longer
    by half.
    """
    channels, voxels = planes.shape[-1], planes[0, ..., 0].numel()
    row = channels * math.gcd(voxels, max(1, ELEMENTS_PER_ROW // channels))
    rows = planes.view(-1, row)
    on_cpu = planes.device.type == "cpu"  # elsewhere nothing is gained by small runs
    return rows.split(max(1, ELEMENTS_PER_RUN // row) if on_cpu else len(rows))


def _volumes(features: Features) -> torch.Tensor:
    """See channels-last features as they lie in memory, (B, H, W, L, C)."""
    return features.permute(0, 2, 3, 4, 1)


def _moments(runs: Iterable[torch.Tensor]) -> list[Moments]:
    """Measure each run about its own means, as batch norm does it in two passes; float32 at least."""
    found: list[Moments] = []
    for run in runs:
        precise = run.to(torch.promote_types(run.dtype, torch.float32))
        found.append(Moments(len(run), *torch.batch_norm_update_stats(precise, None, None, 0.0)))
    return found


def _merge(found: Sequence[Moments], channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute each channel's mean and variance, (C,), from the columns' of all runs (Chan's formula)."""
    precise, device = found[0].means.dtype, found[0].means.device
    counts = torch.tensor([one.rows for one in found], device=device, dtype=torch.float64).view(-1, 1, 1)
    means = torch.stack([one.means for one in found]).double().view(len(found), -1, channels)
    variances = torch.stack([one.variances for one in found]).double().view(len(found), -1, channels)
    total = counts.sum() * means.shape[1]
    mean = (counts * means).sum((0, 1)) / total
    variance = (counts * (variances + (means - mean).square())).sum((0, 1)) / total
    return mean.to(precise), variance.to(precise)


def _along_row(values: torch.Tensor, row: int) -> torch.Tensor:
    """Repeat one value a channel, (C,), for every voxel of a row."""
    return values.repeat(row // len(values))


def _apply(run: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, slope: float, out: torch.Tensor) -> None:
    """Normalise one run by what ``_along_row`` gave, then the leaky ReLU, into ``out``, which may be the run."""
    if out.dtype == mean.dtype:
        F.leaky_relu_(torch.sub(run, mean, out=out).mul_(scale), slope)
    else:  # of half precision is what is kept, not what lies between: (run − mean) / √1 · scale
        one = torch.ones_like(scale)
        normalised = torch.batch_norm(run, scale, None, mean, one, False, 0.0, 0.0, False)
        torch.ops.aten.leaky_relu.out(normalised, slope, out=out)


def _normalise(features: Features, out: Features, slope: float, eps: float) -> torch.Tensor:
    """Write the result to ``out``, which may be ``features``; return the inverse standard deviations, (B, C)."""
    scales = []
    for runs, results in zip(map(_runs, _volumes(features)), map(_runs, _volumes(out))):
        mean, variance = _merge(_moments(runs), features.shape[1])
        scales.append(torch.rsqrt(variance + eps))
        mean, scale = (_along_row(x, runs[0].shape[1]) for x in (mean, scales[-1]))
        for run, result in zip(runs, results):
            _apply(run, mean, scale, slope, result)
    return torch.stack(scales)


class StreamedNorm:
    """Instance norm and leaky ReLU of one volume that is made plane by plane.

    Each plane is measured while it is in the cache; when all are, each is normalised where it is read next.

    Args:
        slope: of the leaky ReLU's negative side.
        eps: added to the variance.
    """

    def __init__(self, slope: float = 0.1, eps: float = 1e-5) -> None:
        self.slope, self.eps = slope, eps
        self.found: list[Moments] = []
        self.statistics: tuple[torch.Tensor, torch.Tensor] | None = None

    def measure(self, planes: torch.Tensor) -> None:
        """Take in some planes, (planes, W, L, C), contiguous."""
        self.found += _moments(_runs(planes))

    def apply(self, planes: torch.Tensor, out: torch.Tensor) -> None:
        """Normalise planes into ``out``, which may be the same, after all have been measured."""
        runs, results = _runs(planes), _runs(out)
        if self.statistics is None:
            mean, variance = _merge(self.found, planes.shape[-1])
            row = runs[0].shape[1]
            self.statistics = _along_row(mean, row), _along_row(torch.rsqrt(variance + self.eps), row)
        for run, result in zip(runs, results):
            _apply(run, *self.statistics, self.slope, result)


class _InstanceNormLeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Features, slope: float, eps: float) -> Features:  # type: ignore[no-untyped-def]
        features = features.contiguous(memory_format=torch.channels_last_3d)
        out = torch.empty_like(features)
        ctx.save_for_backward(out, _normalise(features, out, slope, eps))
        ctx.slope = slope
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Features) -> tuple[Features, None, None]:  # type: ignore[no-untyped-def]
        out, scales = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        result = torch.empty_like(out)
        volumes = zip(*(map(_runs, _volumes(x)) for x in (out, grad, result)), scales)
        for runs, grads, results, scale in volumes:
            scale = _along_row(scale, runs[0].shape[1])
            total, along = torch.zeros_like(scale), torch.zeros_like(scale)
            for run, g, to in zip(runs, grads, results):
                torch.ops.aten.leaky_relu_backward.grad_input(g, run, ctx.slope, True, grad_input=to)
                total += to.sum(0, dtype=scale.dtype)
                along += (to * F.leaky_relu(run, 1 / ctx.slope)).sum(0, dtype=scale.dtype)
            rows = sum(len(run) for run in runs)
            means = [x.view(-1, out.shape[1]).mean(0) / rows for x in (total, along)]
            total, along = (_along_row(x, runs[0].shape[1]) for x in means)
            for run, to in zip(runs, results):
                normalised = F.leaky_relu(run, 1 / ctx.slope)
                to.sub_(total).sub_(normalised.mul_(along)).mul_(scale)
        return result, None, None


def instance_norm_leaky_relu(features: Features, slope: float = 0.1, eps: float = 1e-5) -> Features:
    """Normalise each channel of each instance over space, then apply a leaky ReLU.

    Without a graph (``torch.no_grad``) it overwrites its input: at level 1 that is the largest tensor there is.

    Args:
        features: (B, C, H, W, L).
        slope: of the negative side, positive.
        eps: added to the variance.

    Returns:
        Same shape, channels-last. Equals ``F.leaky_relu(F.instance_norm(features), slope)``, which stands in while a
        graph is being scripted, traced or exported.
    """
    if not torch.jit.is_scripting():
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            if torch.is_grad_enabled():
                return _InstanceNormLeakyReLU.apply(features, slope, eps)
            features = features.contiguous(memory_format=torch.channels_last_3d)
            _normalise(features, features, slope, eps)
            return features
    return F.leaky_relu(F.instance_norm(features, eps=eps), slope)
