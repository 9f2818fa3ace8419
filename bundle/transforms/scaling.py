"""How bright the network sees training images."""

from collections.abc import Hashable, Mapping
from typing import Any

from bundle.intensity import percentile_range, scale_between
from monai.data import get_track_meta
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

__all__ = ["ScaleToPercentilesd"]

Item = dict[Hashable, Any]


class ScaleToPercentilesd(MapTransform):
    """Bring the intensities of images between their percentiles to [0, 1], by the sums of ``MatchPaird`` at inference.

    What lies beyond is cut off, of an image that shows next to nothing, too. The image that comes in stays as it was.

    Args:
        keys: keys of the images, (1, H, W, L), finite; arrays of NumPy become tensors, as in MONAI's transforms.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Scale every image."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = convert_to_tensor(item[key], track_meta=get_track_meta()).float().clone()
            item[key] = scale_between(image, *percentile_range(image))
        return item
