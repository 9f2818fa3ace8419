"""How plausible a registration is: numbers that two images of one part of the body give, and nonsense does not.

All are measured where the fixed image shows something (its foreground) and the moving image's field of view reaches: of
the whole transform, alignment and field together, at the voxels there of the grid that the network worked on (of a
large one at every other); of the images, in blocks of about 4 mm, finer ones of small animals and parts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from bundle.correlation import local_ncc
from bundle.intensity import foreground
from bundle.magnification import magnification
from bundle.spatial import Grid, Matrix, SpatialTransform, sample

__all__ = ["GAIN", "LIMITS", "OPTIONAL", "every", "judged_numbers", "linear_part", "measure", "rigid_part", "verdict"]

RESOLUTION_MM = 4.0  # of the comparison of the images: the same whatever voxels the network worked on
WINDOW = 5  # voxels, side of the window of the local correlation
POINTS = 700_000  # that a transform is looked at, at most: of a large grid every other voxel along each axis, or fewer
ROUNDING = 1e-3  # voxels about the border of an image
FILLED = 0.5  # of a block that both images must have for it to be compared

# least and greatest value that a plausible registration has; docs/deploy.md says how they were set. Those in mm are
# for people, and say nothing of a small animal, all of which is shorter
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
    step, some = _step(grid), every(grid)
    covered, (displacement, seen) = _covers(transform.fixed_grid, some), _followed(transform, some)
    anatomy = _foreground(fixed[0, ::step, ::step, ::step], covered)
    seen &= covered
    shown = anatomy & seen
    whole, both = (_repeated(mask, step, grid.shape) for mask in (covered, seen))
    larger = magnification([(image[0], grid) for image in (fixed, warped)])
    numbers = _alike(fixed[0], warped[0], whole, both, _steps(grid, RESOLUTION_MM / larger))
    numbers["common_view_percent"] = 100 * float(shown.sum()) / max(float(anatomy.sum()), 1)
    here = some.to_points(torch.nonzero(shown).numpy())
    there = here + displacement[shown].numpy()
    return numbers | _motion(here, there) | _volume(transform, torch.from_numpy(here))


def _step(grid: Grid) -> int:
    """Of how many voxels along each axis one is looked at, so that no more than ``POINTS`` or so are in all."""
    return max(1, math.ceil((math.prod(grid.shape) / POINTS) ** (1 / 3)))


def every(grid: Grid) -> Grid:
    """The grid of each ``_step``-th voxel along each axis, the first ones included."""
    step = _step(grid)
    sides = [-(-n // step) for n in grid.shape]
    return Grid((sides[0], sides[1], sides[2]), grid.affine @ np.diag([step, step, step, 1]))


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
    """Fit there ≈ L · here + t by least squares: L, 3×3. Points (n, 3), not all in one plane."""
    centred = here - here.mean(0)
    solution = np.linalg.solve(centred.T @ centred, centred.T @ (there - there.mean(0)))
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
    if _is_flat(here):
        lengths = [f"{which}_{of}displacement_mm" for which in ("mean", "max") for of in ("", "nonrigid_")]
        return dict.fromkeys([*lengths, "rotation_degrees", "stretch", "volume_ratio"], math.nan)
    rigid, linear = rigid_part(here, there), linear_part(here, there)
    whole, rest = _lengths(there - here), _lengths((there - there.mean(0)) - (here - here.mean(0)) @ rigid.T)
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


def _lengths(vectors: Points) -> npt.NDArray[np.float64]:
    """Lengths of vectors (n, 3): (n,)."""
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def _is_flat(points: Points) -> bool:
    """Tell whether points, (n, 3), are too few to fit a map to, or lie in one plane but for rounding."""
    if len(points) < 4:
        return True
    centred = points - points.mean(0)
    thickness = np.linalg.eigvalsh(centred.T @ centred)  # squared, in ascending order
    return bool(thickness[0] <= 1e-10 * thickness[-1])


def _alike(
    fixed: torch.Tensor, warped: torch.Tensor, shown_by_fixed: torch.Tensor, seen: torch.Tensor, steps: Sequence[int]
) -> dict[str, float]:
    """How much of the anatomy is the same, and how well its structures correlate, in blocks of so many voxels."""
    (fixed, whole), (warped, both) = _blocks(fixed, shown_by_fixed, steps), _blocks(warped, seen, steps)
    shown, other = _foreground(fixed, whole) & both, _foreground(warped, both)
    correlation = local_ncc(warped[None, None], fixed[None, None], WINDOW)[0, 0]
    structure = (_spread(fixed) * _spread(warped)).sqrt()[shown]
    together = float(shown.sum() + other.sum())
    return {
        "foreground_similarity": float((correlation[shown] * structure).sum() / structure.sum()),
        "foreground_dice": 2 * float((shown & other).sum()) / together if together else math.nan,
    }


def _blocks(image: torch.Tensor, where: torch.Tensor, steps: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Average an image, (H, W, L), over the voxels of each block that count; and say which blocks those fill."""
    counted = where[None, None].float()
    share = F.avg_pool3d(counted, list(steps), ceil_mode=True)[0, 0]
    mean = F.avg_pool3d(image[None, None].float() * counted, list(steps), ceil_mode=True)[0, 0] / share.clamp(min=1e-6)
    filled = share >= FILLED
    return mean * filled, filled


def _foreground(image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The foreground of what an image shows in some of its voxels: boolean, its shape."""
    found = torch.zeros_like(where)
    if where.any():
        found[where] = foreground(image[where])
    return found


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


def _covers(image_grid: Grid, grid: Grid) -> torch.Tensor:
    """Which voxels of a grid lie within an image, half a voxel of either around its outermost centres: (H, W, L).

    Of a thick outermost slice no more counts than that: the field was asked for at its centre, and breaks off beyond.
    """
    thick = np.minimum(grid.spacing_mm.min() / image_grid.spacing_mm, 1)
    margin = np.where(np.array(image_grid.shape) > 1, thick / 2, 0.5) - ROUNDING
    found = torch.empty(grid.shape, dtype=torch.bool)
    for rows, index in grid.slabs_under(image_grid.inverse):
        found[rows] = _lies_in(index, image_grid, margin)
    return found


def _followed(transform: SpatialTransform, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """T(p) − p at the voxels of a grid, (H, W, L, 3), mm, float64, and which land in the moving image, (H, W, L)."""
    displacement = torch.empty(*grid.shape, 3, dtype=torch.float64)
    seen, there = torch.empty(grid.shape, dtype=torch.bool), transform.moving_grid
    matrix, margin = torch.from_numpy(there.inverse), np.full(3, 0.5 + ROUNDING)
    for rows, points in grid.slabs():
        displacement[rows] = transform.displacement_at(points, extend=True)
        seen[rows] = _lies_in((points + displacement[rows]) @ matrix[:3, :3].T + matrix[:3, 3], there, margin)
    return displacement, seen


def _lies_in(index: torch.Tensor, grid: Grid, margin: npt.NDArray[np.float64]) -> torch.Tensor:
    """Tell which indices (…, 3) lie no further than a margin, (3,), beyond a grid's outermost centres: (…)."""
    within = [(i >= -m) & (i <= n - 1 + m) for i, n, m in zip(index.unbind(-1), grid.shape, margin.tolist())]
    return within[0] & within[1] & within[2]


def _repeated(mask: torch.Tensor, step: int, shape: Sequence[int]) -> torch.Tensor:
    """Bring a mask of every so many-th voxel to all voxels, (H, W, L)."""
    for axis, n in enumerate(shape):
        mask = mask.repeat_interleave(step, axis).narrow(axis, 0, n) if step > 1 else mask
    return mask


def _steps(grid: Grid, spacing_mm: float) -> list[int]:
    """How many voxels along each axis make a block of about a size."""
    return [max(1, min(round(spacing_mm / float(s)), n)) for s, n in zip(grid.spacing_mm, grid.shape)]
