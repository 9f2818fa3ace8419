"""Random changes of training pairs beyond MONAI's."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

__all__ = ["RandMaskd"]

Item = dict[Hashable, Any]


class RandMaskd(RandomizableTransform, MapTransform):
    """Blank everything outside the labelled regions, in all images of a pair or in none.

    One model then serves whole heads and brain-extracted ones. Each image is masked by its own label map, label > 0.

    Args:
        keys: keys of the images, (1, H, W, L).
        label_keys: keys of their label maps, in the same order.
        prob: probability to mask the pair.
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
            for key, label_key in zip(self.keys, self.label_keys):
                if label_key not in item:
                    raise ValueError(f"Masking {key} needs a label map, but the data set lists none: set prob to 0.")
                item[key] = item[key] * (item[label_key] > 0)
        return item
