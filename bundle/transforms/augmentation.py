"""Random changes of training pairs beyond MONAI's."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

__all__ = ["RandMaskd"]

Item = dict[Hashable, Any]


class RandMaskd(RandomizableTransform, MapTransform):
    """Blank everything outside the labelled regions, in all images of a pair or in none.

    One model then serves whole heads and brain-extracted ones. Each image is masked by its own label map, label > 0. A
    pair of which one label map is 0 everywhere, as where some images have none, stays as it is.

    Args:
        keys: keys of the images, (1, H, W, L).
        label_keys: keys of their label maps, in the same order.
        prob: probability to mask the pair.

    Raises:
        ValueError: when called to mask a pair without label maps.
    """

    def __init__(self, keys: KeysCollection, label_keys: Sequence[str], prob: float = 0.5) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.label_keys = tuple(label_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Mask, or leave the pair as it is."""
        item = dict(data)
        self.randomize(None)
        if self._do_transform:
            masks = [self._mask(item, key, label_key) for key, label_key in zip(self.keys, self.label_keys)]
            if all(mask.any() for mask in masks):
                item |= {key: item[key] * mask for key, mask in zip(self.keys, masks)}
        return item

    @staticmethod
    def _mask(item: Item, key: Hashable, label_key: str) -> torch.Tensor:
        if label_key not in item:
            raise ValueError(
                f"Masking {key} needs a label map, but the data set lists none: set mask_probability to 0."
            )
        mask: torch.Tensor = item[label_key] > 0
        return mask
