"""Random contrasts of real heads: tissues painted anew, and the image's own texture through a random curve."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from bundle.labels import numbered_alike
from bundle.synthesis.acquisition import draw_acquisition
from bundle.synthesis.lesions import darken_lesions, draw_lesions
from bundle.synthesis.sequences import ScannerSequence, draw_sequence
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

__all__ = ["Appearance", "RandContrastd", "class_map", "draw_appearance"]

Item = dict[Hashable, Any]

TISSUES = 3, 9  # groups of brain regions, from and below
CLUSTERS = 4, 9  # of what lies outside the brain
CURVE_POINTS = 6
CURVE_ENTRIES = 1024
AIR = 0.03, 0.12  # intensities of a T1 image that nothing, and everything, is seen above: air and bone stay dark
PAINTED_BLUR = 0.35  # voxels: class borders are jagged, those of tissues are not


@dataclass(frozen=True)
class Appearance:
    """One contrast: what each class looks like, and how much of the real image is left.

    Args:
        tissue: brain region to tissue, (largest label + 1,), whole numbers from 1 up.
        clusters: how many classes lie outside the brain.
        mean: intensity of each class, 0 for what is blank, then the tissues, then the clusters.
        spread: standard deviation within each class.
        texture: share of the real image, 0 to 1.
        curve: what becomes of its intensities, a table over [0, 1].
    """

    tissue: torch.Tensor
    clusters: int
    mean: torch.Tensor
    spread: torch.Tensor
    texture: float
    curve: torch.Tensor

    def __call__(self, image: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Paint an image in [0, 1] with its label map, both (1, H, W, L); what is exactly 0 stays 0."""
        entries = (image.clamp(0, 1) * (CURVE_ENTRIES - 1)).round().int()
        seen = self.curve[entries]
        if self.texture < 1:
            classes = class_map(image, labels, self.tissue, self.clusters, generator).int()
            painted = torch.randn(image.shape, generator=generator).mul_(self.spread[classes]).add_(self.mean[classes])
            seen = seen.mul_(self.texture).add_(painted.clamp_(min=0), alpha=1 - self.texture)
        # a trace above 0 where there is tissue, so that only what is blank counts as blank
        return seen.clamp_(min=1e-4).masked_fill_(image == 0, 0.0)


def class_map(
    image: torch.Tensor, labels: torch.Tensor, tissue: torch.Tensor, clusters: int, generator: torch.Generator
) -> torch.Tensor:
    """Assign each voxel a class: its region's tissue in the brain, a cluster of intensities outside.

    Args:
        image: (1, H, W, L).
        labels: its regions, same shape.
        tissue: tissue of each label, from 1 up; of label 0 unused.
        clusters: how many outside.
        generator: picks the voxels that the clusters are found by.

    Returns:
        Same shape: 0 where the image is exactly 0 outside the brain, 1 to n the tissues (n the largest in ``tissue``),
        n + 1 the darkest cluster, which is air in a whole head, to n + ``clusters``.
    """
    brain = labels > 0
    outside = ~brain & (image != 0)
    classes = tissue[labels.int().clamp(max=len(tissue) - 1)].masked_fill(~brain, 0)
    values = image[outside]
    if len(values) > 0:
        cuts = _cluster(values[torch.randint(len(values), (4000,), generator=generator)], clusters)
        found = torch.bucketize(values, cuts).to(classes.dtype)
        classes[outside] = found + int(tissue.max()) + 1
    return classes


def _cluster(values: torch.Tensor, clusters: int, rounds: int = 8) -> torch.Tensor:
    """Find where to cut intensities into clusters: k-means on a line, from evenly spaced centres; (clusters − 1,)."""
    low, high = values.min(), values.max()
    centres = low + (high - low) * (torch.arange(clusters) + 0.5) / clusters
    for _ in range(rounds):
        nearest = torch.bucketize(values, (centres[1:] + centres[:-1]) / 2)
        count = torch.bincount(nearest, minlength=clusters)
        mean = torch.bincount(nearest, weights=values, minlength=clusters).to(centres.dtype) / count.clamp(min=1)
        centres = torch.where(count > 0, mean, centres)
    return (centres[1:] + centres[:-1]) / 2


def draw_appearance(
    state: np.random.RandomState, image: torch.Tensor, labels: torch.Tensor, curve_share: float
) -> Appearance:
    """Draw a contrast at random.

    Regions are grouped by their intensity in ``image`` plus a jitter of random strength: from grey matter, white matter
    and fluid, which is what another sequence tells apart, to groups of anything.

    Args:
        state: source of randomness.
        image: in [0, 1], (1, H, W, L).
        labels: its regions.
        curve_share: how often the appearance is the real texture through a curve, nothing painted.
    """
    tissues, clusters = state.randint(*TISSUES), state.randint(*CLUSTERS)
    means = _region_means(image, labels)
    order = means + state.uniform(0, 1.0) * torch.from_numpy(state.rand(len(means)))
    cuts = np.sort(order.numpy()[state.randint(len(order), size=tissues - 1)])
    mean = np.concatenate([[0.0], state.uniform(0.1, 1.0, tissues + clusters)])
    mean[tissues + 1] = state.uniform(0.0, 0.08)  # the darkest cluster outside
    spread = np.concatenate([[0.0], state.uniform(0.0, 0.08, tissues + clusters)])
    spread[tissues + 1] *= 0.2
    return Appearance(
        tissue=torch.bucketize(order, torch.from_numpy(cuts)).add_(1).clamp_(max=tissues).int(),
        clusters=clusters,
        mean=torch.from_numpy(mean).float(),
        spread=torch.from_numpy(spread).float(),
        texture=1.0 if state.rand() < curve_share else state.uniform(0, 1),
        curve=draw_curve(state),
    )


def _region_means(image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average the image over each label, (largest label + 1,), float64; a half where a label has no voxel."""
    index = labels.flatten().long()
    count = torch.bincount(index)
    mean = torch.bincount(index, weights=image.flatten().double()) / count.clamp(min=1)
    return torch.where(count > 0, mean, 0.5)


def draw_curve(state: np.random.RandomState) -> torch.Tensor:
    """Draw a curve of intensities: rising, falling or free, a third each; (CURVE_ENTRIES,), dark for air and bone."""
    kind, steps = state.randint(3), state.uniform(0.05, 1, CURVE_POINTS - 1)
    heights = np.concatenate([[0], np.cumsum(steps) / steps.sum()])
    if kind == 1:
        heights = 1 - heights
    elif kind == 2:
        heights = state.uniform(0.1, 1, CURVE_POINTS)
    x = np.linspace(0, 1, CURVE_ENTRIES)
    curve = 0.1 + 0.9 * np.interp(x, np.linspace(0, 1, CURVE_POINTS), heights)
    return torch.from_numpy(curve * np.clip((x - AIR[0]) / (AIR[1] - AIR[0]), 0, 1)).float()


Contrast = Appearance | ScannerSequence


class RandContrastd(Randomizable, MapTransform):
    """Give the images of a pair random contrasts, and keep the real ones as ``clean_moving`` and ``clean_fixed``.

    A pair stays real, or both its images get one contrast, or each gets its own; in the last case one of the two may
    stay real. Each synthetic image is a scan of its own. A pair whose field is known (``RandRescand``) gets two scans
    even where it stays real: they would be one image otherwise. Images keep their dtype; the sums are in float32.

    Adds ``synthetic``, whether the two look as they do in reality (False) or not: a bool tensor without dimensions.

    Args:
        keys: the images, moving then fixed: (1, H, W, L) in [0, 1], exactly 0 where there is nothing.
        label_keys: their label maps, in the same order; without them, intensities alone make the classes.
        real_share: of pairs that stay real.
        alike_share: of pairs with one contrast; what is left draws two.
        one_real_share: of pairs with two contrasts in which one image stays real.
        curve_share: of contrasts that are the real texture through a curve; in the others, tissues are painted as well.
        sequence_share: of contrasts that a scanner's sequence makes of the tissues (``bundle/synthesis/sequences.py``);
            ``curve_share`` divides the others.
        lesion_share: of the images of synthetic pairs that get lesions of white matter; the clean ones do not.

    Raises:
        ValueError: the shares are not from 0 to 1, or real and alike are more than 1 together.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: Sequence[str],
        real_share: float = 0.25,
        alike_share: float = 0.25,
        one_real_share: float = 0.4,
        curve_share: float = 0.5,
        sequence_share: float = 0.0,
        lesion_share: float = 0.0,
    ) -> None:
        MapTransform.__init__(self, keys)
        shares = (real_share, alike_share, one_real_share, curve_share, sequence_share, lesion_share)
        if not all(0 <= share <= 1 for share in (*shares, real_share + alike_share)):
            raise ValueError(f"Shares are from 0 to 1, real and alike no more than 1 together, got {shares}.")
        self.label_keys = tuple(label_keys)
        self.real_share, self.alike_share = real_share, alike_share
        self.one_real_share, self.curve_share = one_real_share, curve_share
        self.sequence_share, self.lesion_share = sequence_share, lesion_share

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Draw, keep the clean images, paint."""
        item = dict(data)
        images = [item[key].float() for key in self.keys]
        labels = [item.get(key, torch.zeros_like(i)) for key, i in zip_longest(self.label_keys, images)]
        labels = numbered_alike(labels)  # places in one table, however large an atlas' numbers are
        appearances = self._draw(images, labels)
        rescanned, synthetic = bool(item.get("known", False)), any(appearance is not None for appearance in appearances)
        for key, image, label, appearance in zip(self.keys, images, labels, appearances):
            clean = item[f"clean_{key}"] = item[key]
            if synthetic or rescanned:
                item[key] = self._scan(image, label, appearance, synthetic, rescanned).to(clean.dtype)
        item["synthetic"] = torch.tensor(synthetic)
        return item

    def _draw(self, images: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> list[Contrast | None]:
        """Draw the contrast of each image, None where it stays real."""
        kind, one_real, side = self.R.rand(), self.R.rand(), self.R.randint(2)
        if kind < self.real_share:
            return [None, None]
        if kind < self.real_share + self.alike_share:
            return [self._draw_contrast(torch.cat([*images]), torch.cat([*labels]))] * 2  # a region may be in one alone
        drawn: list[Contrast | None] = [self._draw_contrast(image, label) for image, label in zip(images, labels)]
        if one_real < self.one_real_share:
            drawn[side] = None
        return drawn

    def _draw_contrast(self, image: torch.Tensor, labels: torch.Tensor) -> Contrast:
        if self.sequence_share > 0 and self.R.rand() < self.sequence_share:
            return draw_sequence(self.R, image, labels)
        return draw_appearance(self.R, image, labels, self.curve_share)

    def _scan(
        self, image: torch.Tensor, labels: torch.Tensor, appearance: Contrast | None, synthetic: bool, rescanned: bool
    ) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        lesions = torch.zeros_like(image)
        if synthetic and self.lesion_share > 0 and self.R.rand() < self.lesion_share:
            lesions = draw_lesions(self.R, image, labels, generator)
        if isinstance(appearance, ScannerSequence):
            return draw_acquisition(self.R)(appearance(image, labels, lesions), generator)
        if bool(lesions.any()):
            image = darken_lesions(image, labels, lesions, self.R.rand())
        if appearance is None:
            return draw_acquisition(self.R)(image, generator) if rescanned else image
        painted = appearance.texture < 1
        return draw_acquisition(self.R, PAINTED_BLUR if painted else 0.0)(
            appearance(image, labels, generator), generator
        )
