"""MIND-SSC: what an image's neighbourhood looks like, whatever its contrast."""

from itertools import combinations

import torch
import torch.nn.functional as F
from bundle.shapes import Volume

__all__ = ["CHANNELS", "mind_ssc"]

_NEIGHBOURS = ((0, 1, 1), (1, 1, 0), (1, 0, 1), (1, 1, 2), (2, 1, 1), (1, 2, 1))  # of the middle of 3×3×3 voxels
_PAIRS = [pair for pair in combinations(_NEIGHBOURS, 2) if sum((a - b) ** 2 for a, b in zip(*pair)) == 2]
CHANNELS = len(_PAIRS)
"""Of the descriptor: the twelve pairs of the six neighbours that touch along an edge."""


def mind_ssc(image: Volume) -> torch.Tensor:
    """Describe each voxel by how alike the patches around it are: the self-similarity context.

    For each pair of two of the six neighbours, √2 voxels apart, the mean squared difference D of the 3×3×3 patches
    around the two; the descriptor is exp(−(D − least D) / V), V the mean of the twelve, within 0.001 and 1000 times its
    own mean over the image. Two images of one anatomy have much the same descriptors, whatever their contrasts. The
    outermost voxels go on beyond the border.

    Args:
        image: (B, 1, H, W, L).

    Returns:
        (B, 12, H, W, L), above 0 up to 1.

    Source:
        Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using self-similarities",
        MICCAI 2013.
    """
    sides = image.shape[2:]
    padded = F.pad(image, [1] * 6, mode="replicate")
    shifted = {
        at: padded[:, :, at[0] : at[0] + sides[0], at[1] : at[1] + sides[1], at[2] : at[2] + sides[2]]
        for at in _NEIGHBOURS
    }
    distance = torch.cat([_patch_mean((shifted[a] - shifted[b]).square()) for a, b in _PAIRS], 1)
    distance = distance - distance.amin(1, keepdim=True)
    spread = distance.mean(1, keepdim=True)
    usual = spread.mean((2, 3, 4), keepdim=True).clamp(min=1e-12)
    return torch.exp(-distance / spread.clamp(0.001 * usual, 1000 * usual))


def _patch_mean(volume: Volume) -> Volume:
    """Average 3×3×3 voxels around each."""
    return F.avg_pool3d(F.pad(volume, [1] * 6, mode="replicate"), 3, stride=1)
