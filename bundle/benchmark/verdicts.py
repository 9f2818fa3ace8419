"""How well the judgement of a registration tells good ones from spoiled ones.

Every pair is registered; some are then spoiled on purpose. Bounds are set on the good pairs of one half, and the pairs
of the other half are judged by them. The halves share no fixed image.
"""

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from bundle.benchmark.kept import digest, read_kept, stem_of, versions, weights_used, write_kept
from bundle.inference import infer_pair
from bundle.intensity import percentile_range, scale_between
from bundle.io.plain import plain
from bundle.pairs import PAIR_KEYS
from bundle.plausibility import LIMITS
from bundle.postprocessing import MeasureRegistrationd
from bundle.progress import Progress
from bundle.report import judge
from bundle.root import ROOT, WEIGHTS
from bundle.similarity import similarity
from bundle.spatial import SpatialTransform
from bundle.transforms import grid_of
from bundle.weights import recommended

__all__ = ["GOOD", "KINDS", "MEASURES", "bounds_from", "rows_of", "separation", "split_and_judge"]

Row = dict[str, Any]
Pair = Mapping[str, str]

GOOD = "good"
OTHER_PART = "other part"
KINDS = ("shifted", "negated", "turned", "noise", OTHER_PART)
SHIFT_MM = 15.0
MEASURES = {  # which end counts, and the least slack
    "foreground_similarity": (1, 0.02),
    "foreground_dice": (1, 0.01),
    "common_view_percent": (1, 10.0),  # a scan cut closer says nothing of the registration
    "foreground_log_jacobian_sd": (-1, 0.05),
    "max_nonrigid_displacement_mm": (-1, 2.0),
    "folding_percent": (-1, 0.02),
}


def rows_of(
    pairs: Sequence[Pair], foreign: Sequence[str], spoiled: int, cache: Path, options: Mapping[str, Any]
) -> list[Row]:
    """Register the pairs, good and spoiled: a row each.

    A row is read from the cache where an earlier call made it of the same images, weights and options.

    Args:
        pairs: with labels on both sides.
        foreign: images of another part of the body.
        spoiled: how many are spoiled, evenly over the pairs and the kinds.
        cache: folder of the rows and of the images made for them.
        options: keys of ``configs/inference.json``.
    """
    cache.mkdir(parents=True, exist_ok=True)
    made_by: Row = {
        "weights": weights_used(options.get("ckpt", WEIGHTS)),
        "options": dict(options),
        "versions": versions(),
    }
    made_by["field"] = "measured before it is cut"
    chosen = {pairs[n * len(pairs) // spoiled]["name"]: (n, KINDS[n % len(KINDS)]) for n in range(spoiled)}
    rows = []
    for pair in Progress(pairs, title="registering good and spoiled", unit="pair"):
        n, kind = chosen.get(pair["name"], (0, GOOD))
        other = foreign[n % len(foreign)]
        files = {key: digest(pair[key]) for key in PAIR_KEYS if key in pair}
        asked = {name: made_by | {"pair": pair["name"], "kind": name, "files": files} for name in {GOOD: 0, kind: 0}}
        if kind == OTHER_PART:
            asked[kind]["foreign"] = digest(other)
        find = _Finder(pair, other, cache, options)
        for name, depends in asked.items():
            quality = _kept(stem_of(cache, f"{pair['name']}.{name.replace(' ', '_')}", depends), depends, find)
            rows.append({"pair": pair["name"], "fixed": pair["fixed"], "kind": name, **quality})
    return rows


def _kept(stem: str, depends: Mapping[str, Any], find: Callable[[str], Row]) -> Row:
    """Look up the numbers of a registration, or find and keep them."""
    quality = read_kept(stem)
    if quality is None:
        quality = plain(find(depends["kind"]))
        write_kept(stem, quality, depends)
    return quality


def bounds_from(rows: Sequence[Row]) -> dict[str, tuple[float | None, float | None]]:
    """Set bounds on rows, good and spoiled.

    A measure that tells all spoiled ones from all good ones gets the middle between the two. Any other gets the worst
    of the good, with a standard deviation to spare. Either leaves the worst of the good the least slack of
    ``MEASURES``, even where that is more than half of the way to the spoiled, or beyond them.
    """
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for name, (sign, slack) in MEASURES.items():
        good, spoiled = (
            sign * np.array([row[name] for row in rows if (row["kind"] == GOOD) == wanted], dtype=float)
            for wanted in (True, False)
        )
        worst, best = np.nanmin(good), np.nanmax(spoiled, initial=-math.inf)
        spare = float(worst - best) / 2 if math.isfinite(best) and best < worst else float(np.nanstd(good))
        bound = float(sign * (worst - max(spare, slack)))
        bounds[name] = (round(bound, 3), None) if sign > 0 else (None, round(bound, 3))
    return bounds


def separation(rows: Sequence[Row], look_here: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Judge registrations: the part of the spoiled that are not called good, and of the good that are."""
    numbers = [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
    called = [(row["kind"], judge(row, LIMITS, look_here).level) for row in numbers]
    spoiled = [level for kind, level in called if kind != GOOD]
    good = [level for kind, level in called if kind == GOOD]
    return {
        "good": len(good),
        "spoiled": len(spoiled),
        "specificity": sum(level == GOOD for level in good) / max(len(good), 1),
        "sensitivity": sum(level != GOOD for level in spoiled) / max(len(spoiled), 1),
        "sensitivity of failed alone": sum(level == "failed" for level in spoiled) / max(len(spoiled), 1),
        "good ones that failed": sum(level == "failed" for level in good),
    }


def split_and_judge(rows: Sequence[Row]) -> dict[str, Any]:
    """Set bounds on the pairs of each half in turn, and judge the other half by them."""
    names = sorted({row["fixed"] for row in rows})
    halves = [[row for row in rows if row["fixed"] in part] for part in (names[::2], names[1::2])]
    result: dict[str, Any] = {"pairs": len({row["pair"] for row in rows}), "rows": len(rows)}
    for place, (setting, judged) in zip(("first", "second"), (halves, halves[::-1])):
        bounds = bounds_from(setting)
        result[f"bounds of the {place} half, the other half judged"] = {"bounds": bounds, **separation(judged, bounds)}
    config = json.loads((ROOT / "configs" / "inference.json").read_text())
    shipped = {**(recommended(str(WEIGHTS), "look_here") or {}), **config["thresholds"]["look_here"]}
    result["shipped bounds, all judged"] = {"bounds": shipped, **separation(rows, shipped)}
    dice = {
        kind: [row["dice_after"] for row in rows if row["kind"] == kind and row.get("dice_after") is not None]
        for kind in (GOOD, *KINDS)
    }
    result["mean Dice"] = {kind: round(float(np.mean(values)), 3) for kind, values in dice.items() if values}
    return result


@dataclass(frozen=True)
class _Finder:
    """Find the numbers of a pair, or those of its spoiled twin; the pair itself is registered once at most."""

    pair: Pair
    foreign: str
    cache: Path
    options: Mapping[str, Any]

    def __call__(self, kind: str) -> Row:
        if kind == GOOD:
            return dict(self._item["quality"])
        if kind in ("shifted", "negated"):
            return _measured_again(self._item, kind)
        moving = self.foreign if kind == OTHER_PART else str(_spoiled_image(self.pair["moving"], kind, self.cache))
        twin = {"name": self.pair["name"], "moving": moving, "fixed": self.pair["fixed"]}
        return dict(infer_pair(twin, **self.options)["quality"])

    @cached_property
    def _item(self) -> dict[str, Any]:
        return infer_pair(self.pair, **self.options)


def _spoiled_transform(transform: SpatialTransform, kind: str) -> SpatialTransform:
    """The alignment shifted along three axes at once; or the field with its sign turned."""
    if kind == "negated":
        return replace(transform, ddf=None if transform.ddf is None else -transform.ddf)
    alignment = transform.alignment.copy()
    alignment[:3, 3] += SHIFT_MM / math.sqrt(3)
    return replace(transform, alignment=alignment)


def _measured_again(item: dict[str, Any], kind: str) -> dict[str, float]:
    """The numbers of the same images by a spoiled transform."""
    found_there = replace(item["transform"], ddf=item["ddf"], field_grid=grid_of(item["image"]))
    whole = _spoiled_transform(found_there, kind)
    transform = whole.resample_field()
    grid, fixed = grid_of(item["image"]), item["image"].as_tensor()[1:].cpu()
    moving = item["moving"].as_tensor().cpu().float()
    warped = transform.resample(moving, grid)
    warped = scale_between(warped, *percentile_range(moving))
    found: dict[Hashable, Any] = {}
    found.update(item)
    found["transform"], found["ddf"] = transform, whole.ddf
    found["pred"] = torch.cat([warped, torch.zeros(3, *warped.shape[1:])])
    found["quality"] = {**item["quality"], "similarity_after": similarity(warped, fixed)}
    if "moving_label" in item:
        found["warped_label"] = transform.resample(item["moving_label"].as_tensor().cpu(), mode="label_gaussian")
    return dict(MeasureRegistrationd()(found)["quality"])


def _spoiled_image(path: str, kind: str, cache: Path) -> Path:
    """The image turned by a quarter about one axis under the same header; or its voxels shuffled."""
    image = nibabel.load(path)
    values: npt.NDArray[Any] = np.asarray(image.dataobj)
    if kind == "turned":
        values = np.ascontiguousarray(np.rot90(values, axes=(0, 1)))
    else:
        values = np.random.default_rng(0).permutation(values.ravel()).reshape(values.shape)
    written = cache / f"{kind}_{Path(path).name}"
    nibabel.save(nibabel.Nifti1Image(values, image.affine), written)
    return written
