"""Label maps between their voxels: the label that most of what surrounds a point has."""

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
import torch.nn.functional as F

__all__ = ["EXACT", "LARGEST_COUNTED", "SIGMA", "LabelSampler", "consecutive", "numbered_alike"]

EXACT = 2**24
"""Whole numbers up to here are told apart in float32."""

LARGEST_COUNTED = 2**20
"""Labels up to here are counted by their own numbers; with larger ones all are renumbered first (``consecutive``)."""

SIGMA = 0.5
"""Standard deviation of the Gaussian, voxels: wider rounds off more, and thin structures vanish."""

STEPS = sorted(product((-1, 0, 1), repeat=3), key=lambda step: sum(map(abs, step)))  # the nearest first: it wins a tie


def consecutive(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the labels of a map from 0 up, so that any fit into floating-point numbers and histograms.

    Args:
        labels: whole numbers from 0 up, any shape.

    Returns:
        The labels, ascending, the first of them 0 whether the map holds it or not; and the map of their indices, int64.

    Example:
        >>> consecutive(torch.tensor([2**60 + 1, 7, 7]))
        (tensor([                  0,                   7, 1152921504606846977]), tensor([2, 1, 1]))
    """
    flat = torch.cat([labels.new_zeros(1), labels.flatten()])
    numbers, index = flat.unique(return_inverse=True)
    return numbers, index[1:].view(labels.shape)


def numbered_alike(maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Number the labels of several maps from 0 up, in their order: a label has one number in all of them.

    Args:
        maps: whole numbers from 0 up, each of any shape and dtype.

    Returns:
        The maps of numbers, int64; 0 stays 0.

    Example:
        >>> numbered_alike([torch.tensor([0, 2**60 + 1]), torch.tensor([7])])
        [tensor([0, 2]), tensor([1])]
    """
    _, index = consecutive(torch.cat([one.flatten().long() for one in maps]))
    return [part.view(one.shape) for one, part in zip(maps, index.split([one.numel() for one in maps]))]


class LabelSampler:
    """Read label maps between their voxels: the voxel nearest to a point and its 26 neighbours vote.

    Each has the weight that a Gaussian about the point has within it. The nearest voxel alone would leave steps along
    every border, and takes overlap from structures that are a few voxels thick.

    Args:
        labels: (C, H, W, L), floating-point, whatever they hold.

    Source:
        ITK's ``LabelImageGaussianInterpolateImageFunction`` with a sigma of half a voxel and an alpha of 2, ANTs'
        ``MultiLabel``. There a tie may fall to another label, and nothing beyond the border votes; here its voxels
        are repeated.
    """

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels
        self.padded = F.pad(labels[None], [1] * 6, mode="replicate")[0]
        self.mixed = _extreme(self.padded, torch.maximum) != _extreme(self.padded, torch.minimum)

    def __call__(self, index: torch.Tensor) -> torch.Tensor:
        """Read at points (…, 3), in voxels, float64: (C, …); 0 where the nearest voxel is none of the map's."""
        device, sides = self.labels.device, torch.tensor(self.labels.shape[1:], device=self.labels.device)
        points = index.reshape(-1, 3).to(device)
        nearest = (points + 0.5).floor()
        inside = ((nearest >= 0) & (nearest < sides)).all(-1)
        offset, nearest = (points - nearest)[inside], nearest[inside].long()
        h, w, d = nearest.unbind(-1)
        result = self.labels.new_zeros(len(self.labels), len(inside))
        for channel, labels, padded, mixed in zip(result, self.labels, self.padded, self.mixed):
            found, vote = labels[h, w, d], mixed[h, w, d]  # where all are of one mind, the nearest will do
            strides = torch.tensor(padded.stride(), device=device)
            reach = (torch.tensor(STEPS, device=device) * strides).sum(-1, keepdim=True)
            votes = padded.flatten()[((nearest[vote] + 1) * strides).sum(-1) + reach]  # (27, N)
            found[vote] = _elect(votes, _weights(offset[vote]))
            channel[inside] = found
        return result.view(len(self.labels), *index.shape[:-1])


def _extreme(padded: torch.Tensor, pick: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Pick the largest or least of each 3×3×3 block: sides shrink by 2."""
    for dim in (1, 2, 3):
        n = padded.shape[dim] - 2
        padded = pick(pick(padded.narrow(dim, 0, n), padded.narrow(dim, 1, n)), padded.narrow(dim, 2, n))
    return padded


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
