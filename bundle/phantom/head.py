"""Heads from formulas: signed distances in millimetres, painted as tissues and regions on any grid."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from bundle.phantom.anatomy import FOLD_SEED, LEFT, Anatomy, Array, Matrix, Seed, Tube, random_anatomy, random_waves
from scipy.spatial.transform import Rotation

__all__ = ["centred_affine", "make_head", "sample"]

_AIRWAYS = (  # centre and radii of the nose, the sinuses and the pharynx, right-hand side, mm
    ((5, 62, -44), (3.5, 22, 13)),
    ((26, 56, -50), (11, 13, 13)),
    ((6, 72, 2), (9, 4, 7)),
    ((0, 24, -66), (9, 6, 26)),
)
_GRAY_MM = 3.3  # thickness of the cortex
_FOLD_CENTRE, _FOLD_RADII = (26.0, 0.0, 10.0), (34.0, 74.0, 52.0)  # of the right hemisphere, mm


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
    sway = random_waves(np.random.default_rng(FOLD_SEED), 5, (24.0, 40.0), 1.8, channels=3)  # so that sheets curve
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
    lobe = np.full(q.shape[1], LEFT["parietal cortex"], dtype=np.uint8)
    lobe[_central(m) > 0] = LEFT["frontal cortex"]
    lobe[(_sylvian(m) < 0) & (_temporal_lobe(m) > -8)] = LEFT["temporal cortex"]
    lobe[m[1] < -44 - 0.3 * (10 - m[2])] = LEFT["occipital cortex"]
    return lobe + (q[0] > 0).astype(np.uint8)


def _brain(canvas: _Canvas, anatomy: Anatomy, q: Array) -> None:
    """Paint cortex, white matter, fluid, cerebellum and the deep structures, outside in."""
    m, right = _mirrored(q), (q[0] > 0).astype(np.uint8)
    hull = np.minimum(_cerebrum(m), _longitudinal_fissure(m))
    sulci = np.minimum(_sulci(anatomy, q, m, hull), _named_fissures(m, hull))
    canvas.paint("gray", hull, _lobe(q, m))
    canvas.paint("white", np.minimum(hull, sulci) - np.float32(_GRAY_MM), right + LEFT["cerebral white matter"])
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
    canvas.paint("gray", hull, right + LEFT["cerebellum"])
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
