"""One person scanned twice, simulated: what is moved where nothing changed, and how well a known change is found."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.benchmark.known_fields import brightest, draw_pose_mm, read_head, scans_on_disk
from bundle.io.itk_composites import read_transform
from bundle.io.tables import markdown_table
from bundle.pairs import names_of
from bundle.progress import Progress
from bundle.shapes import DDF
from bundle.spatial import Grid, SpatialTransform
from bundle.synthesis.acquisition import Acquisition
from bundle.synthesis.rescan import draw_region, region_change, region_shift
from bundle.transforms import read_grid

__all__ = ["Rescan", "compare", "measure_rescans", "rescans_markdown", "simulate"]

Row = dict[str, Any]
Register = Callable[[Path, Path, Path], Path]

CHANGES = ("growth", "shift")
PEAKS_MM = (1.0, 2.0, 3.0, 4.0)  # of the changes, in turn
NOISE, BIAS, BLUR = 0.03, 0.1, 0.3  # of either scan: see Acquisition
TURN, SHIFT_MM = 0.05, 4.0  # of the head between the scans, along each axis at most: radians, mm
WIDTH_MM = 5.0  # of the border along which a region grows, shrinks or is shifted
UNEVEN = 0.05  # by which the longest side of a voxel may exceed the shortest
CHANGED_MM = 0.5  # a voxel that moves by more counts as changed


@dataclass(frozen=True, eq=False)
class Rescan:
    """Two scans of one head, and what happened between them.

    Args:
        moving: the first scan, (1, H, W, L).
        fixed: the second one, on the same grid.
        truth: from the second to the first, exactly.
        brain: (1, H, W, L) of bool, on the second.
        region: what grew, shrank or was shifted, in the second; None if nothing was.
    """

    moving: torch.Tensor
    fixed: torch.Tensor
    truth: SpatialTransform
    brain: torch.Tensor
    region: torch.Tensor | None


def simulate(
    image: torch.Tensor, labels: torch.Tensor, grid: Grid, peak_mm: float, seed: int, kind: str = "growth"
) -> Rescan:
    """Scan a head twice, with noise, a bias field and a pose of its own each; in between, a region changes.

    The first scan is anatomy(M p), the second anatomy(p + c(p)), both interpolated by cubic splines, so that
    T(p) = M⁻¹(p + c(p)) holds exactly. The training's rescans (``RandRescand``) are interpolated linearly.

    Args:
        image: (1, H, W, L), from 0 up.
        labels: its regions, same shape; one of them changes, or a ball in the brain.
        grid: of both, with isotropic voxels.
        peak_mm: largest displacement of the change, mm; below 0 the region is larger in the first scan; 0 for none.
        seed: of all that is drawn.
        kind: of the change: ``growth`` (or shrinkage), along the gradient of a potential as ``ElasticRefiner`` expects
            it, or ``shift`` in a direction at random, which has none.
    """
    state = np.random.RandomState(seed)
    spacing = float(grid.spacing_mm.mean())
    pose = draw_pose_mm(state, grid, TURN, SHIFT_MM)
    region, change = None, None
    if peak_mm:
        region = draw_region(state, image, labels)
        lengths = WIDTH_MM / spacing, peak_mm / spacing
        change = (region_change(region, *lengths) if kind == "growth" else _shift(state, region, *lengths))[0]
    first = SpatialTransform(pose, None, grid, grid, grid)
    second = SpatialTransform(np.eye(4), change, grid, grid, grid)
    image = image / brightest(image)
    scans = []
    for transform in (first, second):
        anatomy = transform.resample(image, mode="bspline").clamp(min=0)
        generator = torch.Generator().manual_seed(int(state.randint(2**31)))
        scans.append(Acquisition(blur=BLUR, bias=BIAS, noise=NOISE)(anatomy.float(), generator))
    brain = second.resample(labels, mode="nearest") > 0
    if region is not None:
        region = second.resample(region.to(torch.uint8), mode="nearest") > 0
    truth = SpatialTransform(np.linalg.inv(pose), change, grid, grid, grid)
    return Rescan(scans[0], scans[1], truth, brain, region)


def _shift(state: np.random.RandomState, region: torch.Tensor, width: float, peak: float) -> DDF:
    direction = state.normal(size=3)
    return region_shift(region, width, peak, direction / np.linalg.norm(direction))


def compare(rescan: Rescan, found: SpatialTransform) -> Row:
    """Compare the transform that was found with what happened.

    Args:
        rescan: the two scans.
        found: of their registration, fixed (second) to moving (first).

    Returns:
        ``error_mm`` and ``largest_error_mm`` (brain), the distance between where a point was found and where it is, all
        included: alignment, field; ``log_jacobian_sd`` (brain); ``log_jacobian_bias``, the mean over the brain. Of
        a change: ``changed_mm``, how far the voxels that changed were moved on average, ``changed_error_mm``, the mean
        error there; ``volume_ratio``, the region's volume in the first scan over that in the second, and
        ``volume_ratio_found``.
    """
    grid = rescan.truth.fixed_grid
    want, got = rescan.truth.displacement_field(), found.displacement_field(grid)
    error, brain = (got - want).norm(dim=0), rescan.brain[0]
    jacobian = found.jacobian_on(grid)[0]
    logs = jacobian[brain].clamp(min=1e-3).log()
    row: Row = {"error_mm": float(error[brain].mean()), "largest_error_mm": float(error[brain].max())}
    row |= {"log_jacobian_sd": float(logs.std()), "log_jacobian_bias": float(logs.mean())}
    if rescan.region is None:
        return row
    # T(p) = M⁻¹(p + c(p)): without the pose, the change is left
    moved = rescan.truth.without_alignment().displacement_field().norm(dim=0)
    changed, region = (moved > CHANGED_MM) & brain, rescan.region[0]
    true_jacobian = rescan.truth.jacobian_on(grid)[0]
    row |= {"changed_mm": _mean(moved[changed]), "changed_error_mm": _mean(error[changed])}
    return row | {"volume_ratio": _mean(true_jacobian[region]), "volume_ratio_found": _mean(jacobian[region])}


def _mean(values: torch.Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def measure_rescans(
    items: Sequence[Mapping[str, Any]], seed: int, register: Register, kind: str = "growth"
) -> list[Row]:
    """Simulate two pairs of scans of each head, one without and one with a change, register and judge them.

    Args:
        items: images with labels.
        seed: of the first; the others follow.
        register: takes the paths of a moving and a fixed image and a folder, and returns the path of the transform.
        kind: of the changes: see ``simulate``.

    Returns:
        A row for each pair: ``image``, ``peak_mm`` (0 where nothing changed; of changes 1 to 4 mm in turn, every
        second one a growth) and what ``compare`` says.

    Raises:
        ValueError: another kind, or an image of voxels that are not isotropic, before any work.
    """
    if kind not in CHANGES:
        raise ValueError(f"The change is one of {', '.join(CHANGES)}, not '{kind}'.")
    for item in items:
        _check_isotropic(item["image"])
    rows: list[Row] = []
    names = names_of([item["image"] for item in items])
    with Progress[None](total=2 * len(items), title="registering rescans", unit="pair") as progress:
        for i, item in enumerate(items):
            peak = PEAKS_MM[i % len(PEAKS_MM)] * (1 if (i // len(PEAKS_MM) + i) % 2 else -1)
            for change in (0.0, peak):
                rescan = _simulated(item, change, seed + 2 * i + (change != 0), kind)
                row = {"image": names[item["image"]], "peak_mm": change}
                rows.append(row | compare(rescan, _registered(rescan, register)))
                progress.update()
    return rows


def _check_isotropic(path: str) -> None:
    spacing_mm = read_grid(Path(path), "image")[0].spacing_mm
    if spacing_mm.max() > (1 + UNEVEN) * spacing_mm.min():
        size = "×".join(f"{side:.3g}" for side in spacing_mm)
        raise ValueError(
            f"The image ({path}) has voxels of {size} mm, and changes are simulated in voxels of equal sides: bring it "
            "to one size first (python -m bundle prepare --spacing_mm)."
        )


def _simulated(item: Mapping[str, Any], peak_mm: float, seed: int, kind: str) -> Rescan:
    image, labels, grid = read_head(item)
    return simulate(image, labels, grid, peak_mm, seed, kind)


def _registered(rescan: Rescan, register: Register) -> SpatialTransform:
    grid = rescan.truth.fixed_grid
    with scans_on_disk(rescan.moving, rescan.fixed, grid) as scans:
        found = register(scans["moving"], scans["fixed"], scans["moving"].with_name("out"))
        return read_transform(found, grid, grid)


def rescans_markdown(rows: Sequence[Row]) -> str:
    """Lay out the means (and the worst) over the pairs without and with a change as a Markdown table."""
    head = ["pairs", "n", "error in the brain, mm", "largest, mm", "SD log J"]
    head += ["changed by, mm", "error there, mm", "error of the volume, %"]
    lines = []
    for name, some in (
        ("nothing changed", [r for r in rows if not r["peak_mm"]]),
        ("changed", [r for r in rows if r["peak_mm"]]),
    ):
        cells = [_spread([r[key] for r in some]) for key in ("error_mm", "largest_error_mm", "log_jacobian_sd")]
        if name == "changed":
            cells += [_spread([r[key] for r in some]) for key in ("changed_mm", "changed_error_mm")]
            cells.append(_spread([100 * abs(r["volume_ratio_found"] / r["volume_ratio"] - 1) for r in some], 1))
        lines.append([name, str(len(some)), *cells, *["–"] * (len(head) - 2 - len(cells))])
    return markdown_table(head, lines)


def _spread(values: Sequence[float], decimals: int = 3) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "–"
    return f"{statistics.fmean(finite):.{decimals}f} (worst {max(finite):.{decimals}f})"
