"""Calibrate the map of the expected error on pairs whose true deformation is known, and try it on others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bundle.benchmark.kept import digest, stem_of, versions
from bundle.benchmark.known_fields import KnownPair, read_head, scans_on_disk, simulate_pair
from bundle.expected_error import SIGNS
from bundle.intensity import foreground
from bundle.io.files import in_place
from bundle.io.tables import markdown_table
from bundle.progress import Progress
from bundle.spatial import Grid
from bundle.transforms import grid_of, read_volume
from scipy.optimize import nnls
from scipy.stats import rankdata

__all__ = ["Sample", "compare", "expected", "fit", "markdown", "sample_of", "samples_of"]

Array = npt.NDArray[np.float64]
Item = Mapping[str, Any]
Register = Callable[[str, str], Item]
Row = dict[str, Any]

POINTS = 20_000  # of each pair
STEPS_MM = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf"))  # of the expected error, in the table


@dataclass(frozen=True, eq=False)
class Sample:
    """What some voxels of a pair have shown.

    Args:
        signs: (n, 3), mm, ``bundle.expected_error.SIGNS``.
        error: (n,), mm, between where a point was found and where it is.
        moved: mean distance between the images that the registration had to find, mm.
    """

    signs: Array
    error: Array
    moved: float


def samples_of(
    items: Sequence[Item], seed: int, register: Register, cache: Path, masked: bool, made_by: Mapping[str, Any]
) -> list[Sample]:
    """Simulate a pair of each head, register it, and compare.

    What was found is read from the cache where an earlier call made it of the same image, in the same way.

    Args:
        items: images; with labels, if they are masked.
        seed: of the first pair; the others follow.
        register: takes the paths of a moving and a fixed image, and returns what the inference workflow found.
        cache: folder, written.
        masked: blank what has no label.
        made_by: what the registration depends on besides the two images, for JSON: the weights, say.
    """
    cache.mkdir(parents=True, exist_ok=True)
    samples = []
    for n, item in enumerate(Progress(items, title="known pairs")):
        files = {key: digest(item[key]) for key in ("image", "label")[: 1 + masked]}
        depends = {"files": files, "masked": masked, "seed": seed + n, "made_by": made_by, "versions": versions()}
        name = f"{Path(item['image']).name.partition('.')[0]}_{seed + n}"
        path = Path(f"{stem_of(cache, name, depends)}.npz")
        if not path.is_file():
            pair = simulate_pair(*_anatomy(item, masked), seed + n)
            with scans_on_disk(pair.moving, pair.fixed, pair.truth.fixed_grid) as scans:
                found = register(str(scans["moving"]), str(scans["fixed"]))
            sample = sample_of(pair, found, seed + n)
            with in_place(path) as whole:
                np.savez(whole, signs=sample.signs, error=sample.error, moved=sample.moved)
        stored = np.load(path)
        samples.append(Sample(stored["signs"], stored["error"], float(stored["moved"])))
    return samples


def _anatomy(item: Item, masked: bool) -> tuple[torch.Tensor, Grid]:
    """Read an image, from 0 up, (1, H, W, L), and its grid."""
    if masked:
        image, labels, grid = read_head(item)
        return image * (labels > 0), grid
    image = read_volume(item["image"], "image", is_label=False)
    return image.as_tensor().clamp(min=0), grid_of(image)


def sample_of(pair: KnownPair, item: Item, seed: int) -> Sample:
    """Compare a registration with the truth at random voxels where the fixed image shows something.

    Args:
        pair: what was registered.
        item: what the inference workflow found: ``image``, ``transform`` and ``disagreement``.
        seed: of the draw.
    """
    grid, signs = grid_of(item["image"]), item["disagreement"]
    places = foreground(item["image"].as_subclass(torch.Tensor)[1].cpu()).nonzero().numpy()
    places = np.random.default_rng(seed).permutation(places)[:POINTS]
    points = torch.from_numpy(grid.to_points(places))
    there = pair.truth.displacement_at(points)
    error = (item["transform"].displacement_at(points) - there).norm(dim=1)
    voxels = slice(None), *places.T
    shown = signs[voxels].T.double().numpy()
    return Sample(shown, error.numpy(), float(there.norm(dim=1).mean()))


def fit(samples: Sequence[Sample]) -> dict[str, float]:
    """Fit the calibration by least squares with no number below 0: what ``MapExpectedErrord`` takes."""
    signs, error = _together(samples)
    solution, _ = nnls(np.column_stack([np.ones(len(error)), signs]), error)
    return {name: round(float(value), 3) for name, value in zip(("offset", *SIGNS), solution)}


def expected(signs: Array, calibration: Mapping[str, float]) -> Array:
    """Bring signs, (n, 3), to the error that they lead one to expect: (n,), mm."""
    return calibration["offset"] + signs @ np.array([calibration[name] for name in SIGNS])


def compare(samples: Sequence[Sample], calibration: Mapping[str, float]) -> Row:
    """Compare the expected error with the true one.

    Returns:
        ``pairs``; means over all voxels, ``moved_mm``, ``error_mm`` and ``expected_mm``; the ``correlation`` of the two
        over all voxels (Pearson's), that of the ranks (``rank_correlation``, Spearman's), and the mean of Pearson's
        within each pair (``correlation_within_pairs``); and ``steps``, for each step of the expected error its
        ``share_percent`` of the voxels and the means there.
    """
    signs, error = _together(samples)
    foretold = expected(signs, calibration)
    within = [_correlation(expected(s.signs, calibration), s.error) for s in samples]
    row: Row = {"pairs": len(samples), "moved_mm": float(np.mean([s.moved for s in samples]))}
    row |= {"error_mm": float(error.mean()), "expected_mm": float(foretold.mean())}
    row |= {"correlation": _correlation(foretold, error)}
    row |= {"rank_correlation": _correlation(rankdata(foretold), rankdata(error))}
    row |= {"correlation_within_pairs": float(np.mean(within)), "steps": []}
    for low, high in pairwise(STEPS_MM):
        here = (foretold >= low) & (foretold < high)
        if here.any():
            step = {"from_mm": low, "to_mm": high, "share_percent": 100 * float(here.mean())}
            row["steps"].append(
                step | {"expected_mm": float(foretold[here].mean()), "error_mm": float(error[here].mean())}
            )
    return row


def _together(samples: Sequence[Sample]) -> tuple[Array, Array]:
    return np.concatenate([s.signs for s in samples]), np.concatenate([s.error for s in samples])


def _correlation(one: Array, other: Array) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def markdown(rows: Mapping[str, Row]) -> str:
    """Lay out what ``compare`` said of several sets of pairs as Markdown: a table of all, then the steps of each."""
    numbers = ("moved_mm", "error_mm", "expected_mm", "correlation", "rank_correlation", "correlation_within_pairs")
    head = ["pairs", "n", "apart, mm", "true error, mm", "expected error, mm"]
    lines = [[name, str(row["pairs"]), *[f"{row[n]:.2f}" for n in numbers]] for name, row in rows.items()]
    tables = [markdown_table([*head, "correlation", "of the ranks", "within a pair"], lines)]
    for name, row in rows.items():
        lines = []
        for step in row["steps"]:
            high = f" to {step['to_mm']:g} mm" if np.isfinite(step["to_mm"]) else " mm and more"
            cells = [f"{step[key]:.2f}" for key in ("share_percent", "expected_mm", "error_mm")]
            lines.append([f"{step['from_mm']:g}{high}", *cells])
        tables.append(
            markdown_table([f"expected error, {name}", "voxels, %", "mean of it, mm", "true error, mm"], lines)
        )
    return "\n".join(tables)
