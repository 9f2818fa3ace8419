"""Keep a field where it makes the images more alike, and only there."""

import copy
from collections.abc import Mapping

import torch
from bundle.correlation import local_ncc
from bundle.elastic import ElasticRefiner
from bundle.fields import warp
from bundle.options import check_numbers
from bundle.shapes import DDF
from bundle.similarity import ALIKE_FROM, contrast_correlation
from bundle.smoothing import halve, restore, smooth, voxel_ratio

__all__ = ["GainWeighting"]

# in voxels of the halved images: an eighth of the work, and less noise
_WINDOW = 5  # of the correlation, about as large as in the loss
_BLUR = 0.6  # of the images compared: interpolating smooths noise, which looks like a gain
_SMOOTHING = 0.8  # of the two correlations: the noise of a window is no gain
_TRANSITION = 1.5  # of the weights: no edge between what is kept and what is not
_FLOOR = 0.02  # unexplained share below which nothing is left to gain


class GainWeighting:
    """Weight a field by the share of the images' local differences that it explains.

    Between two scans of one person most of what differs is noise. A network trained on pairs of people moves voxels
    there, too, without making the images more alike. Where r² is the local squared correlation, the field's gain is
    (r²_after − r²_before) / (1 − r²_before): 0 where it changes nothing, 1 where it explains everything. Its weight
    rises smoothly from 0 at the gain ``least`` to 1 at ``full``, and is smoothed over a few voxels.

    Where the two scans look less alike (``contrast_correlation``), as T1 and FLAIR of one head do, a field gains much
    that is no motion: twice as much is asked for then. Of scans that look alike what is kept is refined, and weighted
    again: little of that field is noise, so that less is asked for.

    Args:
        least: gain up to which nothing of the field is kept.
        full: gain from which all of it is kept.
        least_unlike: likewise of scans that look less alike.
        full_unlike: likewise.
        alike_from: correlation from which scans look alike.
        refiner: of the field between scans that look alike; None leaves it.
        least_refined: gain up to which nothing of the refined field is kept.
        full_refined: gain from which all of it is kept.

    Raises:
        ValueError: gains that are not 0 ≤ least < full ≤ 1.

    Source:
        This project; not part of the paper. docs/accuracy.md tells what it changes.
    """

    def __init__(
        self,
        least: float = 0.15,
        full: float = 0.4,
        least_unlike: float = 0.4,
        full_unlike: float = 0.7,
        alike_from: float = ALIKE_FROM,
        refiner: ElasticRefiner | None = None,
        least_refined: float = 0.03,
        full_refined: float = 0.15,
    ) -> None:
        check_numbers(least=least, full=full, least_unlike=least_unlike, full_unlike=full_unlike, alike_from=alike_from)
        check_numbers(least_refined=least_refined, full_refined=full_refined)
        self.alike, self.unlike, self.alike_from = (least, full), (least_unlike, full_unlike), alike_from
        self.refiner, self.refined = refiner, (least_refined, full_refined)
        self.settled: bool | None = None  # whether the pair looks alike, where ``for_pair`` has said so
        for low, high in (self.alike, self.unlike, self.refined):
            if not 0 <= low < high <= 1:
                raise ValueError(f"The gains must satisfy 0 ≤ least < full ≤ 1, got {low} and {high}.")

    @torch.no_grad()
    def __call__(self, image: torch.Tensor, ddf: DDF) -> DDF:
        """Weight the fields of a batch.

        Args:
            image: (B, 2, H, W, L), moving and fixed, in [0, 1].
            ddf: (B, 3, H, W, L), voxels.

        Returns:
            (B, 3, H, W, L), voxels: ``weights`` times the field; of scans that look alike refined.
        """
        return torch.cat([self._keep(*pair) for pair in zip(image.split(1), ddf.split(1))])

    def for_pair(self, alike: Mapping[str, float]) -> "GainWeighting":
        """Settle what is asked for of a pair, by what ``likeness`` said of it: its images may be changed later on."""
        settled = copy.copy(self)
        settled.settled = alike["contrast_correlation"] >= self.alike_from
        return settled

    def _keep(self, image: torch.Tensor, ddf: DDF) -> DDF:
        alike = self._looks_alike(image)
        kept = ddf * _weights(image, ddf, self.alike if alike else self.unlike)
        if self.refiner is None or not alike:
            return kept
        found = self.refiner(image, kept)
        return found * _weights(image, found, self.refined)

    def _looks_alike(self, image: torch.Tensor) -> bool:
        if self.settled is not None:
            return self.settled
        return contrast_correlation(image[0, :1], image[0, 1:]) >= self.alike_from

    def weights(self, image: torch.Tensor, ddf: DDF) -> torch.Tensor:
        """Compute the weights of the fields of a batch before any is refined: (B, 1, H, W, L), in [0, 1]."""
        pairs = zip(image.split(1), ddf.split(1))
        return torch.cat([_weights(*pair, self.alike if self._looks_alike(pair[0]) else self.unlike) for pair in pairs])


def _weights(image: torch.Tensor, ddf: DDF, asked: tuple[float, float]) -> torch.Tensor:
    """The weights of one field: 0 up to the first gain asked for, 1 from the second one on."""
    least, full = asked
    sides = image.shape[2:]
    ratio = torch.tensor(voxel_ratio(sides), device=ddf.device).view(1, 3, 1, 1, 1)
    image, ddf = halve(image.float()), halve(ddf.float()) / ratio
    moving, fixed = smooth(image, _BLUR).split(1, 1)
    before, after = (smooth(local_ncc(one, fixed, _WINDOW), _SMOOTHING) for one in (moving, warp(moving, ddf)))
    gain = (after - before) / (1 - before).clamp(min=_FLOOR)
    share = ((gain - least) / (full - least)).clamp(0, 1)
    return restore(smooth(share.square() * (3 - 2 * share), _TRANSITION).clamp(0, 1), sides)
