"""Register one pair by any method and measure the result: the same reading and the same measures for all."""

import math
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bundle.benchmark.contrasts import with_synthetic_contrasts
from bundle.benchmark.method import Method, Register
from bundle.io.labels import check_labelled
from bundle.io.points import match, read_points
from bundle.memory import peak_memory_mb, reset_peak_memory
from bundle.metrics import (
    dice_per_label,
    folding_percent,
    learn2reg_log_jacobian_sd,
    log_jacobian_sd,
    mean_dice,
    non_diffeomorphic_volume_percent,
    surface_distances,
    tre_mm,
)
from bundle.report import scale
from bundle.shapes import DDF
from bundle.spatial import SpatialTransform
from bundle.transforms import MatchPaird, ReadVolumed, grid_of
from monai.transforms import CropForegroundd

__all__ = [
    "IMAGE_KEYS",
    "LANDMARK_KEYS",
    "MARGIN",
    "MEASURES",
    "PLANES",
    "Common",
    "Pictures",
    "Row",
    "central_slices",
    "measure",
    "quality",
]

Item = dict[str, Any]
Row = dict[str, Any]
Pictures = dict[str, npt.NDArray[np.uint8]]

IMAGE_KEYS = ("moving", "fixed", "moving_label", "fixed_label")
LANDMARK_KEYS = ("moving_landmarks", "fixed_landmarks")
MEASURES = (
    "dsc",
    "hd95_mm",
    "assd_mm",
    "tre_mm",
    "folding_percent",
    "ndv_percent",
    "log_jacobian_sd",
    "learn2reg_log_jacobian_sd",
)
"""What ``quality`` finds of each pair."""
PLANES = ("sagittal", "coronal", "axial")
MARGIN = 4  # voxels around a masked brain


@dataclass(frozen=True)
class Common:
    """What is the same for all methods.

    Args:
        affine: pre-alignment: none, center, rigid or affine.
        masked: blank everything outside the labels, in both images, and cut them to what is left: nobody registers
            brains surrounded by air, and each method takes the less time.
        spacing_mm: of the grid that all methods work on; None leaves it to each.
        threads: that each method may use.
        label_interpolation: of the moving labels that are scored: ``"nearest"`` or ``"label_gaussian"``.
        contrasts: of the images: ``"real"``, or ``"synthetic"`` for two that are drawn for each pair.
        align_top_mm: how far down from the top of the images the pre-alignment looks; None looks everywhere.
    """

    affine: str = "affine"
    masked: bool = False
    spacing_mm: float | None = None
    threads: int = 1
    label_interpolation: str = "nearest"
    contrasts: str = "real"
    align_top_mm: float | None = None

    def read(
        self, pair: Mapping[str, Any], initial_transform: str | None = None, spacing_mm: float | None = None
    ) -> Item:
        """Read a pair and bring it onto one grid, as every workflow of the bundle does.

        Args:
            pair: its name, and paths of both images and both label maps.
            initial_transform: path of the pre-alignment, where it is known already.
            spacing_mm: of the grid, where all methods have no common one; None keeps the fixed image's.
        """
        item: dict[Hashable, Any] = {key: pair[key] for key in IMAGE_KEYS}
        if self.masked:
            item |= {"moving_mask": pair["moving_label"], "fixed_mask": pair["fixed_label"]}
        keys = [str(key) for key in item]
        item = ReadVolumed(keys, [key for key in keys if key.endswith(("_label", "_mask"))])(item)
        for mask in (key for key in keys if key.endswith("_mask")):
            role = mask.removesuffix("_mask")
            check_labelled(item[mask], f"{role} label ({pair[f'{role}_label']})")
            item = CropForegroundd([role, f"{role}_label", mask], source_key=mask, margin=MARGIN)(item)
        if self.contrasts == "synthetic":
            item = with_synthetic_contrasts(item, pair["name"])
        if initial_transform is not None:
            item["initial_transform"] = initial_transform
        match = MatchPaird(self.affine, self.spacing_mm or spacing_mm, align_top_mm=self.align_top_mm)
        return {str(key): value for key, value in match(item).items()}


def transform_of(item: Item, ddf: DDF | None, aligned: bool = True) -> SpatialTransform:
    """Build the transform of a pair that ``Common.read`` read."""
    matrix = item["alignment"].numpy() if aligned else np.eye(4)
    return SpatialTransform(matrix, ddf, grid_of(item["image"]), grid_of(item["fixed"]), grid_of(item["moving"]))


def visible(item: Item, role: str) -> torch.Tensor:
    """Take one of the images as the methods see it: blank outside its mask, if it has one; (1, H, W, L)."""
    image: torch.Tensor = item[role].as_tensor().float()
    mask = item.get(f"{role}_mask")
    return image if mask is None else (image - image.min()) * (mask.as_tensor() > 0)


def measure(
    pair: Mapping[str, Any], alignment: Row, common: Common, method: Method, register: Register | None
) -> tuple[Row, Pictures]:
    """Register one pair in this process and measure the result on the fixed image's own grid.

    Args:
        pair: paths of both images and both label maps.
        alignment: from ``align_pair``.
        common: what is the same for all methods.
        method: that registers.
        register: what ``method.load`` returned: finds the field; None where there is none to find.

    Returns:
        ``dsc`` (mean over the labels), ``hd95_mm``, ``assd_mm``, ``tre_mm`` (mean over the landmarks, NaN without);
        ``folding_percent``, ``ndv_percent`` (non-diffeomorphic volume), ``log_jacobian_sd`` and
        ``learn2reg_log_jacobian_sd`` of the field; ``seconds_align``, ``seconds_register`` (the field),
        ``seconds_resample`` (the image), ``seconds_deformable`` (both), ``peak_memory_mb`` (of this process, from
        reading to resampling), ``regions`` (by label: ``dsc``, ``hd95_mm``, ``assd_mm``, ``volume_mm3`` in the fixed
        image). And the central slices.
    """
    reset_peak_memory()
    item = common.read(pair, alignment["alignment"], method.spacing_mm)
    transform = transform_of(item, None, method.aligned)
    image = item["image"].as_tensor()[None]
    start = time.perf_counter()
    if register is not None:
        transform = replace(transform, ddf=register(image, transform.field_grid))
    registered = time.perf_counter()
    transform.resample(visible(item, "moving"))
    resampled = time.perf_counter()
    row = {
        "seconds_align": alignment["seconds_align"] if method.aligned else 0.0,
        "seconds_register": registered - start,
        "seconds_resample": resampled - registered,
        "seconds_deformable": resampled - start,
        "peak_memory_mb": peak_memory_mb(),
    }
    pictures = central_slices(transform, visible(item, "moving"), "warped")
    found = quality(item, transform, common.label_interpolation) | {"tre_mm": _landmark_error(pair, transform)}
    return found | row, pictures


def quality(item: Item, transform: SpatialTransform, label_interpolation: str) -> Row:
    """Measure a transform of a pair: labels on the fixed image's own grid, the field on its own."""
    fixed = item["fixed_label"].as_tensor()
    warped = transform.resample(item["moving_label"].as_tensor(), mode=label_interpolation)
    spacing = transform.fixed_grid.spacing_mm
    dice = dice_per_label(warped, fixed)
    distances = surface_distances(warped, fixed, spacing.tolist())
    voxels = dict(zip(*(found.tolist() for found in fixed.unique(return_counts=True))))
    regions = {
        str(label): {
            "dsc": dsc,
            "hd95_mm": distances[label].hd95_mm,
            "assd_mm": distances[label].assd_mm,
            "volume_mm3": float(voxels.get(label, 0) * spacing.prod()),
        }
        for label, dsc in dice.items()
    }
    ddf = torch.zeros(3, 5, 5, 5) if transform.ddf is None else transform.ddf
    return {
        "dsc": mean_dice(warped, fixed),
        "hd95_mm": _mean(distance.hd95_mm for distance in distances.values()),
        "assd_mm": _mean(distance.assd_mm for distance in distances.values()),
        "folding_percent": folding_percent(ddf[None]),
        "ndv_percent": non_diffeomorphic_volume_percent(ddf[None]),
        "log_jacobian_sd": log_jacobian_sd(ddf[None]),
        "learn2reg_log_jacobian_sd": learn2reg_log_jacobian_sd(ddf[None]),
        "regions": regions,
    }


def _landmark_error(pair: Mapping[str, Any], transform: SpatialTransform) -> float:
    """Average how far a transform leaves the fixed image's landmarks from the moving image's, mm; NaN without any."""
    if not all(key in pair for key in LANDMARK_KEYS):
        return math.nan
    moving, fixed = (read_points(pair[key]) for key in LANDMARK_KEYS)
    of_moving, of_fixed = match(moving, fixed)
    here, there = fixed.points_mm[of_fixed], moving.points_mm[of_moving]
    return float(tre_mm(here + transform.displacement_at(here).numpy(), there).mean())


def _mean(values: Iterable[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan


def central_slices(transform: SpatialTransform, image: torch.Tensor, name: str) -> Pictures:
    """Resample the three planes through the middle of the fixed image, with square pixels.

    Args:
        transform: to resample by.
        image: (1, H, W, L), of the transform's moving side.
        name: of the picture.

    Returns:
        ``name_plane``: (width, height), bytes; axes run to the right, anterior and superior.
    """
    grid = transform.fixed_grid.canonical(float(transform.fixed_grid.spacing_mm.min()))
    scaled = torch.from_numpy(scale(image.numpy()))
    pictures = {}
    for axis, plane in enumerate(PLANES):
        values = transform.resample(scaled, grid.plane(axis, grid.shape[axis] // 2))[0].numpy()
        pictures[f"{name}_{plane}"] = np.rint(255 * values.squeeze(axis)).astype(np.uint8)
    return pictures
