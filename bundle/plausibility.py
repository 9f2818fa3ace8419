"""How plausible a registration is: numbers that two images of one part of the body give, and nonsense does not.

All are measured where the fixed image shows something (its foreground) and the moving image's field of view reaches, on
a grid of about 4 mm, and of the whole transform: alignment and field together.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from bundle.correlation import local_ncc
from bundle.intensity import foreground
from bundle.spatial import Grid, Matrix, SpatialTransform, is_inside, sample

__all__ = ["GAIN", "LIMITS", "OPTIONAL", "judged_numbers", "linear_part", "measure", "rigid_part", "verdict"]

RESOLUTION_MM = 4.0  # of the comparison of the images: the same whatever voxels the network worked on
WINDOW = 5  # voxels, side of the window of the local correlation
VIEW_MM = 8.0  # steps in which the border of the field of view is found
POINTS = 20_000  # about, drawn evenly

# least and greatest value that a plausible registration has; docs/deploy.md says how they were set
LIMITS: Mapping[str, tuple[float, float]] = {
    "foreground_similarity": (0.7, math.inf),
    "foreground_dice": (0.8, math.inf),
    "common_view_percent": (50.0, math.inf),
    "rotation_degrees": (-math.inf, 45.0),
    "stretch": (-math.inf, 1.2),
    "volume_ratio": (1 / 1.75, 1.75),
    "foreground_log_jacobian_sd": (-math.inf, 0.6),
    "max_nonrigid_displacement_mm": (-math.inf, 40.0),
    "max_displacement_mm": (-math.inf, 500.0),
    "folding_percent": (-math.inf, 0.5),
}

GAIN: Mapping[str, tuple[float, float]] = {"similarity_gain": (0.0, math.inf)}  # of every registration
OPTIONAL = ("dice_after", "aligned_share")  # of pairs with labels alone, and of those that a field was found for

Points = npt.NDArray[np.float64]


def measure(transform: SpatialTransform, fixed: torch.Tensor, warped: torch.Tensor, grid: Grid) -> dict[str, float]:
    """Measure a registration.

    Args:
        transform: fixed to moving.
        fixed: (1, H, W, L) on ``grid``, in [0, 1].
        warped: the moving image pulled there, same shape.
        grid: of both images, in fixed space.

    Returns:
        Numbers without a unit but for percentages and ``_mm``. NaN where nothing is left to measure: images that share
        no foreground.

        - ``foreground_similarity``: mean of the local squared correlation, 0 to 1, weighted by the images' local
          standard deviations: where both are flat there is noise alone to compare;
        - ``foreground_dice``: overlap of the foregrounds of the two images;
        - ``common_view_percent``: of the fixed foreground that the moving image's field of view reaches;
        - ``mean_displacement_mm``, ``max_displacement_mm``: how far points move, by alignment and field together;
        - ``mean_nonrigid_displacement_mm``, ``max_nonrigid_displacement_mm``: what is left of that without the rigid
          motion that fits it best;
        - ``rotation_degrees``, ``stretch``, ``volume_ratio``: of the affine map that fits the transform best: its
          rotation, the largest ratio between the scales along two directions (1 without shear or uneven scaling), and
          the volume in the moving image of what is 1 in the fixed one;
        - ``foreground_log_jacobian_sd``: standard deviation of the logarithm of the Jacobian determinant.
    """
    steps = _steps(grid, RESOLUTION_MM)
    fixed, warped = (F.avg_pool3d(image[None].float(), steps)[0, 0] for image in (fixed, warped))
    coarse = grid.blocks(steps)
    seen, anatomy = _seen(transform, coarse), foreground(fixed)
    shown = anatomy & seen
    numbers = _alike(fixed, warped, shown, seen)
    numbers["common_view_percent"] = 100 * float(shown.sum()) / max(float(anatomy.sum()), 1)
    index = torch.nonzero(shown).double()
    here = torch.from_numpy(coarse.to_points(index[:: max(1, len(index) // POINTS)].numpy()))
    there = here + transform.displacement_at(here)
    return numbers | _motion(here.numpy(), there.numpy()) | _volume(transform, here)


def judged_numbers(quality: Mapping[str, float]) -> dict[str, float]:
    """Add to the numbers of a registration those that are made of them to judge it by.

    Args:
        quality: by the names of ``registration.json``.

    Returns:
        The same, with ``similarity_gain``, ``similarity_after`` less ``similarity_before``; and, unless the field was
        dropped, ``aligned_share``, ``similarity_aligned`` over ``similarity_after``.
    """
    before, aligned, after = (quality.get(f"similarity_{stage}", math.nan) for stage in ("before", "aligned", "after"))
    numbers = {"similarity_gain": after - before, **quality}
    if aligned >= 0 and after > 0 and not quality.get("field_dropped"):
        numbers["aligned_share"] = aligned / after
    return numbers


def verdict(quality: Mapping[str, float], limits: Mapping[str, tuple[float, float]] | None = None) -> dict[str, Any]:
    """Judge a registration by its numbers.

    Args:
        quality: numbers by the names of ``registration.json``; one that has a limit and is missing or NaN meets none,
            but for those of ``OPTIONAL``.
        limits: least and greatest value instead of those of ``LIMITS`` and ``GAIN``, by the same names and those that
            ``judged_numbers`` adds: of weights for small crops, say, where a part of the body varies more than the
            whole.

    Returns:
        ``verdict``, "plausible" or "not plausible", and ``limits_missed``, a sentence each.

    Example:
        >>> good = {name: low if low > 0 else high for name, (low, high) in LIMITS.items()}
        >>> verdict(good | {"similarity_before": 0.4, "similarity_after": 0.4})["verdict"]
        'plausible'
        >>> verdict(good | {"similarity_before": 0.4, "similarity_after": 0.3})["limits_missed"]
        ['similarity_after is 0.3, below similarity_before, 0.4']
    """
    numbers, bounds = judged_numbers(quality), {**GAIN, **LIMITS, **(limits or {})}
    counted = {name: limit for name, limit in bounds.items() if name in numbers or name not in OPTIONAL}
    sentences = (_missed(name, numbers, *limit) for name, limit in counted.items())
    missed = [sentence for sentence in sentences if sentence]
    return {"verdict": "not plausible" if missed else "plausible", "limits_missed": missed}


def _missed(name: str, numbers: Mapping[str, float], low: float, high: float) -> str:
    """What a number out of its limits says; nothing of one within them."""
    value = numbers.get(name, math.nan)
    if low <= value <= high:
        return ""
    if math.isnan(value):
        return f"{'similarity_before or similarity_after' if name in GAIN else name} was not measurable"
    if name in GAIN and value < low == 0:
        before, after = numbers["similarity_before"], numbers["similarity_after"]
        return f"similarity_after is {after:.4g}, below similarity_before, {before:.4g}"
    return f"{name} is {value:.4g}, below {low:.4g}" if value < low else f"{name} is {value:.4g}, above {high:.4g}"


def linear_part(here: Points, there: Points) -> Matrix:
    """Fit there ≈ L · here + t by least squares: L, 3×3. Points (n, 3)."""
    centred = here - here.mean(0)
    solution, *_ = np.linalg.lstsq(centred, there - there.mean(0), rcond=None)
    return np.asarray(solution.T, dtype=np.float64)


def rigid_part(here: Points, there: Points) -> Matrix:
    """Fit there ≈ R · here + t by least squares: R, a rotation, 3×3. Points (n, 3).

    Source:
        Kabsch, A solution for the best rotation to relate two sets of vectors, Acta Cryst. A32 (1976).
    """
    left, _, right = np.linalg.svd((there - there.mean(0)).T @ (here - here.mean(0)))
    return np.asarray(left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right, dtype=np.float64)


def _motion(here: Points, there: Points) -> dict[str, float]:
    """Lengths of the displacements, and the affine map that fits them best."""
    if len(here) < 4 or np.linalg.matrix_rank(here - here.mean(0)) < 3:
        lengths = [f"{which}_{of}displacement_mm" for which in ("mean", "max") for of in ("", "nonrigid_")]
        return dict.fromkeys([*lengths, "rotation_degrees", "stretch", "volume_ratio"], math.nan)
    whole = np.linalg.norm(there - here, axis=1)
    rigid, linear = rigid_part(here, there), linear_part(here, there)
    rest = np.linalg.norm((there - there.mean(0)) - (here - here.mean(0)) @ rigid.T, axis=1)
    left, scales, right = np.linalg.svd(linear)
    turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right  # of the polar decomposition
    return {
        "mean_displacement_mm": float(whole.mean()),
        "max_displacement_mm": float(whole.max()),
        "mean_nonrigid_displacement_mm": float(rest.mean()),
        "max_nonrigid_displacement_mm": float(rest.max()),
        "rotation_degrees": float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))),
        "stretch": float(scales[0] / max(scales[-1], 1e-12)),
        "volume_ratio": float(np.linalg.det(linear)),
    }


def _alike(fixed: torch.Tensor, warped: torch.Tensor, shown: torch.Tensor, seen: torch.Tensor) -> dict[str, float]:
    """How much of the anatomy is the same, and how well its structures correlate."""
    correlation = local_ncc(warped[None, None], fixed[None, None], WINDOW)[0, 0]
    structure = (_spread(fixed) * _spread(warped)).sqrt()[shown]
    other = foreground(torch.where(seen, warped, warped[seen].min())) & seen if seen.any() else seen
    together = float(shown.sum() + other.sum())
    return {
        "foreground_similarity": float((correlation[shown] * structure).sum() / structure.sum()),
        "foreground_dice": 2 * float((shown & other).sum()) / together if together else math.nan,
    }


def _spread(image: torch.Tensor) -> torch.Tensor:
    """The standard deviation in the window around each voxel, (H, W, L), of any sides."""
    margin = [WINDOW // 2] * 6  # torch's own padding refuses sides smaller than the window
    sums = (F.avg_pool3d(F.pad(i, margin)[None], WINDOW, 1)[0] for i in (torch.ones_like(image), image, image**2))
    inside, total, squares = sums
    mean, square = total / inside, squares / inside
    return (square - mean**2).clamp(min=0).sqrt()


def _volume(transform: SpatialTransform, points: torch.Tensor) -> dict[str, float]:
    if transform.jacobian is None or not len(points):
        return {"foreground_log_jacobian_sd": math.nan if not len(points) else 0.0}
    determinants = sample(transform.jacobian, transform.field_grid, points, "nearest", fill=None)[0]
    logarithms = determinants[determinants > 0].log()
    return {"foreground_log_jacobian_sd": float(logarithms.std(correction=0)) if len(logarithms) else math.nan}


def _seen(transform: SpatialTransform, grid: Grid) -> torch.Tensor:
    """Where on a grid the moving image's field of view reaches, to the next few millimetres: (H, W, L)."""
    steps = _steps(grid, VIEW_MM)
    rough = grid.blocks(steps)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in rough.shape], indexing="ij"), -1)
    points = torch.from_numpy(rough.to_points(index))
    inverse = torch.from_numpy(transform.moving_grid.inverse)
    there = (points + transform.displacement_at(points)) @ inverse[:3, :3].T + inverse[:3, 3]
    inside = is_inside(there, transform.moving_grid.shape)
    return F.interpolate(inside[None, None].float(), grid.shape, mode="nearest")[0, 0] > 0


def _steps(grid: Grid, spacing_mm: float) -> list[int]:
    """How many voxels along each axis make a block of about a size."""
    return [max(1, min(round(spacing_mm / float(s)), n)) for s, n in zip(grid.spacing_mm, grid.shape)]
