"""Where the intensities of training images begin."""

from collections.abc import Hashable, Mapping
from typing import Any

from bundle.intensity import above_air
from monai.data import get_track_meta
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

__all__ = ["DarkestToZerod"]

Item = dict[Hashable, Any]


class DarkestToZerod(MapTransform):
    """Bring the darkest value of images to 0, outliers clipped, before anything is padded or masked with 0.

    What is blank is then as dark as the air of a CT, as ``MatchPaird`` has it at inference. An image whose darkest
    value is 0 already, as of most MR, keeps its values, but for outliers.

    Args:
        keys: keys of the images, (1, H, W, L), finite; arrays of NumPy become tensors, as in MONAI's transforms.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Shift every image."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = above_air(convert_to_tensor(item[key], track_meta=get_track_meta()).float())
        return item
