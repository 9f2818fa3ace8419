"""Register a pair in which something does not count, a lesion say, as if the other image's anatomy were there."""

import time
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from bundle.fields import warp
from bundle.inferers import RecursiveInferer
from bundle.inpainting import UNSURE, dilate, fill_in
from bundle.options import check_flags
from bundle.shapes import DDF
from bundle.similarity import likeness
from bundle.symmetry import inverse_field
from bundle.transforms import without_ignored
from monai.data import MetaTensor
from monai.networks.utils import eval_mode
from monai.transforms import Transform
from torch import nn

__all__ = ["REFILLS", "RefillIgnoredd", "ignored_in_fixed"]

Item = dict[Hashable, Any]

REFILLS = 2
TOUCHED = 1e-3  # share of a voxel of the mask that counts; less is rounding


class RefillIgnoredd(Transform):
    """Show the network, in place of what does not count, what the other image has there, and register again.

    ``MatchPaird`` fills the voxels of a cost mask from the aligned other image, which is not registered yet, so that
    edges in the filling do not meet those around it. Here they are filled through the field found so far, twice.
    Without cost masks nothing is done.

    Reads ``image``, ``pred`` and ``ignored``, (2, H, W, L), and replaces all three: ``ignored`` says from here on where
    on the fixed image's side either image does not count, the moving one's mask carried there by the field.

    Args:
        network: the evaluator's.
        inferer: the evaluator's; it says how the network runs.
        amp: let convolutions run in half precision on a GPU, as the evaluator does.
    """

    def __init__(self, network: nn.Module, inferer: RecursiveInferer, amp: bool = False) -> None:
        check_flags(amp=amp)
        self.network, self.inferer, self.amp = network, inferer, amp

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Fill and register again, if there is anything to fill."""
        item, start = dict(data), time.perf_counter()
        if "ignored" not in item:
            return item
        pred = item["pred"].as_subclass(torch.Tensor)[None]
        image, ignored = (item[k].as_subclass(torch.Tensor).to(pred.device)[None] for k in ("image", "ignored"))
        alike = item.get("alike", {})
        if "tissue_correlation" not in alike:  # of the images as they are
            alike = alike | likeness(image[0, :1], image[0, 1:])
        inferer, network = self.inferer.for_pair(image, self.network, alike)
        with torch.no_grad(), eval_mode(self.network):
            for _ in range(REFILLS):
                image = _refilled(image, ignored, pred[:, 1:])
                with torch.autocast(pred.device.type, enabled=self.amp and pred.is_cuda):
                    pred = inferer(image, network).float().clone()
        item["alike"] = alike
        item["image"] = MetaTensor(image[0].cpu(), affine=item["image"].affine)
        item["pred"], item["ignored"] = pred[0], ignored_in_fixed(ignored, pred[:, 1:])[0].cpu()
        item["seconds"] = {**item.get("seconds", {}), "refill": time.perf_counter() - start}
        return item


def ignored_in_fixed(ignored: torch.Tensor, ddf: DDF) -> torch.Tensor:
    """Carry what does not count in the moving image, the first of two masks, (1, 2, H, W, L), to the fixed one."""
    return torch.cat([warp(ignored[:, :1].float(), ddf) > TOUCHED, ignored[:, 1:]], 1)


def _refilled(image: torch.Tensor, ignored: torch.Tensor, ddf: DDF) -> torch.Tensor:
    """Fill each image of a pair, (1, 2, H, W, L), from the other one pulled to it, where it does not count."""
    there = ignored_in_fixed(ignored, ddf)
    ddf = fill_in(ddf, dilate(there.any(1, keepdim=True), UNSURE))
    moving, fixed = image.split(1, 1)
    if ignored[:, 1].any():
        pulled = torch.cat([warp(moving, ddf, padding="border"), fixed], 1)
        fixed = without_ignored(pulled[0], there[0])[None, 1:]
    if ignored[:, 0].any():
        back = inverse_field(ddf)
        pulled = torch.cat([moving, warp(image[:, 1:], back, padding="border")], 1)
        here = torch.cat([ignored[:, :1], warp(ignored[:, 1:].float(), back) > TOUCHED], 1)
        moving = without_ignored(pulled[0], here[0])[None, :1]
    return torch.cat([moving, fixed], 1)
