"""A network as its own teacher: trained on towards fields that several of its own answers agree on, without labels."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from bundle.fields import compose, warp
from bundle.inferers import RecursiveInferer
from bundle.shapes import DDF, Volume
from monai.transforms import Transform
from torch import nn
from tqdm import tqdm

__all__ = ["ConsensusFieldd", "TemplateTeacher"]

Item = dict[Hashable, Any]


class TemplateTeacher:
    """Find the field of a pair twice, directly and by way of a template, and take the mean.

    The template is the mean image of all that ``prepare`` is given, sharpened by registering them to it. Errors of
    the two ways differ, so that their mean has less of them; a network that learns it needs one way.

    Args:
        network: the teacher, not the network in training.
        weights: path of its weights.
        view: transform of an image, (1, H, W, L), to what the teacher is shown: scaled to [0, 1], and sharper than
            what its student is shown, say.
        passes: of the teacher.
        rounds: how often the template is made anew.
        members: of how many images at most it is made.
        device: that torch runs it on.

    Source:
        The atlas is that of unbiased atlas construction (Joshi, 2004) without the inversion; registration through
        one, and averages over several, are common in multi-atlas segmentation. Not part of the paper.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: str,
        view: Callable[[torch.Tensor], torch.Tensor],
        passes: int = 1,
        rounds: int = 2,
        members: int = 80,
        device: torch.device | str = "cpu",
    ) -> None:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.network = network.to(device).eval()
        self.view, self.inferer = view, RecursiveInferer(passes)
        self.rounds, self.members, self.device = rounds, members, device
        self.images: list[Volume] = []
        self.to_template: list[DDF] = []
        self.from_template: list[DDF] = []

    def prepare(self, images: Sequence[Mapping[str, Any]]) -> Volume:
        """Build the template, and register every image to it and it to every image.

        Args:
            images: items with ``image``, (1, H, W, L), all on one grid.

        Returns:
            (1, 1, H, W, L), the template.
        """
        self.images = [self.view(item["image"]).as_subclass(torch.Tensor)[None].to(self.device) for item in images]
        chosen = self.images[:: -(-len(self.images) // self.members)]
        template = torch.stack(chosen).mean(0)
        for _ in tqdm(range(self.rounds), desc="template", disable=None):
            fields = (self._register(image, template) for image in chosen)
            template = torch.stack([warp(i, ddf, padding="border") for i, ddf in zip(chosen, fields)]).mean(0)
        for image in tqdm(self.images, desc="to and from the template", disable=None):
            # half precision is good to 0.01 voxel, and these are many
            self.to_template.append(self._register(image, template).half())
            self.from_template.append(self._register(template, image).half())
        return template

    def __call__(self, moving: int, fixed: int) -> DDF:
        """Find the field of two of the images, (1, 3, H, W, L), voxels of the fixed one."""
        direct = self._register(self.images[moving], self.images[fixed])
        return (direct + compose(self.to_template[moving].float(), self.from_template[fixed].float())) / 2

    def _register(self, moving: Volume, fixed: Volume) -> DDF:
        with torch.no_grad():
            pred: torch.Tensor = self.inferer(torch.cat([moving, fixed], 1), self.network)
        return pred[:, 1:]


class ConsensusFieldd(Transform):
    """Make ``label`` what ``DistillationLoss`` wants: the fixed image and the teacher's field, (4, H, W, L).

    Reads ``fixed``, (1, H, W, L), ``moving_index`` and ``fixed_index``. What moves an image has no place before it or
    after it: the teacher knows the images as they were cached.

    Args:
        teacher: maps the indices to a field, (1, 3, H, W, L).
    """

    def __init__(self, teacher: Callable[[int, int], DDF]) -> None:
        self.teacher = teacher

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Add the label."""
        field = self.teacher(data["moving_index"], data["fixed_index"])[0].to(data["fixed"].device)
        return dict(data) | {"label": torch.cat([data["fixed"], field])}
