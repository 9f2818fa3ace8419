"""What a lesion in one of two images does to the field around it, with and without a mask that leaves it out."""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.intensity import foreground
from bundle.io.images import read_image, write_image
from bundle.io.itk_composites import read_transform
from bundle.io.tables import markdown_table
from bundle.progress import Progress
from bundle.spatial import Grid, SpatialTransform
from bundle.transforms import grid_of

__all__ = ["draw_lesion", "field_errors", "lesions_markdown", "measure_lesions"]

Row = dict[str, Any]
Register = Callable[..., Path]

RADIUS_MM = 14.0, 22.0
OFF_CENTRE_MM = 36.0, 36.0, 24.0  # along x, y and z at most, from the middle of what the image shows
BRIGHTNESS = 1.0, 1.4  # of the 99th percentile of the intensities
NOISE = 0.05  # of the lesion's own brightness


def draw_lesion(image: torch.Tensor, grid: Grid, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a bright ball into an image: nothing in another image corresponds to it.

    Args:
        image: (1, H, W, L), from 0 up.
        grid: its voxels in space.
        seed: of its place, size and brightness.

    Returns:
        The image with the lesion, float32, and the lesion's mask, uint8, same shape.
    """
    state = np.random.RandomState(seed)
    middle = grid.to_points(torch.nonzero(foreground(image[0].float())).double().mean(0).numpy())
    centre = torch.from_numpy(middle + state.uniform(-1, 1, 3) * OFF_CENTRE_MM)
    radius = state.uniform(*RADIUS_MM)
    inside = torch.zeros(grid.shape, dtype=torch.bool)
    for rows, points in grid.slabs():
        inside[rows] = (points - centre).norm(dim=-1) < radius
    brightness = state.uniform(*BRIGHTNESS) * float(np.percentile(image.numpy(), 99))
    found = image[0].float().clone()
    noisy = brightness * (1 + NOISE * state.standard_normal(int(inside.sum())))
    found[inside] = torch.from_numpy(noisy).float()
    return found[None], inside[None].to(torch.uint8)


def field_errors(
    clean: SpatialTransform, found: Sequence[SpatialTransform], counts: torch.Tensor, grid: Grid
) -> list[float]:
    """Measure how far transforms of a pair with a lesion are from that of the pair without it: mean distances, mm.

    Args:
        clean: fixed to moving, of the pair as it is.
        found: of the pair with the lesion.
        counts: (H, W, L), bool, on ``grid``.
        grid: of the fixed image.
    """
    wanted = clean.displacement_field(grid)
    return [float((one.displacement_field(grid) - wanted).norm(dim=0)[counts].mean()) for one in found]


def measure_lesions(pairs: Sequence[Mapping[str, Any]], seed: int, register: Register) -> list[Row]:
    """Register each pair as it is, with a lesion in one image, and with that lesion left out by a mask.

    Args:
        pairs: with ``name``, ``moving`` and ``fixed``, paths.
        seed: of the first lesion; the others follow.
        register: takes the paths of a moving and a fixed image, a folder, and as options ``moving_cost_mask`` or
            ``fixed_cost_mask``; returns the path of the transform.

    Returns:
        A row for each pair: ``pair``, the ``image`` with the lesion (moving and fixed in turn), its ``lesion_ml``, and
        in what the fixed image shows outside of it ``error_without_mm`` and ``error_with_mm``, of the registrations
        without and with the mask, and their ``ratio``.
    """
    rows = []
    with Progress[None](total=len(pairs), title="registering lesions", unit="pair") as progress:
        for n, pair in enumerate(pairs):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(_measured(pair, ("fixed", "moving")[n % 2], seed + n, Path(folder), register))
            progress.update()
    return rows


def _measured(pair: Mapping[str, Any], role: str, seed: int, folder: Path, register: Register) -> Row:
    paths = {name: Path(pair[name]) for name in ("moving", "fixed")}
    images = {name: read_image(path) for name, path in paths.items()}
    grids = {name: grid_of(image) for name, image in images.items()}
    image, mask = draw_lesion(images[role].as_tensor(), grids[role], seed)
    with_lesion, cost_mask = {**paths, role: folder / "image.nii.gz"}, folder / "mask.nii.gz"
    write_image(image, grids[role], with_lesion[role])
    write_image(mask, grids[role], cost_mask)
    runs: list[tuple[dict[str, Path], dict[str, str]]]
    runs = [(paths, {}), (with_lesion, {}), (with_lesion, {f"{role}_cost_mask": str(cost_mask)})]
    files = [register(p["moving"], p["fixed"], folder / str(n), **options) for n, (p, options) in enumerate(runs)]
    clean, *found = (read_transform(file, grids["fixed"], grids["moving"]) for file in files)
    there = clean.resample(mask, mode="nearest") if role == "moving" else mask
    counts = foreground(images["fixed"].as_tensor()[0].float()) & (there[0] == 0)
    without, masked = field_errors(clean, found, counts, grids["fixed"])
    millilitres = float(mask.sum()) * abs(np.linalg.det(grids[role].affine[:3, :3])) / 1000
    row = {"pair": pair["name"], "image": role, "lesion_ml": millilitres}
    return row | {"error_without_mm": without, "error_with_mm": masked, "ratio": masked / without}


def lesions_markdown(rows: Sequence[Row]) -> str:
    """Lay out the pairs, and their means, as a Markdown table."""
    head = ["pair", "lesion in the", "lesion, ml", "error without the mask, mm", "with it, mm", "ratio"]
    lines = []
    for row in rows:
        errors = [f"{row[key]:.2f}" for key in ("error_without_mm", "error_with_mm", "ratio")]
        lines.append([row["pair"], f"{row['image']} image", f"{row['lesion_ml']:.0f}", *errors])
    without, masked = (statistics.fmean(row[f"error_{which}_mm"] for row in rows) for which in ("without", "with"))
    lines.append(["mean, and ratio of the means", "", "", f"{without:.2f}", f"{masked:.2f}", f"{masked / without:.2f}"])
    return markdown_table(head, lines)
