"""Bring two images onto the grid that the network works on."""

import time
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from bundle.affine import ALIGNMENTS, align
from bundle.intensity import clip_outliers
from bundle.io.itk import read_linear
from bundle.options import check_flags, check_numbers
from bundle.similarity import similarity
from bundle.spatial import Grid, Matrix, SpatialTransform, antialias, ras_from_lps
from bundle.transforms.reading import grid_of, on_grid_of
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles, Transform, generate_spatial_bounding_box

__all__ = ["MARGIN_MM", "MatchPaird"]

Item = dict[Hashable, Any]

MARGIN_MM = 8.0
"""Of the network's grid around what the images show."""


class MatchPaird(Transform):
    """Bring any two images onto the grid that the network works on.

    Aligns the moving image to the fixed one, samples both on the fixed image's canonical (RAS) grid, optionally at the
    spacing that suits the weights, with some room around it, but no further than the images show anything, and scales
    the intensities between percentiles 0.5 and 99.5 to [0, 1]. Outlying voxels are clipped first.

    Reads ``moving`` and ``fixed``, (1, H, W, L) with RAS affines; optionally ``moving_mask`` and ``fixed_mask`` (blank
    the rest of their image) and ``initial_transform`` (path of a linear ITK transform, instead of the alignment).
    Adds ``image`` (2, H, W, L: moving, fixed) with the RAS affine of its grid, ``label`` (the fixed channel),
    ``alignment`` (4×4, mm, LPS, fixed to moving), ``alike`` (``similarity_before`` by the headers,
    ``similarity_aligned``, and with ``never_worse`` whether the ``alignment_dropped``) and ``seconds``.

    Args:
        affine: pre-alignment: none (headers alone), center, rigid or affine.
        spacing_mm: isotropic spacing of the network's grid; None keeps the fixed image's.
        never_worse: go by the headers where the alignment found leaves the images less alike than they did. An
            ``initial_transform`` is kept, with a note.

    Raises:
        ValueError: labels or masks on another grid than their image, or images that share no physical space.
    """

    def __init__(self, affine: str = "affine", spacing_mm: float | None = None, never_worse: bool = False) -> None:
        if affine not in ALIGNMENTS:
            raise ValueError(f"The pre-alignment is one of {', '.join(ALIGNMENTS)}, not '{affine}'.")
        check_numbers(spacing_mm=spacing_mm)
        check_flags(never_worse=never_worse)
        self.affine, self.spacing_mm, self.never_worse = affine, spacing_mm, never_worse
        self.normalise = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Match the pair."""
        item, start = dict(data), time.perf_counter()
        images = {role: self._masked(item, role) for role in ("moving", "fixed")}
        grids = {role: grid_of(item[role]) for role in images}
        matrix = self._align(item, images, grids)
        grid, channels, alike = self._matched(images, grids, matrix)
        worse = alike["similarity_aligned"] < alike["similarity_before"]
        if item.get("initial_transform") and worse:
            note = "initial transform: it leaves the images less alike than their headers do; is its direction right?"
            item["notes"] = "\n".join(filter(None, [item.get("notes", ""), note]))
        elif self.never_worse and self.affine != "none":
            if worse:
                matrix = np.eye(4)
                grid, channels, alike = self._matched(images, grids, matrix)
            alike["alignment_dropped"] = float(worse)
        if channels[0].max() == channels[0].min():
            raise ValueError(
                "The images share no physical space: check their headers, or let --affine center, rigid or affine "
                "bring them together."
            )
        image = torch.cat(channels).as_subclass(torch.Tensor)
        item["image"] = MetaTensor(image, affine=torch.from_numpy(ras_from_lps(grid.affine)))
        item["label"] = image[1:]
        item["alignment"], item["alike"] = torch.from_numpy(matrix), alike
        item["seconds"] = {**item.get("seconds", {}), "align": time.perf_counter() - start}
        return item

    def _matched(
        self, images: dict[str, torch.Tensor], grids: dict[str, Grid], matrix: Matrix
    ) -> tuple[Grid, list[torch.Tensor], dict[str, float]]:
        """Lay the network's grid, sample both images on it, and measure how alike they are by the headers and so."""
        grid = self._grid(images, grids, matrix)
        channels = [
            self.normalise(self._on_grid(images[role], grids[role], grid, alignment))
            for role, alignment in (("moving", matrix), ("fixed", None))
        ]
        by_headers = self.normalise(self._on_grid(images["moving"], grids["moving"], grid, None))
        stages = {"similarity_before": by_headers, "similarity_aligned": channels[0]}
        return grid, channels, {stage: similarity(moving, channels[1]) for stage, moving in stages.items()}

    def _masked(self, item: Item, role: str) -> torch.Tensor:
        """Clip outliers and blank the image outside its mask; check that all that belongs to it lies on its grid."""
        image = item[role]
        for extra in (f"{role}_label", f"{role}_mask"):
            if extra in item:
                item[extra] = on_grid_of(image, item[extra], extra.replace("_", " "))
        plain: torch.Tensor = clip_outliers(image.as_tensor().float())
        plain = plain - plain.min()  # what is blank, and beyond the border, is 0: not brighter than the air of a CT
        if f"{role}_mask" not in item:
            return plain
        masked: torch.Tensor = plain * (item[f"{role}_mask"].as_tensor() > 0)
        if masked.min() == masked.max():
            raise ValueError(f"The {role} mask leaves nothing of the {role} image: there is nothing to align.")
        return masked

    def _align(self, item: Item, images: dict[str, torch.Tensor], grids: dict[str, Grid]) -> Matrix:
        if item.get("initial_transform"):
            return read_linear(item["initial_transform"])
        arrays = {role: image[0].numpy() for role, image in images.items()}
        masks = {r: item[f"{r}_mask"].as_tensor()[0].numpy() if f"{r}_mask" in item else None for r in arrays}
        return align(
            arrays["moving"],
            grids["moving"],
            arrays["fixed"],
            grids["fixed"],
            self.affine,
            masks["moving"],
            masks["fixed"],
        )

    def _grid(self, images: dict[str, torch.Tensor], grids: dict[str, Grid], matrix: Matrix) -> Grid:
        """Lay the network's grid over what the images show: the percentiles and the time are wasted on wide margins."""
        grid = grids["fixed"].canonical(self.spacing_mm).padded(grids["moving"], matrix)
        shown = {role: _shown(images[role], grids[role]) for role in images}
        extents = grid.bounds(shown["fixed"]), grid.bounds(shown["moving"], matrix)
        margin = MARGIN_MM / grid.spacing_mm
        low, high = (np.stack(ends) for ends in zip(*extents))
        return grid.crop_to(low.min(0) - margin, high.max(0) + margin)

    @staticmethod
    def _on_grid(image: torch.Tensor, grid: Grid, target: Grid, alignment: Matrix | None) -> torch.Tensor:
        """Sample an image, (1, H, W, L), on the network's grid, through the alignment if there is one."""
        matrix = torch.eye(4, dtype=torch.float64).numpy() if alignment is None else alignment
        transform = SpatialTransform(matrix, None, target, target, grid)
        return transform.resample(antialias(image, grid, target))


def _shown(image: torch.Tensor, grid: Grid) -> Grid:
    """Cut an image's grid to the voxels above 0; (1, H, W, L), some of them are."""
    low, end = generate_spatial_bounding_box(image)
    return grid.crop(low, np.array(end) - 1)
