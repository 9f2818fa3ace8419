"""How well two label maps agree: overlap, and distance between their surfaces. One pair at a time."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from bundle.labels import LARGEST_COUNTED, consecutive
from bundle.shapes import Labels
from monai.metrics.utils import get_mask_edges, get_surface_distance
from monai.utils import convert_to_tensor
from scipy.ndimage import find_objects

__all__ = ["SurfaceDistances", "dice_per_label", "mean_dice", "surface_distances"]


def dice_per_label(warped: Labels, fixed: Labels, labels: Sequence[int] | None = None) -> dict[int, float]:
    """Compute the Dice coefficient of each label of one pair: 2·|W ∩ F| / (|W| + |F|).

    Counted by histograms of both maps and of the voxels where they agree, so the cost does not grow with the number
    of labels. A label that only one map holds scores 0: it is a failure of the registration, not a missing value.

    Args:
        warped: label map of one image, (H, W, L) or with leading sides of 1; whole numbers of any dtype.
        fixed: label map on the same grid, on any device.
        labels: labels to score; all that either map holds when None. The background, 0, is never scored.

    Returns:
        DSC in [0, 1] by label, ascending. With ``labels`` exactly those, NaN for one that neither map holds.

    Raises:
        ValueError: the grids differ, a map is not of one image or not of whole numbers from 0 up, or ``labels``
            holds a number below 1.

    Source:
        Equals ``monai.metrics.compute_dice(ignore_empty=False)`` wherever either map holds the label. MONAI's default
        drops labels that the fixed map lacks; its other choice scores 1 for those that both lack.

    Example:
        >>> warped, fixed = torch.tensor([[[1, 1, 2, 0]]]), torch.tensor([[[0, 1, 2, 2]]])
        >>> {label: round(dsc, 3) for label, dsc in dice_per_label(warped, fixed).items()}
        {1: 0.667, 2: 0.667}
    """
    numbers, dsc = _overlaps(warped, fixed)
    found = dict(zip(numbers.tolist(), dsc.tolist(), strict=True))
    return {label: found.get(label, math.nan) for label in _wanted(labels, found)}


def mean_dice(warped: Labels, fixed: Labels, labels: Sequence[int] | None = None) -> float:
    """Average the Dice coefficient over the labels that either map of one pair holds.

    Args:
        warped: label map, see ``dice_per_label``.
        fixed: label map on the same grid.
        labels: labels to average over, all when None.

    Returns:
        Mean DSC in [0, 1]; NaN when neither map holds a label.

    Raises:
        ValueError: see ``dice_per_label``.

    Example:
        >>> mean_dice(torch.tensor([[[1, 2]]]), torch.tensor([[[1, 3]]]))  # DSC 1, 0 and 0
        0.3333333333333333
    """
    if labels is None:
        return float(_overlaps(warped, fixed)[1].mean())
    present = [dsc for dsc in dice_per_label(warped, fixed, labels).values() if not math.isnan(dsc)]
    return sum(present) / len(present) if present else math.nan


def _overlaps(warped: Labels, fixed: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    """List the labels that either map holds, but 0, and the Dice coefficient of each, float64."""
    numbers, w, f = _numbered(warped, fixed)
    in_warped, in_fixed, in_both = (m.flatten().bincount(minlength=len(numbers)) for m in (w, f, f[f == w]))
    sizes = in_warped + in_fixed
    present = sizes[1:].nonzero().flatten() + 1
    return numbers[present], 2 * in_both[present].double() / sizes[present]


class SurfaceDistances(NamedTuple):
    """Distances between the two surfaces of one label, in millimetres."""

    assd_mm: float
    """Average symmetric surface distance: mean of the two directed averages."""

    hd95_mm: float
    """95th percentile Hausdorff distance: larger of the two directed percentiles."""


def surface_distances(
    warped: Labels, fixed: Labels, spacing_mm: Sequence[float], labels: Sequence[int] | None = None
) -> dict[int, SurfaceDistances]:
    """Compute how far apart the surfaces of each label of one pair lie.

    A surface is the set of a label's voxels with one of six neighbours outside the label; beyond the image counts as
    outside. From every surface voxel of one map the distance between voxel centres to the nearest of the other map is
    taken, in both directions. ASSD = ½ (mean d(W→F) + mean d(F→W)), HD95 = max(P₉₅ d(W→F), P₉₅ d(F→W)).

    Args:
        warped: label map of one image, (H, W, L) or with leading sides of 1; whole numbers of any dtype.
        fixed: label map on the same grid.
        spacing_mm: size of a voxel along the three axes of the array, mm.
        labels: labels to measure; all that either map holds when None.

    Returns:
        Distances in mm by label, ascending, or for exactly ``labels``. NaN for a label that one map or both lack: no
        distance exists. A mean that skips NaN is therefore to be read beside Dice, which is 0 there.

    Raises:
        ValueError: see ``dice_per_label``; or the spacing is not three positive numbers.

    Source:
        ASSD is the mean of ``monai.metrics.compute_average_surface_distance`` in both directions: its ``symmetric``
        pools both surfaces and so weights them by their size. HD95 is ``monai.metrics.compute_hausdorff_distance``.

    Example:
        >>> fixed = torch.zeros(3, 4, 5)
        >>> fixed[1] = 7
        >>> surface_distances(fixed.roll(1, 0), fixed, (2.5, 1, 1))
        {7: SurfaceDistances(assd_mm=2.5, hd95_mm=2.5)}
    """
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (3,) or not np.all(np.isfinite(spacing) & (spacing > 0)):
        raise ValueError(f"The spacing must be three positive numbers of mm, got {spacing_mm}.")
    numbers, w, f = (m.cpu().numpy() for m in _numbered(warped, fixed))
    boxes_w, boxes_f = ({i: box for i, box in enumerate(find_objects(m), 1) if box is not None} for m in (w, f))
    indices = {int(numbers[i]): i for i in sorted({*boxes_w, *boxes_f})}
    found = {label: SurfaceDistances(math.nan, math.nan) for label in indices}
    wanted = _wanted(labels, found)
    for label in {*wanted} & {*found}:
        i = indices[label]
        if i in boxes_w and i in boxes_f:
            box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(boxes_w[i], boxes_f[i]))
            found[label] = _mask_distances(w[box] == i, f[box] == i, spacing)
    return {label: found.get(label, SurfaceDistances(math.nan, math.nan)) for label in wanted}


def _label_pair(warped: Labels, fixed: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Check two label maps and return them as (H, W, L) whole numbers, on the first one's device."""
    w, f = (_label_map(warped), _label_map(fixed))
    if w.shape != f.shape:
        raise ValueError(f"Label maps must share a grid, got {tuple(w.shape)} and {tuple(f.shape)}.")
    return w, f.to(w.device)  # an engine moves what the network sees to its device, and no label maps


def _numbered(warped: Labels, fixed: Labels) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Check two label maps and renumber them for histograms: the labels by index, and the maps of indices."""
    w, f = _label_pair(warped, fixed)
    largest = int(max(w.max(), f.max()))
    if largest <= LARGEST_COUNTED:
        return torch.arange(largest + 1, device=w.device), w, f
    numbers, (w, f) = consecutive(torch.stack([w, f]))
    return numbers, w, f


def _label_map(labels: Labels) -> torch.Tensor:
    """Check one label map and return it as (H, W, L) whole numbers."""
    plain = convert_to_tensor(labels, track_meta=False)
    if plain.dim() < 3 or any(n != 1 for n in plain.shape[:-3]) or not plain.numel():
        raise ValueError(f"A label map must be (H, W, L) of one image, got {tuple(plain.shape)}.")
    plain = plain.reshape(plain.shape[-3:])
    whole = plain.long()
    if not torch.equal(whole.to(plain.dtype), plain) or whole.min() < 0:
        raise ValueError("Labels must be whole numbers from 0 up; warp label maps by nearest.")
    return whole


def _wanted(labels: Sequence[int] | None, found: dict[int, Any]) -> list[int]:
    """Choose the labels to report."""
    if labels is not None and any(label < 1 for label in labels):
        raise ValueError(f"Labels to score must be 1 or more, got {list(labels)}.")
    return list(found) if labels is None else list(labels)


def _mask_distances(
    warped: npt.NDArray[np.bool_], fixed: npt.NDArray[np.bool_], spacing: npt.NDArray[np.float64]
) -> SurfaceDistances:
    """Measure two non-empty masks, cropped to the label: erosion takes all beyond the crop as outside."""
    edge_w, edge_f = get_mask_edges(warped, fixed, crop=False)
    there = get_surface_distance(edge_w, edge_f, spacing=spacing)
    back = get_surface_distance(edge_f, edge_w, spacing=spacing)
    assd = (there.mean(dtype=np.float64) + back.mean(dtype=np.float64)) / 2
    return SurfaceDistances(float(assd), float(max(np.percentile(there, 95), np.percentile(back, 95))))
