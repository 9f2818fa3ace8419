"""Synthetic labelled heads: a data set for training, evaluation, demo and tests that needs no download.

A head is a formula, not an array. One template (hull of the brain, sulci, deep nuclei, skull, face) is written down as
signed distances in millimetres; a subject is that template seen through its own smooth map::

    world p ─ pose (affine) ─▶ warps, one after another ─▶ template q ─ distances ─▶ tissue, region

so a subject can be sampled on any grid, however oblique or coarse, with its regions in the same physical place. Space
is RAS as in NIfTI: +x right, +y anterior, +z superior. Distances are positive inside.
"""

import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import nibabel
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation
from tqdm import tqdm

__all__ = [
    "REGIONS",
    "Anatomy",
    "centred_affine",
    "make_head",
    "random_anatomy",
    "sample",
    "write_pair",
    "write_phantoms",
]

Array: TypeAlias = npt.NDArray[np.float32]
Matrix: TypeAlias = npt.NDArray[np.float64]
Seed: TypeAlias = int | Sequence[int]

_PAIRED = (
    "frontal cortex",
    "parietal cortex",
    "temporal cortex",
    "occipital cortex",
    "cerebral white matter",
    "lateral ventricle",
    "thalamus",
    "caudate",
    "putamen",
    "hippocampus",
    "cerebellum",
)
_LEFT = {name: 1 + 2 * i for i, name in enumerate(_PAIRED)}
_BRAINSTEM, _THIRD_VENTRICLE = 23, 24

REGIONS: dict[int, str] = {
    **{
        label + right: f"{side} {name}" for name, label in _LEFT.items() for right, side in enumerate(("left", "right"))
    },
    _BRAINSTEM: "brainstem",
    _THIRD_VENTRICLE: "third ventricle",
}
"""Name of each label; odd is left and even is right up to 22. 0 is everything outside the brain."""

_VERSION = 1  # part of a data set's settings: raise it when the same seed gives another head

_T1_MEANS = {
    "air": 0.02,
    "skin": 0.80,
    "muscle": 0.42,
    "bone": 0.10,
    "marrow": 0.50,
    "eye": 0.22,
    "csf": 0.16,
    "gray": 0.52,
    "white": 0.86,
    "thalamus": 0.66,
    "caudate": 0.55,
    "putamen": 0.60,
    "hippocampus": 0.54,
    "brainstem": 0.78,
}

_AIRWAYS = (  # centre and radii of the nose, the sinuses and the pharynx, right-hand side, mm
    ((5, 62, -44), (3.5, 22, 13)),
    ((26, 56, -50), (11, 13, 13)),
    ((6, 72, 2), (9, 4, 7)),
    ((0, 24, -66), (9, 6, 26)),
)
_WARP_STEPS = (
    (3, 140.0, 0.32),
    (4, 90.0, 0.55),
    (6, 60.0, 0.65),
)  # number of waves, their length in mm, steepest gradient
_GRAY_MM = 3.3  # thickness of the cortex
_FOLD_SEED = 20  # of the template, hence the same for every subject
_FOLD_CENTRE, _FOLD_RADII = (26.0, 0.0, 10.0), (34.0, 74.0, 52.0)  # of the right hemisphere, mm


@dataclass(frozen=True)
class Waves:
    """A sum of plane waves, Σ aᵢ sin(kᵢ·q + φᵢ).

    Attributes:
        amplitude: aᵢ, (N, C): one column an output channel.
        wavevector: kᵢ, (N, 3), radians a millimetre.
        phase: φᵢ, (N,), radians.
    """

    amplitude: Array
    wavevector: Array
    phase: Array

    def __call__(self, points: Array) -> Array:
        """Evaluate the sum at ``points``, (3, P) in mm, as (C, P)."""
        return self.amplitude.T @ np.sin(self.wavevector @ points + self.phase[:, None])


@dataclass(frozen=True)
class Tube:
    """A chain of balls swept into one another: every deep structure is one.

    Attributes:
        label: Its region, a key of ``REGIONS``.
        tissue: Its intensity, a key of the subject's tissue table.
        points: Centres of the balls, (N, 3), mm.
        radii: Radii of the balls, (N,), mm.
        tall: How much higher than wide the balls are.
    """

    label: int
    tissue: str
    points: Matrix
    radii: Matrix
    tall: float = 1.0


@dataclass(frozen=True)
class Anatomy:
    """One subject: how its space maps to the template's, and what is its own there.

    Attributes:
        pose: World to template, 4×4: the part that an affine alignment can undo.
        warps: Displacements added in turn after the pose, each with a gradient below 1, hence invertible.
        tubes: The deep structures, moved, turned and resized for this subject.
        folds: Waves whose zeros are the sulci, of the left and of the right hemisphere.
        sulcus_mm: Depth of the sulci.
        means: Intensity of each tissue, between 0 and 1.
        bias: Logarithm of the coil's gain, one channel.
        noise: Standard deviation of the noise in each of the two receiver channels.
        scale: Intensity that 1 is stored as.
        noise_seed: Seeds the noise, so that a subject sampled twice gives the same image.
    """

    pose: Matrix
    warps: tuple[Waves, ...]
    tubes: tuple[Tube, ...]
    folds: tuple[Waves, Waves]
    sulcus_mm: float
    means: dict[str, float]
    bias: Waves
    noise: float
    scale: float
    noise_seed: int

    def to_template(self, world: Array) -> Array:
        """Map ``world`` points, (3, P) in mm RAS, to the template: the pose first, then each warp in turn."""
        pose = self.pose.astype(np.float32)
        points: Array = pose[:3, :3] @ world + pose[:3, 3:]
        for warp in self.warps:
            points = points + warp(points)
        return points


def _tube(name: str, tissue: str, balls: Sequence[tuple[float, float, float, float]], tall: float = 1.0) -> Tube:
    table = np.array(balls, dtype=np.float64)
    label = _LEFT[name] if name in _LEFT else {text: key for key, text in REGIONS.items()}[name]
    return Tube(label, tissue, table[:, :3], table[:, 3], tall)


# Right-hand side, (x, y, z, radius) in mm; painted in this order, so the ventricles win where neighbours touch.
_PAIRED_TUBES = (
    _tube("putamen", "putamen", [(20, 17, 0, 5.5), (24, 4, 2, 6.0), (27, -10, 3, 3.5)], tall=1.5),
    _tube("thalamus", "thalamus", [(8, -5, 5, 5.0), (11, -14, 6, 7.5), (15, -22, 6, 6.0)], tall=1.1),
    _tube("hippocampus", "hippocampus", [(22, -4, -18, 6.0), (26, -18, -14, 5.0), (24, -32, -5, 4.0)]),
    _tube("caudate", "caudate", [(13, 22, 6, 6.5), (17, 8, 17, 5.0), (21, -12, 21, 3.5), (25, -24, 17, 3.0)]),
    _tube("lateral ventricle", "csf", [(9, 31, 9, 4.0), (7, 12, 17, 5.0), (10, -14, 20, 5.0), (21, -32, 13, 6.5)]),
    _tube("lateral ventricle", "csf", [(21, -32, 13, 6.5), (19, -50, 8, 3.0)]),
    _tube("lateral ventricle", "csf", [(21, -32, 13, 6.0), (33, -22, -6, 3.5), (31, -8, -12, 3.0)]),
)
_MIDLINE_TUBES = (
    _tube("brainstem", "brainstem", [(0, -14, -4, 9), (0, -13, -24, 12.5), (0, -20, -41, 8.5), (0, -24, -51, 6.5)]),
    _tube("third ventricle", "csf", [(0, 2, -3, 2.6), (0, -18, 1, 2.8)], tall=2.4),
)


def random_anatomy(seed: Seed, contrast: str = "t1") -> Anatomy:
    """Draw a subject: the same topology for every seed, another shape and another intensity scale.

    Args:
        seed: A whole number or a sequence of them, none negative; the same seed gives the same subject to the bit.
        contrast: ``"t1"`` for T1-like tissue intensities, ``"random"`` for other ones with each subject.

    Returns:
        The subject, to be sampled on any grid with ``sample``.

    Raises:
        ValueError: If ``contrast`` is neither, or a seed is negative.

    Example:
        >>> random_anatomy(3).scale == random_anatomy(3).scale
        True
    """
    if np.asarray(seed).dtype.kind not in "iu" or np.min(seed) < 0:
        raise ValueError(f"seed must be a whole number of 0 or more, got {seed}: give another")
    rng = np.random.default_rng(seed)
    return Anatomy(
        pose=_random_pose(rng),
        warps=tuple(_random_warp(rng, *step) for step in _WARP_STEPS),
        tubes=_random_tubes(rng),
        folds=_random_folds(rng),
        sulcus_mm=rng.uniform(12.0, 15.0),
        means=_random_means(rng, contrast),
        bias=_random_waves(rng, 4, (220.0, 400.0), 0.09),
        noise=rng.uniform(0.012, 0.025),
        scale=float(np.exp(rng.uniform(np.log(250.0), np.log(1200.0)))),
        noise_seed=int(rng.integers(2**32)),
    )


def _random_pose(rng: np.random.Generator) -> Matrix:
    """Draw up to 8° about each axis, ±8 % in size, of which ±3 % differ between the axes, and ±6 mm.

    On average the head is 4 % smaller than the template and 5 mm lower, which fits it into the usual field of view.
    """
    pose, size = np.eye(4), 1.04 * rng.uniform(0.95, 1.05) * rng.uniform(0.97, 1.03, 3)
    pose[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-8, 8, 3), degrees=True).as_matrix() * size
    pose[:3, 3] = rng.uniform(-6, 6, 3) + np.array([0, 0, 5])
    return pose


def _random_waves(
    rng: np.random.Generator, count: int, length_mm: tuple[float, float], amplitude: float, channels: int = 1
) -> Waves:
    """Draw ``count`` waves in random directions, each of the given amplitude (the length of its vector of channels)."""
    directions = rng.standard_normal((count, 3))
    vectors = rng.standard_normal((count, channels))
    k = 2 * np.pi / rng.uniform(*length_mm, (count, 1)) * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    a = amplitude * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Waves(a.astype(np.float32), k.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32))


def _random_warp(rng: np.random.Generator, count: int, length_mm: float, gradient: float) -> Waves:
    """Draw a displacement in mm whose gradient is nowhere above ``gradient``.

    ‖∇u‖ ≤ Σ |aᵢ| |kᵢ|, and q + u(q) is one-to-one where that is below 1. Composing several such steps moves tissue
    further than one sum under the same bound could.
    """
    waves = _random_waves(rng, count, (0.85 * length_mm, 1.15 * length_mm), 1.0, channels=3)
    steepness = np.linalg.norm(waves.wavevector, axis=1, keepdims=True)
    return Waves((gradient / count / steepness * waves.amplitude).astype(np.float32), waves.wavevector, waves.phase)


def _random_tubes(rng: np.random.Generator) -> tuple[Tube, ...]:
    """Jitter the deep structures, left and right on their own; the pieces of one ventricle stay together."""
    tubes = []
    for right in (0, 1):
        jitters: dict[int, tuple[Matrix, Matrix, float]] = {}
        for tube in _PAIRED_TUBES:
            if tube.label not in jitters:
                jitters[tube.label] = _random_jitter(rng, 0.15 if tube.tissue == "csf" else 0.07)
            tubes.append(_jittered(tube, right, jitters[tube.label]))
    return tuple(tubes) + tuple(
        _jittered(tube, 0, _random_jitter(rng, 0.06, 0.3), mirror=False) for tube in _MIDLINE_TUBES
    )


def _random_jitter(rng: np.random.Generator, size: float, amount: float = 1.0) -> tuple[Matrix, Matrix, float]:
    turn = Rotation.from_euler("xyz", amount * rng.uniform(-5, 5, 3), degrees=True).as_matrix()
    return turn, amount * rng.uniform(-1.2, 1.2, 3), float(np.exp(rng.uniform(-size, size)))


def _jittered(tube: Tube, right: int, jitter: tuple[Matrix, Matrix, float], mirror: bool = True) -> Tube:
    """Turn about a common pivot, shift and resize; then mirror to the left unless ``right``."""
    turn, shift, size = jitter
    pivot = np.array([18.0 if mirror else 0.0, -10.0, 5.0])
    points = (tube.points - pivot) @ turn.T + pivot + shift
    if mirror and not right:
        points = points * (-1, 1, 1)
    return Tube(tube.label + right, tube.tissue, points, tube.radii * size, tube.tall)


def _random_folds(rng: np.random.Generator) -> tuple[Waves, Waves]:
    """Take the template's sulci, the same for all subjects, and shift each wave a little."""
    template = np.random.default_rng(_FOLD_SEED)
    sides = [_random_waves(template, 12, (25.0, 36.0), 1.0) for _ in range(2)]
    left, right = (
        Waves(np.ones_like(s.amplitude), s.wavevector, (s.phase + rng.normal(0, 0.12, 12)).astype(np.float32))
        for s in sides
    )
    return left, right


def _random_means(rng: np.random.Generator, contrast: str) -> dict[str, float]:
    """Jitter the T1 table, or deal evenly spaced levels at random so that no two tissues look the same."""
    if contrast not in ("t1", "random"):
        raise ValueError(f'contrast must be "t1" or "random", got {contrast!r}: choose one of the two')
    if contrast == "t1":
        return {tissue: mean * rng.uniform(0.95, 1.05) for tissue, mean in _T1_MEANS.items()}
    levels = rng.permutation(np.linspace(0.06, 0.95, len(_T1_MEANS))) + rng.uniform(-0.02, 0.02, len(_T1_MEANS))
    return {**dict(zip(_T1_MEANS, levels.tolist())), "air": _T1_MEANS["air"]}


class _Canvas:
    """Paints tissues over one another with soft edges in the image and sharp ones in the labels."""

    def __init__(self, image: Array, means: dict[str, float], soft_mm: float) -> None:
        self.image, self.means, self.soft_mm = image, means, soft_mm
        self.label = np.zeros(image.shape, dtype=np.uint8)

    def paint(self, tissue: str, inside: Array, label: int | npt.NDArray[np.uint8] | None = None) -> None:
        """Cover what lies at a positive distance ``inside``, mm; without ``label`` the region there stays."""
        t = np.clip(0.5 + inside / (4 * self.soft_mm), 0, 1)
        self.image += (np.float32(self.means[tissue]) - self.image) * (t * t * (3 - 2 * t))
        if label is not None:
            np.copyto(self.label, label, where=inside > 0)


def _norm(vectors: Array) -> Array:
    return np.sqrt(np.einsum("ij,ij->j", vectors, vectors))


def _ellipsoid(q: Array, centre: Sequence[float], radii: Sequence[float]) -> Array:
    """Approximate the distance to an ellipsoid's surface, exact to first order there."""
    r = np.array(radii, dtype=np.float32)[:, None]
    e = (q - np.array(centre, dtype=np.float32)[:, None]) / r
    k = _norm(e)
    return k * (1 - k) / (_norm(e / r) + np.float32(1e-6))


def _tube_distance(q: Array, tube: Tube) -> Array:
    squeeze = np.array([1, 1, 1 / tube.tall])
    points = (tube.points - tube.points.mean(0)) * squeeze
    local = (q - tube.points.mean(0)[:, None].astype(np.float32)) * squeeze[:, None].astype(np.float32)
    best = np.full(q.shape[1], -np.inf, dtype=np.float32)
    for i in range(len(points) - 1):
        axis = (points[i + 1] - points[i]).astype(np.float32)
        offset = local - points[i][:, None].astype(np.float32)
        t = np.clip(axis @ offset / (axis @ axis), 0, 1)
        offset -= t * axis[:, None]
        radius = np.float32(tube.radii[i]) + t * np.float32(tube.radii[i + 1] - tube.radii[i])
        np.maximum(best, radius - _norm(offset), out=best)
    return best


def _union(a: Array, b: Array, blend_mm: float) -> Array:
    """Join two shapes with a fillet of ``blend_mm``."""
    h = np.maximum(blend_mm - np.abs(a - b), 0) / blend_mm
    return np.maximum(a, b) + h * h * (blend_mm / 4)


def _mirrored(q: Array) -> Array:
    return np.concatenate([np.abs(q[:1]), q[1:]])


def _temporal_lobe(m: Array) -> Array:
    return _ellipsoid(m, (38, 2, -17), (20, 40, 19))


def _cerebrum(m: Array) -> Array:
    """Distance into the smooth hull of both hemispheres; ``m`` has x mirrored to the right."""
    dome = _ellipsoid(m, (0, 0, 10), (60, 74, 52))
    floor = m[2] + 15
    return _union(-_union(-dome, -floor, 12), _temporal_lobe(m), 6)


def _cerebellum(m: Array) -> Array:
    return _union(_ellipsoid(m, (22, -44, -34), (26, 27, 20)), _ellipsoid(m, (0, -44, -34), (14, 25, 20)), 8)


def _head(canvas: _Canvas, q: Array, cavity: Array) -> None:
    """Paint skin, muscle, skull, face, eyes and neck around the ``cavity`` that holds the brain."""
    m = _mirrored(q)
    face = _union(_ellipsoid(q, (0, 36, -46), (47, 46, 60)), _ellipsoid(q, (0, 84, -42), (11, 14, 15)), 12)
    neck = np.minimum(48 - np.hypot(q[0], q[1] + 22 - 0.1 * q[2]), -20 - q[2])
    outer = _union(_union(cavity + 15, face, 18), neck, 25)
    canvas.paint("skin", outer)
    canvas.paint("muscle", outer - 6)
    for centre, radii in _AIRWAYS:
        canvas.paint("air", _ellipsoid(m, centre, radii))
    canvas.paint("bone", 19 - np.hypot(q[0], q[1] + 28) + np.minimum(-62 - q[2], 0))
    canvas.paint("marrow", 15 - np.hypot(q[0], q[1] + 28) + np.minimum(-66 - q[2], 0))
    canvas.paint("bone", cavity + 10)
    canvas.paint("marrow", np.minimum(cavity + 7.5, -5 - cavity))
    canvas.paint("csf", cavity + 3)
    canvas.paint("eye", np.minimum(np.minimum(_ellipsoid(m, (30, 60, -30), (12, 12, 12)), outer - 2), -5 - cavity))
    canvas.paint("csf", 8 - np.hypot(q[0], q[1] + 26) + np.minimum(-52 - q[2], 0))
    canvas.paint("brainstem", 5.5 - np.hypot(q[0], q[1] + 26) + np.minimum(-52 - q[2], 0))


def _sulci(anatomy: Anatomy, q: Array, m: Array, hull: Array) -> Array:
    """Distance from the nearest sulcus, negative in its cerebrospinal fluid.

    A sulcus is a sheet hanging from the hull: where g(p) = 0 on the hull, along the radius, down to a given depth. The
    distance from the sheet is |g| / |∇g|, scaled by the radius, and grows again below its lower edge.
    """
    centre, radii = (np.array(v, dtype=np.float32)[:, None] for v in (_FOLD_CENTRE, _FOLD_RADII))
    e = (m - centre) / radii
    rho = np.maximum(_norm(e), 0.2)
    sway = _random_waves(np.random.default_rng(_FOLD_SEED), 5, (24.0, 40.0), 1.8, channels=3)  # so that sheets curve
    p = (m - centre) / rho + centre + sway(q)
    sheet = np.empty_like(hull)
    for waves, side in zip(anatomy.folds, (q[0] < 0, q[0] >= 0)):
        phase = waves.wavevector @ p[:, side] + waves.phase[:, None]
        slope = waves.wavevector.T @ np.cos(phase)
        sheet[side] = np.abs(np.sin(phase).sum(0)) / (_norm(slope) + np.float32(0.1))
    below = np.maximum(hull - anatomy.sulcus_mm, 0)
    core = _ellipsoid(m, (0, -10, -6), (23, 28, 21))  # no sulci from below into the brainstem and the hypothalamus
    return np.maximum(np.sqrt((sheet * rho) ** 2 + below**2) - 0.7, 2 * core)


def _sylvian(m: Array) -> Array:
    """Height in mm above the Sylvian fissure, which rises backwards."""
    return (m[2] + 4 + 0.25 * m[1]) / np.float32(1.03)


def _central(m: Array) -> Array:
    """Distance in mm in front of the central sulcus, which runs forwards as it goes down the side."""
    return (m[1] + 14 - 0.35 * m[0]) / np.float32(1.06)


def _named_fissures(m: Array, hull: Array) -> Array:
    """Distance from the Sylvian fissure and the central sulcus, the ones that bound lobes."""
    ends = np.maximum(np.abs(m[1] - 2) - 34, 0)
    sylvian = np.sqrt(_sylvian(m) ** 2 + np.maximum(35 - m[0], 0) ** 2 + ends**2) - 1.3
    lower = np.maximum(12 - _sylvian(m), 0)
    central = np.sqrt(_central(m) ** 2 + np.maximum(hull - 17, 0) ** 2 + lower**2) - 1.0
    return np.minimum(sylvian, central)


def _longitudinal_fissure(m: Array) -> Array:
    """Distance from the cleft between the hemispheres, which ends at the corpus callosum."""
    arch = 1 - np.sqrt(((m[1] + 5) / 42) ** 2 + ((m[2] - 2) / 30) ** 2)
    return np.sqrt(m[0] ** 2 + np.maximum(arch * 34, 0) ** 2) - 1.0


def _lobe(q: Array, m: Array) -> npt.NDArray[np.uint8]:
    """Name the lobe at each point by the template's own landmarks, so that it follows the smooth map."""
    lobe = np.full(q.shape[1], _LEFT["parietal cortex"], dtype=np.uint8)
    lobe[_central(m) > 0] = _LEFT["frontal cortex"]
    lobe[(_sylvian(m) < 0) & (_temporal_lobe(m) > -8)] = _LEFT["temporal cortex"]
    lobe[m[1] < -44 - 0.3 * (10 - m[2])] = _LEFT["occipital cortex"]
    return lobe + (q[0] > 0).astype(np.uint8)


def _brain(canvas: _Canvas, anatomy: Anatomy, q: Array) -> None:
    """Paint cortex, white matter, fluid, cerebellum and the deep structures, outside in."""
    m, right = _mirrored(q), (q[0] > 0).astype(np.uint8)
    hull = np.minimum(_cerebrum(m), _longitudinal_fissure(m))
    sulci = np.minimum(_sulci(anatomy, q, m, hull), _named_fissures(m, hull))
    canvas.paint("gray", hull, _lobe(q, m))
    canvas.paint("white", np.minimum(hull, sulci) - np.float32(_GRAY_MM), right + _LEFT["cerebral white matter"])
    canvas.paint("csf", np.minimum(-sulci, hull))  # too thin to be a region: it stays with its lobe
    _paint_cerebellum(canvas, m, right)
    for tube in anatomy.tubes:
        canvas.paint(tube.tissue, _tube_distance(q, tube), tube.label)


def _paint_cerebellum(canvas: _Canvas, m: Array, right: npt.NDArray[np.uint8]) -> None:
    """Paint the cerebellum below the cerebrum, its folia fanning out from the fourth ventricle."""
    hull = np.minimum(_cerebellum(m), -_cerebrum(m) - 1.5)
    radius, angle = np.hypot(m[1] + 22, m[2] + 32), np.arctan2(m[2] + 32, -(m[1] + 22))
    sheet = np.abs(np.sin(9 * angle)) * radius / 9
    folia = np.sqrt(sheet**2 + np.maximum(hull - 11, 0) ** 2) - 0.3
    canvas.paint("gray", hull, right + _LEFT["cerebellum"])
    canvas.paint("white", np.minimum(hull, folia) - 1.7)
    canvas.paint("csf", np.minimum(-folia, hull))


def sample(anatomy: Anatomy, shape: Sequence[int], affine: npt.ArrayLike) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Scan a subject: evaluate its image and regions at every voxel of a grid.

    The edges of the tissues are softened by about a third of a voxel, as partial volume does; then come the coil's
    gain, Rician noise and the subject's arbitrary scale.

    Args:
        anatomy: The subject.
        shape: Voxels along the three axes of the array, (H, W, L).
        affine: Voxel to world, 4×4, mm RAS as in NIfTI; may be oblique, anisotropic or flipped.

    Returns:
        Image, (H, W, L) float32, and labels, (H, W, L) uint8, keys of ``REGIONS`` and 0.

    Raises:
        ValueError: If the grid is not three positive lengths with an invertible 4×4 affine.

    Example:
        >>> image, label = sample(random_anatomy(0), (20, 24, 20), centred_affine((20, 24, 20), 8.0))
        >>> image.shape, label.dtype.name
        ((20, 24, 20), 'uint8')
    """
    size, matrix = _checked_grid(shape, affine)
    world = (matrix[:3, :3] @ np.indices(size).reshape(3, -1) + matrix[:3, 3:]).astype(np.float32)
    q = anatomy.to_template(world)
    voxel_mm = abs(np.linalg.det(matrix[:3, :3])) ** (1 / 3)
    soft_mm = float(np.hypot(0.3, 0.3 * voxel_mm))
    m = _mirrored(q)
    cavity = _union(_union(_cerebrum(m), _cerebellum(m), 14), _ellipsoid(q, (0, -24, 0), (48, 50, 42)), 10)
    head = _Canvas(np.zeros(q.shape[1], dtype=np.float32), anatomy.means, soft_mm)
    _head(head, q, cavity)
    near = cavity > -9  # the brain, the foot of the brainstem with it, is a third of the volume: work there only
    brain = _Canvas(head.image[near], anatomy.means, soft_mm)
    _brain(brain, anatomy, q[:, near])
    head.image[near], head.label[near] = brain.image, brain.label
    return _acquired(anatomy, head.image, world).reshape(size), head.label.reshape(size)


def _acquired(anatomy: Anatomy, image: Array, world: Array) -> Array:
    """Apply gain, noise and scale: scale · |gain · image + complex noise|."""
    rng = np.random.default_rng(anatomy.noise_seed)
    real, imaginary = (anatomy.noise * rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    return np.float32(anatomy.scale) * np.hypot(image * np.exp(anatomy.bias(world)[0]) + real, imaginary)


def _checked_grid(shape: Sequence[int], affine: npt.ArrayLike) -> tuple[tuple[int, int, int], Matrix]:
    size, matrix = _checked_shape(shape), np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise ValueError(f"affine must be 4×4, finite, with last row 0 0 0 1, got {matrix.tolist()}: correct it")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise ValueError(f"affine must be invertible, got {matrix.tolist()}: give voxels a size along all three axes")
    return size, matrix


def _checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    sizes = np.asarray(shape)
    if sizes.shape != (3,) or sizes.dtype.kind not in "iu" or sizes.min() < 1:
        raise ValueError(f"shape must be three whole numbers of 1 or more, got {shape}: give for example (80, 96, 80)")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def centred_affine(
    shape: Sequence[int], spacing_mm: float | Sequence[float], degrees: Sequence[float] = (0, 0, 0)
) -> Matrix:
    """Place a grid with its centre at the origin of the world.

    Args:
        shape: Voxels along the three axes of the array.
        spacing_mm: Size of a voxel in mm, one number or three; a negative one runs the axis the other way.
        degrees: Rotation about the x, y and z axes, for an oblique grid.

    Returns:
        Voxel to world, 4×4, mm RAS.

    Raises:
        ValueError: If a length is not positive or a voxel has no size.

    Example:
        >>> centred_affine((3, 3, 3), 2.0)[:3, 3].tolist()
        [-2.0, -2.0, -2.0]
    """
    size = _checked_shape(shape)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape not in ((), (3,)) or not np.isfinite(spacing).all() or (spacing == 0).any():
        raise ValueError(f"spacing must be one or three sizes in mm, none 0, got {spacing_mm}: give for example 2.0")
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def make_head(
    seed: Seed, shape: Sequence[int] = (80, 96, 80), spacing_mm: float | Sequence[float] = 2.0, contrast: str = "t1"
) -> tuple[Array, npt.NDArray[np.uint8], Matrix]:
    """Make one head on a grid centred on it.

    Args:
        seed: See ``random_anatomy``.
        shape: Voxels along the three axes, (H, W, L); they run right, forwards and up.
        spacing_mm: Size of a voxel in mm.
        contrast: See ``random_anatomy``.

    Returns:
        Image, (H, W, L) float32, labels, (H, W, L) uint8, and the affine, voxel to world, mm RAS.

    Raises:
        ValueError: If an argument is out of range.
    """
    affine = centred_affine(shape, spacing_mm)
    image, label = sample(random_anatomy(seed, contrast), shape, affine)
    return image, label, affine


def write_phantoms(
    output_dir: str | os.PathLike[str],
    training: int = 16,
    validation: int = 4,
    test: int = 4,
    shape: Sequence[int] = (80, 96, 80),
    spacing_mm: float = 2.0,
    seed: int = 0,
    contrast: str = "t1",
) -> Path:
    """Write a data set of heads in the layout of the Medical Segmentation Decathlon.

    ``dataset.json`` comes last, so a folder that has it is whole. Every file is written under another name and then
    moved into place, and its content follows from the settings: an interrupted call is finished by the next, and
    two processes may make the same data set at once.

    Args:
        output_dir: Folder of the data set, made if need be.
        training: Number of heads to train on.
        validation: Number of heads to validate on.
        test: Number of heads to test on.
        shape: Voxels along the three axes.
        spacing_mm: Size of a voxel in mm.
        seed: Another seed gives other subjects.
        contrast: ``"t1"`` or ``"random"``, see ``random_anatomy``.

    Returns:
        The folder, with ``dataset.json``, ``images`` and ``labels`` in it.

    Raises:
        ValueError: If an argument is out of range, or the folder holds another data set.
    """
    root, counts = Path(output_dir), {"training": training, "validation": validation, "test": test}
    if any(not isinstance(n, int) or n < 0 for n in counts.values()) or sum(counts.values()) == 0:
        raise ValueError(f"numbers of heads must be whole, 0 or more and not all 0, got {counts}: ask for at least one")
    if not spacing_mm > 0:
        raise ValueError(f"spacing_mm must be above 0, got {spacing_mm}: give for example 2.0")
    affine = centred_affine(shape, spacing_mm)
    random_anatomy(seed, contrast)  # refuses a wrong argument before anything is written
    settings = {**counts, "shape": list(_checked_shape(shape)), "spacing_mm": float(spacing_mm), "seed": seed}
    description = _describe(settings | {"contrast": contrast, "version": _VERSION}, counts)
    if _is_done(root, description):
        return root
    for index in tqdm(range(sum(counts.values())), desc="phantoms", unit="head", disable=None):
        image, label = sample(random_anatomy((seed, index), contrast), shape, affine)
        _write_volume(root / "images" / _name(index), np.rint(image).astype(np.int16), affine)
        _write_volume(root / "labels" / _name(index), label, affine)
    text = json.dumps(description, indent=4) + "\n"
    _write_atomically(root / "dataset.json", lambda path: path.write_text(text, encoding="utf-8"))
    return root


def _name(index: int) -> str:
    return f"phantom_{index:03d}.nii.gz"


def _describe(settings: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """Return the content of dataset.json."""
    names = iter(_name(index) for index in range(sum(counts.values())))
    cases = [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]
    ends = np.cumsum(list(counts.values())).tolist()
    return {
        "name": "phantom",
        "description": "Synthetic labelled heads made by bundle.phantom: no patient, no download",
        "licence": "CC0-1.0",
        "labels": {"0": "background", **{str(label): name for label, name in REGIONS.items()}},
        "spacing_mm": [settings["spacing_mm"]] * 3,
        "phantom": settings,
        **{part: cases[end - counts[part] : end] for part, end in zip(counts, ends)},
    }


def _is_done(root: Path, description: dict[str, Any]) -> bool:
    """Tell whether the folder holds this data set already.

    Raises:
        ValueError: If it holds another.
    """
    file = root / "dataset.json"
    if not file.exists():
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}): remove it or give another output folder") from error
    settings = found.get("phantom") if isinstance(found, dict) else None
    if settings != description["phantom"]:
        asked = description["phantom"]
        raise ValueError(
            f"{file} describes another data set (settings {settings}, asked for {asked}): give another output folder"
        )
    return True


def _write_volume(path: Path, data: npt.NDArray[Any], affine: Matrix) -> None:
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    _write_atomically(path, lambda temporary: nibabel.save(image, temporary))


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path`` under a name of its own, then move into place: nobody ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_pair(
    output_dir: str | os.PathLike[str], seed: int = 0, contrast: str = "t1"
) -> tuple[Path, Path, Path, Path]:
    """Write two different subjects on two different grids, to try a registration on.

    The moving image is oblique, has thick slices and runs right to left along its first axis; the fixed one is plain.
    Neither subject is in the data set that ``write_phantoms`` makes from the same seed.

    Args:
        output_dir: Folder to write to, made if need be; files of these names are replaced.
        seed: Another seed gives another pair.
        contrast: ``"t1"`` or ``"random"``, see ``random_anatomy``.

    Returns:
        Paths of ``moving.nii.gz``, ``moving_label.nii.gz``, ``fixed.nii.gz`` and ``fixed_label.nii.gz``.

    Raises:
        ValueError: If an argument is out of range.
    """
    grids: dict[str, tuple[tuple[int, int, int], Matrix]] = {
        "moving": ((100, 120, 60), centred_affine((100, 120, 60), (-1.7, 1.7, 2.8), degrees=(9, -5, 7))),
        "fixed": ((80, 96, 84), centred_affine((80, 96, 84), 2.0)),
    }
    paths = []
    for index, (name, (shape, affine)) in enumerate(grids.items()):
        # The third number keeps these subjects apart from the (seed, index) of the data set.
        image, label = sample(random_anatomy((seed, index, 1), contrast), shape, affine)
        for suffix, data in (("", np.rint(image).astype(np.int16)), ("_label", label)):
            paths.append(Path(output_dir) / f"{name}{suffix}.nii.gz")
            _write_volume(paths[-1], data, affine)
    return paths[0], paths[1], paths[2], paths[3]
