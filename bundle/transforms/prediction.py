"""Take the network's prediction apart."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from bundle.fields import warp
from bundle.labels import EXACT, consecutive
from bundle.shapes import DDF
from bundle.weights import check_finite
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["WarpByPredictiond"]

Item = dict[Hashable, Any]


class WarpByPredictiond(MapTransform):
    """Take the network's ``pred`` apart and pull label maps through its field.

    Adds ``warped`` (1, H, W, L) and ``ddf`` (3, H, W, L, voxels) to the item, and for each key its warped version
    under ``warped_key``.

    Args:
        keys: keys of the moving label maps, (1, H, W, L); missing ones are passed over.
        warped_keys: keys to write, in the same order.

    Raises:
        OutcomeError: when called, displacements that are no numbers.
    """

    def __init__(self, keys: KeysCollection, warped_keys: Sequence[str]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.warped_keys = tuple(warped_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Warp every key that is there."""
        item = dict(data)
        item["warped"], item["ddf"] = item["pred"][:1], item["pred"][1:]
        check_finite(item["ddf"])
        for key, warped_key in zip(self.keys, self.warped_keys):
            if key in item:
                item[warped_key] = _warp_labels(item[key].to(item["ddf"].device), item["ddf"])
        return item


def _warp_labels(labels: torch.Tensor, ddf: DDF) -> torch.Tensor:
    """Pull a label map, (1, H, W, L), through a field by the nearest voxel, in its own dtype."""
    numbers, index = consecutive(labels) if labels.max() > EXACT else (None, labels)
    warped = warp(index[None].float(), ddf[None], mode="nearest")[0]
    return warped.to(labels.dtype) if numbers is None else numbers[warped.long()]
