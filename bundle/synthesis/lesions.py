"""Lesions of white matter, as small vessel disease leaves them: common in the old, rare in training images."""

import numpy as np
import torch
import torch.nn.functional as F
from bundle.synthesis.acquisition import smooth_noise
from bundle.synthesis.sequences import anchors

__all__ = ["darken_lesions", "draw_lesions"]

AROUND = 7  # voxels: width of the window around ventricles in which lesions begin
SIDE = 13  # voxels: of the one that they thin out over
SHARPNESS = 5.0  # of their edges
THRESHOLDS = 1.2, 2.6  # few lesions to many
POINTS = 8, 20  # per axis of the coarser noise that shapes them
FINE_POINTS = 30


def draw_lesions(
    state: np.random.RandomState, image: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Draw spots of white matter, most of them beside the ventricles.

    Args:
        state: source of randomness.
        image: T1-weighted, in [0, 1], (1, H, W, L).
        labels: its regions.
        generator: of the noise that shapes them.

    Returns:
        How much of a lesion each voxel is, 0 to 1, (1, H, W, L), float32.
    """
    fluid, grey, white = anchors(image, labels)
    dark = ((image < (fluid + grey) / 2) & (labels > 0)).to(image.dtype)[None]
    ventricles = -F.max_pool3d(-dark, 3, 1, 1)  # thicker than furrows
    near = F.max_pool3d(ventricles, AROUND, 1, AROUND // 2)
    beside = F.avg_pool3d(F.pad(near, (SIDE // 2,) * 6), SIDE, 1)[0]
    noise = smooth_noise(image.shape[1:], int(state.randint(*POINTS)), generator)
    noise += smooth_noise(image.shape[1:], FINE_POINTS, generator).mul_(0.7)
    spots = torch.sigmoid(SHARPNESS * (noise + 2.5 * beside - state.uniform(*THRESHOLDS)))
    whiteness = ((image - grey) / (white - grey)).clamp(0, 1).sqrt()
    return (spots * whiteness * (labels > 0) * state.uniform(0.4, 1.0)).float()


def darken_lesions(image: torch.Tensor, labels: torch.Tensor, lesions: torch.Tensor, depth: float) -> torch.Tensor:
    """Show lesions in a T1-weighted image: as bright as grey matter (``depth`` 0), as fluid (1), or between."""
    fluid, grey, _ = anchors(image, labels)
    return image - lesions * (image - (grey + depth * (fluid - grey))).clamp(min=0)
