"""Pairs of random smooth shapes, so that anatomy other than heads is not foreign to the network."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from bundle.fields import warp
from bundle.synthesis.acquisition import blur, smooth_noise
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type

__all__ = ["RandShapesd", "draw_shapes"]

Item = dict[Hashable, Any]

SHAPES = 6, 16  # in a pair, from and below
POINTS = 6  # of the noise that makes them, per axis


class RandShapesd(RandomizableTransform, MapTransform):
    """Replace a pair by two views of the same random shapes, one deformed into the other.

    The images are plain, one intensity a shape, the same in both; ``RandContrastd`` gives them contrasts. Their label
    maps number the shapes, so that corresponding ones are known; pairs that stay without label maps get such of 0, so
    that all of a batch have them. What is replaced keeps its type, dtype and affine; label maps that are new have those
    of their images.

    Adds ``synthetic_anatomy``, a bool tensor without dimensions.

    Args:
        keys: the images, moving then fixed: (1, H, W, L), whose size is kept.
        label_keys: their label maps, in the same order; or none.
        prob: share of pairs to replace.
        largest: displacement at the peak, voxels, drawn up to this.

    Source:
        Hoffmann et al., SynthMorph, IEEE Transactions on Medical Imaging 41(3), 2022: labels are the largest of several
        smooth noise volumes.
    """

    def __init__(
        self, keys: KeysCollection, label_keys: Sequence[str], prob: float = 0.05, largest: float = 6.0
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.label_keys, self.largest = tuple(label_keys), largest

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Draw shapes, or leave the pair as it is."""
        item = dict(data)
        self.randomize(None)
        item["synthetic_anatomy"] = torch.tensor(bool(self._do_transform))
        if self.prob > 0:
            bare = {label: item[key] for key, label in zip(self.keys, self.label_keys) if label not in item}
            item |= {label: torch.zeros_like(image) for label, image in bare.items()}
        if not self._do_transform:
            return item
        maps = draw_shapes(self.R, item[self.keys[0]].shape[1:], self.R.uniform(1, self.largest))
        values = torch.from_numpy(self.R.uniform(0.15, 1, int(maps[0].max()) + 1)).float()
        values[0] = 0.0
        drawn = {key: values[shapes.int()] for key, shapes in zip(self.keys, maps)} | dict(zip(self.label_keys, maps))
        return item | {key: convert_to_dst_type(new, item[key])[0] for key, new in drawn.items()}


def draw_shapes(state: np.random.RandomState, size: Sequence[int], peak: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw two label maps, (1, H, W, L) each: the second is the first, pulled through a smooth field.

    Args:
        state: source of randomness.
        size: sides in voxels.
        peak: largest displacement, voxels.
    """
    generator = torch.Generator().manual_seed(int(state.randint(2**31)))
    count = int(state.randint(*SHAPES))
    noise = smooth_noise(tuple(size), POINTS, generator, count)
    field = blur(smooth_noise(tuple(size), int(state.randint(3, 7)), generator, 3), 3.0)
    field = field * (peak / field.norm(dim=0).max())
    deformed = warp(noise[None], field[None], padding="border")[0]
    moving, fixed = (volume.argmax(0, keepdim=True).float() for volume in (noise, deformed))
    return moving, fixed
