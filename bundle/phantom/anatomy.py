"""Subjects: one template, and the random map, tissue means and noise that make each head its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

__all__ = ["LEFT", "REGIONS", "Anatomy", "Array", "Matrix", "Seed", "Tube", "Waves", "random_anatomy", "random_waves"]

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
LEFT = {name: 1 + 2 * i for i, name in enumerate(_PAIRED)}
_BRAINSTEM, _THIRD_VENTRICLE = 23, 24

REGIONS: dict[int, str] = {
    **{label + right: f"{side} {name}" for name, label in LEFT.items() for right, side in enumerate(("left", "right"))},
    _BRAINSTEM: "brainstem",
    _THIRD_VENTRICLE: "third ventricle",
}
"""Name of each label; odd is left and even is right up to 22. 0 is everything outside the brain."""

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

_WARP_STEPS = (
    (3, 140.0, 0.32),
    (4, 90.0, 0.55),
    (6, 60.0, 0.65),
)  # number of waves, their length in mm, steepest gradient
FOLD_SEED = 20  # of the template, hence the same for every subject


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
    label = LEFT[name] if name in LEFT else {text: key for key, text in REGIONS.items()}[name]
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
        bias=random_waves(rng, 4, (220.0, 400.0), 0.09),
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


def random_waves(
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
    waves = random_waves(rng, count, (0.85 * length_mm, 1.15 * length_mm), 1.0, channels=3)
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
    template = np.random.default_rng(FOLD_SEED)
    sides = [random_waves(template, 12, (25.0, 36.0), 1.0) for _ in range(2)]
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
