"""Bring two images onto the grid that the network works on."""

import time
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from bundle.affine import ALIGNMENTS, align
from bundle.intensity import above_air, percentile_range, scale_between, shows_nothing
from bundle.io.itk import read_linear
from bundle.magnification import magnification, shown, shown_box
from bundle.memory import return_memory
from bundle.options import check_flags, check_numbers
from bundle.similarity import is_misled, similarity
from bundle.spatial import Grid, Matrix, SpatialTransform, antialias, ras_from_lps
from bundle.spatial.grid import MULTIPLE
from bundle.symmetry import geometric_mean, root
from bundle.transforms.extent import check_extent, check_spacing
from bundle.transforms.ignored import ignored_on, without_ignored
from bundle.transforms.reading import grid_of, on_grid_of
from monai.data import MetaTensor
from monai.transforms import Transform

__all__ = ["MARGIN_MM", "MatchPaird"]

Item = dict[Hashable, Any]

MARGIN_MM = 4.0
"""Of the network's grid around what the images show, where they are as large as human anatomy."""

EXTRAS = ("mask", "cost_mask")


class _Matched(NamedTuple):
    """The two images on the network's grid.

    Attributes:
        grid: of the network.
        channels: moving and fixed, (1, H, W, L) each.
        ignored: (2, H, W, L), bool, where they do not count; None if they count everywhere.
        alike: how alike they are by the headers, and so.
        worse: whether they are less alike than by the headers, by windows and as a whole, or pushed apart.
    """

    grid: Grid
    channels: list[torch.Tensor]
    ignored: torch.Tensor | None
    alike: dict[str, float]
    worse: bool


class MatchPaird(Transform):
    """Bring any two images onto the grid that the network works on.

    Aligns the moving image to the fixed one, samples both on the fixed image's canonical (RAS) grid, optionally at the
    spacing that suits the weights, with some room around it, but not far into the air around what they show, and scales
    the intensities between percentiles 0.5 and 99.5 to [0, 1]. Outlying voxels are clipped first.

    Reads ``moving`` and ``fixed``, (1, H, W, L) with RAS affines; optionally ``moving_mask`` and ``fixed_mask`` (blank
    the rest of their image), ``moving_cost_mask`` and ``fixed_cost_mask`` (what is in them does not count: the
    alignment and the similarities leave it out, and the network sees the other image there) and
    ``initial_transform`` (path of a linear ITK transform, instead of the alignment).
    Adds ``image`` (2, H, W, L: moving, fixed) with the RAS affine of its grid, ``alignment`` (4×4, mm, LPS, fixed to
    moving), ``alike`` (``similarity_before`` by the headers, ``similarity_aligned``, and with ``never_worse`` whether
    the ``alignment_dropped``) and ``seconds``; with cost masks ``ignored``, (2, H, W, L), bool, where moving and fixed
    image do not count.

    Args:
        affine: pre-alignment: none (headers alone), center, rigid or affine.
        spacing_mm: isotropic spacing of the network's grid; None keeps the fixed image's.
        symmetric: align both ways and take the mean, and lay the grid halfway between the images, so that with the
            images swapped all is the inverse.
        never_worse: go by the headers where the alignment found leaves the images less alike than they did: by
            ``similarity``, and either by ``mutual_information``, too, since windows tell little of images that are far
            apart, or since too little is left of how far what they show lay over each other (``is_misled``). An
            ``initial_transform`` is kept, with a note.
        align_top_mm: how far down from the top of what either image shows a rigid or affine alignment looks, along the
            axis of its voxels that runs up or down most: a neck turns against its head. None looks everywhere.

    Raises:
        ValueError: labels or masks on another grid than their image, images that share no physical space, or a grid of
            more voxels than ``extent.MOST_VOXELS``.
    """

    def __init__(
        self,
        affine: str = "affine",
        spacing_mm: float | None = None,
        never_worse: bool = False,
        symmetric: bool = False,
        align_top_mm: float | None = None,
    ) -> None:
        if affine not in ALIGNMENTS:
            raise ValueError(f"The pre-alignment is one of {', '.join(ALIGNMENTS)}, not '{affine}'.")
        check_numbers(spacing_mm=spacing_mm, align_top_mm=align_top_mm)
        check_spacing(spacing_mm)
        check_spacing(align_top_mm, "align_top_mm")
        check_flags(never_worse=never_worse, symmetric=symmetric)
        self.affine, self.spacing_mm, self.never_worse = affine, spacing_mm, never_worse
        self.symmetric, self.align_top_mm = symmetric, align_top_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Match the pair."""
        item, start = dict(data), time.perf_counter()
        grids = {role: grid_of(item[role]) for role in ("moving", "fixed")}
        check_extent(grids["fixed"], self.spacing_mm)
        images = {role: self._masked(item, role) for role in grids}
        matrix = self._align(item, images, grids)
        matched = self._matched(item, images, grids, matrix)
        worse = matched.worse
        if item.get("initial_transform") and worse:
            note = "initial transform: it leaves the images less alike than their headers do; is its direction right?"
            item["notes"] = "\n".join(filter(None, [item.get("notes", ""), note]))
        elif self.never_worse and self.affine != "none":
            if worse:
                matrix = np.eye(4)
                matched = self._matched(item, images, grids, matrix)
            matched.alike["alignment_dropped"] = float(worse)
        grid, channels, ignored, alike, _ = matched
        if channels[0].max() == channels[0].min():
            raise ValueError(
                "The images share no physical space: check their headers, or let --affine center, rigid or affine "
                "bring them together."
            )
        image = torch.cat(channels).as_subclass(torch.Tensor)
        if ignored is not None:
            item["ignored"] = ignored
            image = without_ignored(image, ignored)
        item["image"] = MetaTensor(image, affine=torch.from_numpy(ras_from_lps(grid.affine)))
        item["alignment"], item["alike"] = torch.from_numpy(matrix), alike
        return_memory()
        item["seconds"] = {**item.get("seconds", {}), "align": time.perf_counter() - start}
        return item

    def _matched(self, item: Item, images: dict[str, torch.Tensor], grids: dict[str, Grid], matrix: Matrix) -> _Matched:
        """Lay the network's grid, sample both images on it, and measure how alike they are by the headers and so."""
        grid = (self._grid_halfway if self.symmetric else self._grid)(images, grids, matrix)
        ignored = ignored_on(grid, item, grids, matrix)
        channels = [
            _scale(self._on_grid(images[role], grids[role], grid, alignment), None if ignored is None else ignored[n])
            for n, (role, alignment) in enumerate((("moving", matrix), ("fixed", None)))
        ]
        by_headers = [_scale(self._on_grid(images["moving"], grids["moving"], grid, None)), channels[1]]
        if self.symmetric:  # where the images meet: the same place for them swapped
            meeting = Grid(grid.shape, root(matrix) @ grid.affine)
            by_headers = [_scale(self._on_grid(images[role], grids[role], meeting, None)) for role in images]
        nowhere = None if ignored is None else ignored.any(0, keepdim=True)
        before, aligned = (similarity(one, other, nowhere) for one, other in (by_headers, channels))
        alike = {"similarity_before": before, "similarity_aligned": aligned}
        worse = aligned < before and is_misled(by_headers, channels, nowhere)
        return _Matched(grid, channels, ignored, alike, worse)

    def _masked(self, item: Item, role: str) -> torch.Tensor:
        """Clip outliers and blank the image outside its mask; check that all that belongs to it lies on its grid."""
        image = item[role]
        for extra in (f"{role}_label", f"{role}_mask", f"{role}_cost_mask"):
            if extra in item:
                item[extra] = on_grid_of(image, item[extra], extra.replace("_", " "))
        plain: torch.Tensor = above_air(image.as_tensor().float())
        masks = {extra: item[f"{role}_{extra}"].as_tensor() > 0 for extra in EXTRAS if f"{role}_{extra}" in item}
        masked = plain * masks["mask"] if "mask" in masks else plain
        for extra in masks:
            if shows_nothing(masked, masks[extra] if extra == "cost_mask" else None):
                name = f"{role} {extra.replace('_', ' ')}"
                raise ValueError(f"The {name} leaves nothing of the {role} image: there is nothing to align.")
        return masked

    def _align(self, item: Item, images: dict[str, torch.Tensor], grids: dict[str, Grid]) -> Matrix:
        if item.get("initial_transform"):
            return read_linear(item["initial_transform"])
        forward = self._aligned(item, images, grids, "moving", "fixed")
        if not self.symmetric:
            return forward
        return geometric_mean(forward, self._aligned(item, images, grids, "fixed", "moving"))

    def _aligned(
        self, item: Item, images: dict[str, torch.Tensor], grids: dict[str, Grid], moving: str, fixed: str
    ) -> Matrix:
        """Align one of the images to the other, by what ``align_top_mm`` leaves of both."""
        boxes = {role: self._box(images[role], grids[role]) for role in images}

        def cut(role: str, volume: torch.Tensor) -> Any:
            return volume[0][tuple(slice(first, last + 1) for first, last in zip(*boxes[role]))].numpy()

        def extra(role: str, name: str) -> Any:
            return cut(role, item[f"{role}_{name}"].as_tensor()) if f"{role}_{name}" in item else None

        return align(
            cut(moving, images[moving]),
            grids[moving].crop(*boxes[moving]),
            cut(fixed, images[fixed]),
            grids[fixed].crop(*boxes[fixed]),
            self.affine,
            extra(moving, "mask"),
            extra(fixed, "mask"),
            moving_ignored=extra(moving, "cost_mask"),
            fixed_ignored=extra(fixed, "cost_mask"),
        )

    def _box(self, image: torch.Tensor, grid: Grid) -> tuple[list[int], list[int]]:
        """Find the first and the last index of the part of an image, (1, H, W, L), that the alignment looks at."""
        first, last = [0, 0, 0], [n - 1 for n in grid.shape]
        if self.align_top_mm is None or self.affine not in ("rigid", "affine"):  # the others look at no voxel
            return first, last
        box = shown_box(image)
        if box is None:
            return first, last
        axis = int(np.abs(grid.direction[2]).argmax())  # the one that runs upwards, or down
        planes = round(self.align_top_mm / grid.spacing_mm[axis])
        if grid.direction[2, axis] > 0:
            first[axis] = max(0, box[1][axis] - planes)
        else:
            last[axis] = min(last[axis], box[0][axis] + planes)
        return first, last

    def _grid(self, images: dict[str, torch.Tensor], grids: dict[str, Grid], matrix: Matrix) -> Grid:
        """Lay the network's grid over what the images show: time, memory and percentiles are wasted on air.

        Where the alignment is more than a shift, what the fixed image shows is enough. Else the two may lie apart.
        """
        grid = grids["fixed"].canonical(self.spacing_mm).padded(grids["moving"], matrix)
        bounds = [grid.bounds(shown(images["fixed"], grids["fixed"]))]
        if np.allclose(matrix[:3, :3], np.eye(3)):
            bounds.append(grid.bounds(shown(images["moving"], grids["moving"]), matrix))
        margin = _margin_mm(images, grids) / grid.spacing_mm
        low, high = (np.stack(ends) for ends in zip(*bounds))
        return grid.crop_to(low.min(0) - margin, high.max(0) + margin)

    def _grid_halfway(self, images: dict[str, torch.Tensor], grids: dict[str, Grid], matrix: Matrix) -> Grid:
        """Lay a grid along the axes of space where the two images meet, over what both show; in fixed space."""
        half = root(matrix)
        cut = {role: shown(images[role], grids[role]) for role in images}
        spacing = self.spacing_mm or float(np.exp(np.mean([np.log(g.spacing_mm) for g in grids.values()])))
        unit = Grid((2, 2, 2), np.diag([-spacing, -spacing, spacing, 1.0]))
        back = np.linalg.inv(half).astype(np.float64)
        extents = unit.bounds(cut["fixed"], back), unit.bounds(cut["moving"], half)
        low, high = (np.stack(ends) for ends in zip(*extents))
        margin = _margin_mm(images, grids) / spacing
        low, high = low.min(0) - margin, high.max(0) + margin
        size = np.ceil((high - low + 1) / MULTIPLE).astype(int) * MULTIPLE
        meeting = unit.centred(size, spacing, unit.to_points((low + high) / 2))
        check_extent(meeting)
        return Grid(meeting.shape, back @ meeting.affine)

    @staticmethod
    def _on_grid(image: torch.Tensor, grid: Grid, target: Grid, alignment: Matrix | None) -> torch.Tensor:
        """Sample an image, (1, H, W, L), on the network's grid, through the alignment if there is one."""
        transform = SpatialTransform(np.eye(4) if alignment is None else alignment, None, target, target, grid)
        return transform.resample(antialias(image, grid, target))


def _scale(image: torch.Tensor, ignored: torch.Tensor | None = None) -> torch.Tensor:
    """Scale an image between the percentiles of what counts of it, in place.

    Args:
        image: (1, H, W, L), float32.
        ignored: (H, W, L), bool: where it does not count.
    """
    return scale_between(image, *percentile_range(image if ignored is None else image[:, ~ignored]))


def _margin_mm(images: dict[str, torch.Tensor], grids: dict[str, Grid]) -> float:
    """Bring ``MARGIN_MM`` to the size of what the images, (1, H, W, L) each, show."""
    return MARGIN_MM / magnification([(images[role][0], grids[role]) for role in images])
