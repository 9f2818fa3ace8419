"""Measure what decides how a pair is registered, once."""

import time
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from bundle.similarity import likeness
from monai.transforms import Transform

__all__ = ["MeasureLikenessd"]


class MeasureLikenessd(Transform):
    """Measure how alike the contrasts of two matched images are: adds what ``likeness`` says to ``alike``.

    Which weights register a pair goes by these two numbers. Measured again of what is registered later on, of images
    that were filled, mirrored or made noisier, or on another device, they might say something else.

    Reads ``image`` and ``alike`` of ``MatchPaird``.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Measure."""
        item, start = dict(data), time.perf_counter()
        image = item["image"].as_subclass(torch.Tensor)
        item["alike"] = item["alike"] | likeness(image[:1], image[1:])
        seconds = item.get("seconds", {})
        item["seconds"] = seconds | {"align": seconds.get("align", 0.0) + time.perf_counter() - start}
        return item
