"""Label maps between their voxels: the label that most of what surrounds a point has."""

import math
from itertools import product

import torch
import torch.nn.functional as F

__all__ = ["SIGMA", "sample_labels"]

SIGMA = 0.5
"""Standard deviation of the Gaussian, voxels: wider rounds off more, and thin structures vanish."""

STEPS = sorted(product((-1, 0, 1), repeat=3), key=lambda step: sum(map(abs, step)))  # the nearest first: it wins a tie


def sample_labels(labels: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Read label maps between their voxels: the voxel nearest to a point and its 26 neighbours vote.

    Each has the weight that a Gaussian about the point has within it. The nearest voxel alone would leave steps along
    every border, and takes overlap from structures that are a few voxels thick.

    Args:
        labels: (C, H, W, L), floating-point, whatever they hold.
        index: (…, 3), in voxels, float64.

    Returns:
        (C, …), of the labels' dtype; 0 where the nearest voxel is none of the map's.

    Source:
        ITK's ``LabelImageGaussianInterpolateImageFunction`` with a sigma of half a voxel and an alpha of 2, ANTs'
        ``MultiLabel``. There a tie may fall to another label, and nothing beyond the border votes; here its voxels
        are repeated.
    """
    points = index.reshape(-1, 3).to(labels.device)
    sides = torch.tensor(labels.shape[1:], device=labels.device)
    nearest = points.round()
    inside = ((nearest >= 0) & (nearest < sides)).all(-1)
    points, nearest = points[inside], nearest[inside]
    result = labels.new_zeros(len(labels), len(inside))
    for channel, padded in zip(result, F.pad(labels[None], [1] * 6, mode="replicate")[0]):
        strides = torch.tensor(padded.stride(), device=labels.device)
        place = ((nearest.long() + 1) * strides).sum(-1)
        reach = (torch.tensor(STEPS, device=labels.device) * strides).sum(-1)
        votes = padded.flatten()[place + reach[:, None]]  # (27, N)
        mixed = (votes != votes[0]).any(0)  # elsewhere all are of one mind
        found = votes[0]
        found[mixed] = _elect(votes[:, mixed], _weights((points - nearest)[mixed]))
        channel[inside] = found
    return result.view(len(labels), *index.shape[:-1])


def _weights(offset: torch.Tensor) -> torch.Tensor:
    """Integrate the Gaussian over the 27 voxels: from the points' place in the nearest, (N, 3), to (27, N)."""
    edges = torch.arange(-1.5, 2.0, device=offset.device).view(-1, 1, 1) - offset
    axes = torch.erf(edges / (math.sqrt(2) * SIGMA)).diff(dim=0).float()  # of the 3 steps along each axis, (3, N, 3)
    return torch.stack([axes[i + 1, :, 0] * axes[j + 1, :, 1] * axes[k + 1, :, 2] for i, j, k in STEPS])


def _elect(votes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Find the label with the largest sum of weights, the first of equals: two times (27, N) to (N,)."""
    result = votes[0].clone()
    unsettled = (weights * (votes == result)).sum(0) * 2 <= weights.sum(0)  # elsewhere the nearest has the majority
    votes, weights = votes[:, unsettled], weights[:, unsettled]
    sums = torch.stack([(weights * (votes == vote)).sum(0) for vote in votes])
    result[unsettled] = votes.gather(0, sums.argmax(0, keepdim=True))[0]
    return result
