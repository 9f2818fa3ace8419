"""From the network's prediction to the one transform that everything else asks, and how good it is."""

import json
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from bundle.fields import compose, warp
from bundle.intensity import fill_value
from bundle.metrics import folding_percent, log_jacobian_sd, mean_dice, surface_distances
from bundle.optimisation import PairwiseOptimiser, smooth, unfold
from bundle.options import check_flags, check_numbers
from bundle.plausibility import measure
from bundle.report import overview
from bundle.similarity import similarity
from bundle.spatial import LABEL_MODES, SpatialTransform
from bundle.transforms import grid_of
from monai.inferers import SimpleInferer
from monai.transforms import Transform

__all__ = ["RecursiveInferer", "SpatialTransformd", "recommended"]

Item = dict[Hashable, Any]

UNSHARP_SIGMA = 0.7  # voxels


def recommended(weights: str, setting: str, default: Any = None) -> Any:
    """Look up a setting that suits some weights, such as the ``spacing_mm`` they were trained at.

    Args:
        weights: path of the weights; ``NAME.json`` beside ``NAME.pt`` describes them.
        setting: key of the description.
        default: for weights without a description, or one that lacks the setting.
    """
    description = Path(weights).with_suffix(".json")
    return json.loads(description.read_text()).get(setting, default) if description.is_file() else default


class RecursiveInferer(SimpleInferer):
    """Run the network again on what it has aligned so far, and compose the fields: for large displacements.

    The image is interpolated once, by the composed field, however many passes there are.

    Args:
        passes: how often the network runs.
        unfolded: smooth the field where it folds, and nowhere else.
        optimiser: refines the field for the pair afterwards; None leaves it as it is.
        gamma: exponent of the intensities that the network sees; below 1 it lifts the darker tissues.
        sharpening: strength of an unsharp mask on what the network sees, 0 for none.

    Raises:
        ValueError: less than one pass, an exponent that is not positive, or a negative strength.
    """

    def __init__(
        self,
        passes: int = 1,
        unfolded: bool = False,
        optimiser: PairwiseOptimiser | None = None,
        gamma: float = 1.0,
        sharpening: float = 0.0,
    ) -> None:
        super().__init__()
        check_flags(unfolded=unfolded)
        check_numbers(gamma=gamma, sharpening=sharpening)
        if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
            raise ValueError(f"The network runs a whole number of times, at least once, not {passes} times.")
        if gamma <= 0 or sharpening < 0:
            raise ValueError(f"gamma is above 0 and sharpening not below, got {gamma} and {sharpening}.")
        self.passes, self.unfolded, self.optimiser = passes, unfolded, optimiser
        self.gamma, self.sharpening = gamma, sharpening

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Map ``image`` (B, 2, H, W, L) to ``pred`` (B, 4, H, W, L)."""
        inputs = inputs.as_subclass(torch.Tensor)
        seen = self.sharpen(inputs)
        moving, fixed = seen[:, :1], seen[:, 1:]
        pred = network(seen)
        for _ in range(self.passes - 1):
            found = pred[:, 1:].clone()  # a compiled network writes every result to the same place
            residual = network(torch.cat([pred[:, :1], fixed], 1))[:, 1:]
            ddf = compose(found, residual)
            pred = torch.cat([warp(moving, ddf), ddf], 1)
        ddf = pred[:, 1:]
        if self.unfolded:
            ddf = unfold(ddf)
        if self.optimiser is not None:
            ddf = self.optimiser(inputs, ddf)
        return torch.cat([warp(inputs[:, :1], ddf), ddf], 1)

    def sharpen(self, image: torch.Tensor) -> torch.Tensor:
        """Bring out weak edges of an image in [0, 1], (B, C, H, W, L): the exponent first, then the unsharp mask."""
        if self.gamma != 1:
            image = image.clamp(min=0) ** self.gamma
        if self.sharpening > 0:
            image = (image + self.sharpening * (image - smooth(image, UNSHARP_SIGMA))).clamp(0, 1)
        return image


class SpatialTransformd(Transform):
    """Build the ``SpatialTransform`` from the prediction and ask it for all that users want.

    Reads what ``MatchPaird`` left and the network's ``pred``. Adds ``transform``; its ``ddf``, (3, H, W, L), voxels;
    ``warped``, the moving image on the fixed image's own grid; ``warped_label`` where there is a moving label;
    ``fill``, its value where nothing of the moving image is; ``quality``, the numbers of ``registration.json``; and
    ``overview``, the picture (H, W, 3) of bytes.

    Args:
        surfaces: also measure surface distances of the labels (seconds for many labels).
        pictures: whether to draw the overview.
        never_worse: drop the network's field where it leaves the images less alike than the alignment did, as it may
            on images unlike those of its training; ``quality`` says so (``field_dropped``).
        label_interpolation: of the moving label: ``"label_gaussian"``, or ``"nearest"`` as most papers measure.
        field_spacing_mm: voxel size at which the field is kept, over the whole fixed image; None keeps it at the fixed
            image's, or the network's where that is coarser.
        fill: value of ``warped`` where nothing of the moving image is; None chooses by ``fill_value``, the padding
            that the moving image's ``meta`` declares (``padding_value``) first.

    Raises:
        ValueError: an interpolation that mixes labels, or none.
    """

    def __init__(
        self,
        surfaces: bool = False,
        pictures: bool = True,
        never_worse: bool = False,
        label_interpolation: str = "label_gaussian",
        field_spacing_mm: float | None = None,
        fill: float | None = None,
    ) -> None:
        check_flags(surfaces=surfaces, pictures=pictures, never_worse=never_worse)
        check_numbers(field_spacing_mm=field_spacing_mm)
        if label_interpolation not in LABEL_MODES:
            raise ValueError(f"label_interpolation is one of {', '.join(LABEL_MODES)}, not '{label_interpolation}'.")
        self.surfaces, self.pictures, self.never_worse = surfaces, pictures, never_worse
        self.label_interpolation, self.field_spacing_mm, self.fill = label_interpolation, field_spacing_mm, fill

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Build, resample, measure, draw."""
        item, start = dict(data), time.perf_counter()
        moving = item["moving"].as_tensor().cpu()
        pred, alike = self._kept(item)
        item["pred"] = pred.to(item["pred"].device)
        found = SpatialTransform(
            item["alignment"].cpu().numpy(),
            pred[1:],
            grid_of(item["image"]),
            grid_of(item["fixed"]),
            grid_of(item["moving"]),
        )
        transform = item["transform"] = found.kept_at(self.field_spacing_mm)
        item["ddf"] = transform.ddf
        fill = fill_value(moving, item["moving"].meta.get("padding_value")) if self.fill is None else self.fill
        item["fill"], item["warped"] = fill, transform.resample(moving, fill=fill)
        if "moving_label" in item:
            label = item["moving_label"].as_tensor().cpu()
            item["warped_label"] = transform.resample(label, mode=self.label_interpolation)
        item["quality"] = alike | self._quality(item, transform)
        item["quality"] |= measure(transform, item["image"].as_tensor()[1:].cpu(), pred[:1], grid_of(item["image"]))
        resampled = time.perf_counter()
        if self.pictures:
            item["overview"] = overview(item["fixed"].as_tensor().cpu(), moving, item["warped"], transform)
        item["seconds"] = {k: float(v) for k, v in item.get("seconds", {}).items()}
        item["seconds"] |= {"resample": resampled - start, "report": time.perf_counter() - resampled}
        return item

    def _kept(self, item: Item) -> tuple[torch.Tensor, dict[str, float]]:
        """The prediction to go on with, (4, H, W, L), and how alike the images are: before, aligned, after."""
        image, pred = (item[k].detach().as_subclass(torch.Tensor).cpu() for k in ("image", "pred"))
        moving, fixed = image[:1], image[1:]
        alike = {name: float(value) for name, value in item["alike"].items()}
        alike["similarity_after"] = similarity(pred[:1], fixed)
        if not self.never_worse:
            return pred, alike
        dropped = alike["similarity_after"] < alike["similarity_aligned"]
        if dropped:
            pred = torch.cat([moving, torch.zeros_like(pred[1:])])
            alike["similarity_after"] = alike["similarity_aligned"]
        return pred, alike | {"field_dropped": float(dropped)}

    def _quality(self, item: Item, transform: SpatialTransform) -> dict[str, float]:
        """Measure the overlap before, after the alignment and after all; and how regular the field is."""
        quality = {}
        if "moving_label" in item and "fixed_label" in item:
            label, fixed_label = (item[k].as_tensor().cpu() for k in ("moving_label", "fixed_label"))
            headers, aligned = transform.without_field(aligned=False), transform.without_field()
            for stage, t in (("before", headers), ("aligned", aligned), ("after", transform)):
                warped = item["warped_label"] if t is transform else t.resample(label, mode=self.label_interpolation)
                quality[f"dice_{stage}"] = mean_dice(warped, fixed_label)
            if self.surfaces:
                quality |= self._surface_quality(item["warped_label"], fixed_label, transform)
        ddf, field_mm = transform.ddf, transform.field_mm
        assert ddf is not None
        assert field_mm is not None
        quality |= {"folding_percent": folding_percent(ddf[None]), "log_jacobian_sd": log_jacobian_sd(ddf[None])}
        length_mm = field_mm.norm(dim=0)  # of the network's displacement, without the alignment
        return quality | {
            "mean_field_displacement_mm": float(length_mm.mean()),
            "max_field_displacement_mm": float(length_mm.max()),
        }

    @staticmethod
    def _surface_quality(warped: torch.Tensor, fixed: torch.Tensor, transform: SpatialTransform) -> dict[str, float]:
        spacing = [float(s) for s in transform.fixed_grid.spacing_mm]
        distances = surface_distances(warped, fixed, spacing)
        table = torch.tensor([tuple(d) for d in distances.values()], dtype=torch.float64)
        assd, hd95 = table.nanmean(0).tolist() if len(table) else (float("nan"), float("nan"))
        return {"assd_mm": assd, "hd95_mm": hd95}
