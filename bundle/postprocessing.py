"""From the network's prediction to the transform, the warped images, the numbers and the picture that users get.

A chain of transforms in ``configs/inference.json``; each reads what the ones before added: ``BuildTransformd``,
``ResampleMovingd``, ``MeasureRegistrationd``, on request ``InvertTransformd`` and ``MapJacobiand``, ``DrawOverviewd``,
``PrepareReportd``.
"""

import time
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import torch
from bundle.fields import warp
from bundle.inpainting import UNSURE, dilate, fill_in
from bundle.intensity import fill_value, foreground
from bundle.memory import return_memory
from bundle.metrics import folding_percent, log_jacobian_sd, mean_dice, surface_distances
from bundle.options import check_fill, check_flags, check_numbers
from bundle.plausibility import every, measure
from bundle.report import overview, page_content
from bundle.similarity import likeness, similarity
from bundle.spatial import LABEL_MODES, Inverse, SpatialTransform, compose, inverse_residual, invert
from bundle.transforms import grid_of
from bundle.transforms.extent import check_extent, check_spacing
from monai.transforms import Transform

__all__ = [
    "BuildTransformd",
    "DrawOverviewd",
    "InvertTransformd",
    "MapJacobiand",
    "MeasureRegistrationd",
    "PrepareReportd",
    "ResampleMovingd",
]

Item = dict[Hashable, Any]


class BuildTransformd(Transform):
    """Build the ``SpatialTransform`` from the alignment and the network's field.

    Reads what ``MatchPaird`` left and the network's ``pred``, (4, H, W, L). Where an image does not count (cost masks)
    the field is continued from around. Adds ``transform``; ``ddf``, the field on the network's grid, before it was cut
    to the fixed image, (3, H, W, L), voxels; and ``quality``: ``similarity_before``, ``similarity_aligned`` and
    ``similarity_after``, and the ``contrast_correlation`` and the ``tissue_correlation`` of the aligned images.

    Args:
        never_worse: drop the network's field where it leaves the images less alike than the alignment did, as it may
            on images unlike those of its training; ``quality`` says so (``field_dropped``), and ``pred`` holds the
            aligned image and no displacement then.
        field_spacing_mm: voxel size at which the field is kept, over the whole fixed image; None keeps it at the fixed
            image's, or the network's where that is coarser.
        symmetric: keep the field on the lattice halfway between the images, where ``MatchPaird`` laid it; on another
            its inverse would be less exact.
    """

    def __init__(
        self, never_worse: bool = False, field_spacing_mm: float | None = None, symmetric: bool = False
    ) -> None:
        check_flags(never_worse=never_worse, symmetric=symmetric)
        check_numbers(field_spacing_mm=field_spacing_mm)
        check_spacing(field_spacing_mm, "field_spacing_mm")
        self.never_worse, self.field_spacing_mm, self.symmetric = never_worse, field_spacing_mm, symmetric

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Build it."""
        item, start = dict(data), time.perf_counter()
        check_extent(grid_of(item["fixed"]), self.field_spacing_mm, "field_spacing_mm")
        return_memory()  # what the network's slabs have left
        pred, item["quality"] = self._kept(item)
        item["device"] = item["pred"].device.type
        item["pred"] = pred.to(item["pred"].device)
        found = SpatialTransform(
            item["alignment"].cpu().numpy(),
            pred[1:],
            grid_of(item["image"]),
            grid_of(item["fixed"]),
            grid_of(item["moving"]),
        )
        item["transform"] = found.extended() if self.symmetric else found.resample_field(self.field_spacing_mm)
        item["ddf"] = pred[1:]
        return _timed(item, "resample", start)

    def _kept(self, item: Item) -> tuple[torch.Tensor, dict[str, float]]:
        """The prediction to go on with, (4, H, W, L), and how alike the images are: before, aligned, after."""
        image, pred = (item[k].detach().as_subclass(torch.Tensor).cpu() for k in ("image", "pred"))
        moving, fixed, ignored = image[:1], image[1:], _ignored(item)
        alike = {name: float(value) for name, value in item["alike"].items()}
        if "tissue_correlation" not in alike:  # of a pair whose weights were chosen by it, it is known already
            alike |= likeness(moving, fixed)
        if ignored is not None:
            ddf = fill_in(pred[None, 1:], dilate(ignored[None], UNSURE))
            pred = torch.cat([warp(moving[None], ddf), ddf], 1)[0]
        alike["similarity_after"] = similarity(pred[:1], fixed, ignored)
        if not self.never_worse:
            return pred, alike
        dropped = alike["similarity_after"] < alike["similarity_aligned"]
        if dropped:
            pred = torch.cat([moving, torch.zeros_like(pred[1:])])
            alike["similarity_after"] = alike["similarity_aligned"]
        return pred, alike | {"field_dropped": float(dropped)}


class ResampleMovingd(Transform):
    """Resample the moving image, and its label map if there is one, on the fixed image's own grid.

    Adds ``warped``; ``fill``, its value where nothing of the moving image is; and ``warped_label``.

    Args:
        label_interpolation: ``"label_gaussian"``, or ``"nearest"`` as most papers measure.
        fill: value of ``warped`` where nothing of the moving image is; None chooses by ``fill_value``, the padding
            that the moving image's ``meta`` declares (``padding_value``) first.

    Raises:
        ValueError: an interpolation that mixes labels, or none.
    """

    def __init__(self, label_interpolation: str = "label_gaussian", fill: float | None = None) -> None:
        check_fill(fill)
        self.label_interpolation, self.fill = _checked(label_interpolation), fill

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Resample."""
        item, start = dict(data), time.perf_counter()
        moving, transform = item["moving"].as_tensor().cpu(), item["transform"]
        fill = fill_value(moving, item["moving"].meta.get("padding_value")) if self.fill is None else self.fill
        item["fill"], item["warped"] = fill, transform.resample(moving, fill=fill)
        if "moving_label" in item:
            label = item["moving_label"].as_tensor().cpu()
            item["warped_label"] = transform.resample(label, mode=self.label_interpolation)
        return _timed(item, "resample", start)


class MeasureRegistrationd(Transform):
    """Measure how good the registration is: adds to ``quality`` what ``registration.json`` holds.

    Args:
        surfaces: also measure surface distances of the labels (seconds for many labels).
        label_interpolation: of the moving label before the field, as for ``ResampleMovingd``.
    """

    def __init__(self, surfaces: bool = False, label_interpolation: str = "label_gaussian") -> None:
        check_flags(surfaces=surfaces)
        self.surfaces, self.label_interpolation = surfaces, _checked(label_interpolation)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Measure."""
        item, start = dict(data), time.perf_counter()
        transform, grid = item["transform"], grid_of(item["image"])
        fixed, warped = item["image"].as_tensor()[1:].cpu(), item["pred"].as_subclass(torch.Tensor)[:1].cpu()
        item["quality"] = item["quality"] | self._overlap(item, transform) | _regularity(item)
        item["quality"] |= measure(transform, fixed, warped, grid)
        return _timed(item, "resample", start)

    def _overlap(self, item: Item, transform: SpatialTransform) -> dict[str, float]:
        """The overlap of the labels by the headers, after the alignment and after all; their distances."""
        if "moving_label" not in item or "fixed_label" not in item:
            return {}
        label, fixed_label = (item[k].as_tensor().cpu() for k in ("moving_label", "fixed_label"))
        stages = {"before": transform.without_field(aligned=False), "aligned": transform.without_field()}
        labels = {stage: t.resample(label, mode=self.label_interpolation) for stage, t in stages.items()}
        labels["after"] = item["warped_label"]
        overlap = {f"dice_{stage}": mean_dice(warped, fixed_label) for stage, warped in labels.items()}
        return overlap | (_distances(item["warped_label"], fixed_label, transform) if self.surfaces else {})


class InvertTransformd(Transform):
    """Invert the transform: adds ``inverse``, and ``inverse_mm``, T⁻¹(y) − y at the moving image's voxels, LPS.

    Adds to ``quality`` what |p − T⁻¹(T(p))| is where the fixed image shows something (``inverse_residual``).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Invert."""
        item, start = dict(data), time.perf_counter()
        transform: SpatialTransform = item["transform"]
        item["inverse"] = invert(transform)
        at_voxels = compose([Inverse(transform)], transform.moving_grid, transform.fixed_grid)
        item["inverse_mm"] = at_voxels.displacement_field()
        shown = foreground(item["fixed"].as_tensor()[0].cpu())
        residual = inverse_residual(transform, item["inverse"], shown)
        item["quality"] = item["quality"] | {f"inverse_residual_{name}": value for name, value in residual.items()}
        return _timed(item, "resample", start)


class MapJacobiand(Transform):
    """Compute the determinant of the network's field at the fixed image's voxels: adds ``jacobian``, (1, H, W, L)."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Compute."""
        item, start = dict(data), time.perf_counter()
        found = replace(item["transform"], ddf=item["ddf"], field_grid=grid_of(item["image"]))
        item["jacobian"] = found.without_alignment().jacobian_on().float()
        return _timed(item, "resample", start)


class DrawOverviewd(Transform):
    """Draw what ``overview.png`` shows: adds ``overview``, (H, W, 3), bytes."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Draw."""
        item, start = dict(data), time.perf_counter()
        return_memory()
        fixed, moving = (item[k].as_tensor().cpu() for k in ("fixed", "moving"))
        item["overview"] = overview(fixed, moving, item["warped"], item["transform"])
        return _timed(item, "report", start)


class PrepareReportd(Transform):
    """Bring what ``report.html`` shows onto its small grid: adds ``report``, a ``PageContent``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Prepare."""
        item, start = dict(data), time.perf_counter()
        return_memory()
        fixed, moving = (item[k].as_tensor().cpu() for k in ("fixed", "moving"))
        fixed_label, moving_label = (
            item[k].as_tensor().cpu() if k in item else None for k in ("fixed_label", "moving_label")
        )
        labels = {"fixed_label": fixed_label, "moving_label": moving_label, "warped_label": item.get("warped_label")}
        item["report"] = page_content(fixed, moving, item["warped"], item["transform"], **labels)
        return _timed(item, "report", start)


def _ignored(item: Item) -> torch.Tensor | None:
    """Where either image does not count, (1, H, W, L); None for nowhere."""
    return item["ignored"].as_subclass(torch.Tensor).any(0, keepdim=True) if "ignored" in item else None


def _checked(label_interpolation: str) -> str:
    if label_interpolation not in LABEL_MODES:
        raise ValueError(f"label_interpolation is one of {', '.join(LABEL_MODES)}, not '{label_interpolation}'.")
    return label_interpolation


def _timed(item: Item, stage: str, start: float) -> Item:
    """Add the seconds since a start to a stage."""
    seconds = {"resample": 0.0, "report": 0.0} | {k: float(v) for k, v in item.get("seconds", {}).items()}
    seconds[stage] += time.perf_counter() - start
    return item | {"seconds": seconds}


def _regularity(item: Item) -> dict[str, float]:
    """How regular the field is, on the network's grid, and how far it moves in the fixed image; not the alignment."""
    ddf, length_mm = item["ddf"][None], _field_at_voxels(item["transform"]).norm(dim=0)
    return {
        "folding_percent": folding_percent(ddf),
        "log_jacobian_sd": log_jacobian_sd(ddf),
        "mean_field_displacement_mm": float(length_mm.mean()),
        "max_field_displacement_mm": float(length_mm.max()),
    }


def _field_at_voxels(transform: SpatialTransform) -> torch.Tensor:
    """U at the voxels of the fixed image, of a large one at every other or fewer: (3, H, W, L), mm, in some order."""
    field, fixed = transform.field_mm, transform.fixed_grid
    if field is None:
        raise ValueError("There is no field to measure: BuildTransformd comes first.")
    if fixed.orthogonal() is fixed and transform.field_grid.is_close(fixed.canonical()):
        return field  # its voxels are those
    return transform.without_alignment().displacement_field(every(fixed))


def _distances(warped: torch.Tensor, fixed: torch.Tensor, transform: SpatialTransform) -> dict[str, float]:
    spacing = [float(s) for s in transform.fixed_grid.spacing_mm]
    distances = surface_distances(warped, fixed, spacing)
    table = torch.tensor([tuple(d) for d in distances.values()], dtype=torch.float64)
    assd, hd95 = table.nanmean(0).tolist() if len(table) else (float("nan"), float("nan"))
    return {"assd_mm": assd, "hd95_mm": hd95}
