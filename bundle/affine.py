"""Pre-alignment: a linear transform from fixed to moving space, through ITK's registration framework (SimpleITK)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.inpainting import fill_in
from bundle.io.itk import image_to_itk, linear_from_itk, single_thread
from bundle.magnification import magnification, magnified
from bundle.spatial import Grid, Matrix, SpatialTransform

__all__ = ["ALIGNMENTS", "align"]

ALIGNMENTS = ("none", "center", "rigid", "affine")

Array = npt.NDArray[np.float32]
_Masks: TypeAlias = tuple[sitk.Image | None, sitk.Image | None]

WORKING_SPACING_MM = 2.0  # finer voxels cost time and bring a linear transform nothing
BINS = 32
SAMPLES = 20_000
SEED = 1  # of them; 0 would be the time of day
# first and last step of a search in mm, and the share of it that is left after each turn, by resolution
SEARCH = {4: (2.0, 0.02, 0.8), 2: (1.0, 0.02, 0.7), 1: (0.5, 0.01, 0.7)}
# of all, for a rigid transform: it has farthest to go, and what it misses stays missed; small crops it leads astray.
# From two starts first, as far as tells which is the better one
ROUGH_SEARCH, FIRST_SEARCH = (4.0, 0.3, 0.8), (1.0, 0.02, 0.9)
NODS = (0.0, -0.25, 0.25, -0.5, 0.5)  # of the starts, radians about the left-right axis: a search hardly turns so far
OTHER_NOD = 0.3  # radians from the best start that the second one is away at least
FEWEST_PLANES = 8  # along each axis of what is aligned
RIM_MM = 15.0  # around what a mask leaves: unless its outline is seen, shrinking a brain costs nothing


def align(
    moving: Array,
    moving_grid: Grid,
    fixed: Array,
    fixed_grid: Grid,
    kind: str = "affine",
    moving_mask: Array | None = None,
    fixed_mask: Array | None = None,
    moving_ignored: Array | None = None,
    fixed_ignored: Array | None = None,
) -> Matrix:
    """Find the linear transform that takes points of the fixed image to the moving one.

    ``none`` trusts the headers. ``center`` lays the centres of the two grids over each other, to the next whole voxel
    where the grids are parallel and equally fine, in whatever order their files store the axes: half a voxel further,
    interpolation would blur. ``rigid`` and ``affine`` maximise mutual information over up to three resolutions, from
    whichever start is best: the headers as they are, the centres of the grids or those of the masses. ``affine`` starts
    from a rigid alignment that spares the finest resolution, and never ends mirrored. Heads nod: the search starts so
    as well, by up to half a radian, and follows the two best starts that nod differently. Small animals and parts are
    aligned magnified: all lengths here suit people. Deterministic.

    Args:
        moving: (H, W, L) on ``moving_grid``.
        moving_grid: its voxels in space.
        fixed: (H, W, L) on ``fixed_grid``.
        fixed_grid: its voxels in space.
        kind: one of ``ALIGNMENTS``.
        moving_mask: what the moving image shows, on its grid, the rest blanked; None for all of it.
        fixed_mask: likewise; the metric looks at it and ``RIM_MM`` around.
        moving_ignored: where the moving image does not count (a lesion, say), without being blanked; None nowhere.
        fixed_ignored: likewise.

    Returns:
        4×4, mm, LPS, fixed to moving.

    Raises:
        ValueError: an unknown kind, or images that mutual information cannot bring together; the message says why.
    """
    if kind not in ALIGNMENTS:
        raise ValueError(f"The pre-alignment is one of {', '.join(ALIGNMENTS)}, not '{kind}'.")
    if kind in ("none", "center"):
        matrix = np.eye(4)
        if kind == "center":
            matrix[:3, 3] = _between_centres(moving_grid, fixed_grid)
        return matrix
    if fixed_mask is not None:  # the centres of mass and the smoothing would still see what is outside
        fixed = fixed * (fixed_mask > 0)
    if moving_mask is not None:
        moving = moving * (moving_mask > 0)
    fixed, moving = _filled(fixed, fixed_ignored), _filled(moving, moving_ignored)
    larger = magnification([(fixed, fixed_grid), (moving, moving_grid)])
    fixed_grid, moving_grid = magnified(fixed_grid, larger), magnified(moving_grid, larger)
    images = [_working_copy(_to_itk(a, g)) for a, g in ((fixed, fixed_grid), (moving, moving_grid))]
    masks = (_counting(fixed_mask, fixed_ignored, fixed_grid), _counting(None, moving_ignored, moving_grid))
    try:
        with single_thread():
            levels = [_level(images, masks, factor) for factor in _factors(images)]
            rigid = _first_alignment(images, levels[0])
            for level in levels[1:] if kind == "rigid" else levels[1:-1]:
                level.improve(rigid, SEARCH[level.factor])
            if kind == "rigid":
                return _as_small(linear_from_itk(rigid), larger)
            affine = _as_affine(rigid)
            for level in levels:
                level.improve(affine, SEARCH[level.factor])
            found = linear_from_itk(affine)
            # heads look much like their mirror images: the search may slip there from a poor start
            return _as_small(found if np.linalg.det(found[:3, :3]) > 0 else linear_from_itk(rigid), larger)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise ValueError(
            f"The {kind} pre-alignment failed ({reason}): align the images by hand first, or start from --affine "
            "center or --initial_transform."
        ) from error


def _as_small(matrix: Matrix, factor: float) -> Matrix:
    """Bring a linear transform between magnified spaces, 4×4, to the spaces as they are."""
    matrix[:3, 3] /= factor
    return matrix


def _filled(image: Array, ignored: Array | None) -> Array:
    """Fill what does not count from around it: smoothing would carry it into what does, and centres would shift."""
    if ignored is None:
        return image
    unknown = torch.from_numpy(ignored > 0)[None, None]
    filled: Array = fill_in(torch.from_numpy(np.ascontiguousarray(image))[None, None], unknown)[0, 0].numpy()
    return filled


def _counting(mask: Array | None, ignored: Array | None, grid: Grid) -> sitk.Image | None:
    """Make the mask of the metric: what is shown with a rim, less what is ignored; None for everywhere."""
    kept = None if ignored is None else _to_itk((ignored <= 0).astype(np.uint8), grid, "nearest")
    if mask is None:
        return kept
    shown = _working_copy(_to_itk((mask > 0).astype(np.uint8), grid, "nearest")) > 0
    rim = sitk.SignedMaurerDistanceMap(shown, squaredDistance=False, useImageSpacing=True) <= RIM_MM
    return rim if kept is None else sitk.Resample(rim, kept, sitk.Transform(), sitk.sitkNearestNeighbor) * kept


def _to_itk(array: npt.NDArray[Any], grid: Grid, mode: str = "linear") -> sitk.Image:
    """Make an ITK image of an array, resampled if its grid is sheared: ITK would straighten the axes unasked."""
    straight = grid.orthogonal()
    if straight is not grid:
        transform = SpatialTransform(np.eye(4), None, straight, straight, grid)
        array = transform.resample(torch.from_numpy(array)[None], mode=mode)[0].numpy()
    return image_to_itk(array, straight)


def _between_centres(moving_grid: Grid, fixed_grid: Grid) -> npt.NDArray[np.float64]:
    """Find the translation from the fixed grid's centre to the moving one's, in mm; whole voxels where that is one.

    Of two whole voxels that are as near it takes one in space, whatever the order and the direction of either's axes.
    """
    translation = moving_grid.centre_mm - fixed_grid.centre_mm
    fixed = fixed_grid.canonical()
    steps = np.linalg.solve(fixed.affine[:3, :3], moving_grid.affine[:3, :3])  # of the moving axes, in fixed voxels
    order = np.abs(np.rint(steps))
    same = fixed.affine[:3, :3] @ np.rint(steps)
    if np.array_equal(order @ order.T, np.eye(3)) and np.allclose(moving_grid.affine[:3, :3], same, atol=1e-4):
        longer = (order @ moving_grid.shape - fixed.shape) / 2
        translation += fixed.affine[:3, :3] @ (np.floor(longer) - longer)
    return translation


def _working_copy(image: sitk.Image) -> sitk.Image:
    """Bring an image to about ``WORKING_SPACING_MM`` by averaging, in float32; a slab of a few thick slices to more."""
    factors = [max(1, round(WORKING_SPACING_MM / s)) for s in image.GetSpacing()]
    factors = [min(f, max(1, n // 16)) for f, n in zip(factors, image.GetSize())]
    shrunk = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)
    more = [-(-FEWEST_PLANES // n) for n in shrunk.GetSize()]
    return _finer(shrunk, more) if max(more) > 1 else shrunk


def _finer(image: sitk.Image, factors: list[int]) -> sitk.Image:
    """Divide voxels along each axis: with so few, the coarser resolutions and their gradients would have none left."""
    spacing = [s / f for s, f in zip(image.GetSpacing(), factors)]
    corner = [(1 / f - 1) / 2 for f in factors]  # of the first new voxel's centre, in voxels of the image
    origin = image.TransformContinuousIndexToPhysicalPoint(corner)
    size = [n * f for n, f in zip(image.GetSize(), factors)]
    transform, pixel = sitk.Transform(), image.GetPixelID()
    return sitk.Resample(image, size, transform, sitk.sitkLinear, origin, spacing, image.GetDirection(), 0.0, pixel)


@dataclass(frozen=True)
class _Level:
    """Both images at one resolution.

    Args:
        fixed: smoothed, on fewer voxels: each may be a sample.
        moving: smoothed, on twice as many along each axis: samples lie between them.
        masks: where fixed and moving image count; None for everywhere.
        factor: how much coarser than the working copies.
    """

    fixed: sitk.Image
    moving: sitk.Image
    masks: _Masks
    factor: int

    @property
    def is_large(self) -> bool:
        """Whether it has enough voxels for long steps; a slab, in its plane."""
        return sorted(self.fixed.GetSize())[1] >= FEWEST_PLANES

    def _metric(self, transform: sitk.Transform) -> sitk.ImageRegistrationMethod:
        """Prepare mutual information at a transform, which ``Execute`` would improve in place."""
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(min(1.0, SAMPLES / self.fixed.GetNumberOfPixels()), SEED)
        method.SetMetricUseMovingImageGradientFilter(False)  # gradients where samples are, not of a whole image
        method.SetInterpolator(sitk.sitkLinear)
        if self.masks[0] is not None:
            method.SetMetricFixedMask(self.masks[0])
        if self.masks[1] is not None:
            method.SetMetricMovingMask(self.masks[1])
        method.SetInitialTransform(transform, inPlace=True)
        return method

    def value(self, transform: sitk.Transform) -> float:
        """Evaluate the metric: the less, the more alike."""
        return float(self._metric(transform).MetricEvaluate(self.fixed, self.moving))

    def improve(self, transform: sitk.Transform, search: tuple[float, float, float]) -> None:
        """Maximise mutual information from a transform on, in place; ``search`` as in ``SEARCH``."""
        method, (first, last, relaxation) = self._metric(transform), search
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=first,
            minStep=last,
            numberOfIterations=150,
            relaxationFactor=relaxation,
            gradientMagnitudeTolerance=1e-6,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.Execute(self.fixed, self.moving)


def _factors(images: Sequence[sitk.Image]) -> list[int]:
    """How much coarser than the working copies the resolutions are, the coarsest first."""
    fewest = min(min(image.GetSize()) for image in images)
    return [factor for factor in (4, 2, 1) if fewest // factor >= FEWEST_PLANES // 2 or factor == 1]


def _level(images: Sequence[sitk.Image], masks: _Masks, factor: int) -> _Level:
    """Bring both images to one resolution, smoothed by a Gaussian of as many mm as its factor."""
    fixed, moving = _smoothed(images[0], factor, factor), _smoothed(images[1], max(1, factor // 2), factor)
    return _Level(fixed, moving, masks, factor)


def _smoothed(image: sitk.Image, block: int, sigma_mm: float) -> sitk.Image:
    """Average blocks of voxels, which smooths too, and go on with what a Gaussian needs to get to ``sigma_mm``."""
    variances = [sigma_mm**2 - s**2 * (block**2 - 1) / 12 for s in image.GetSpacing()]
    sigmas = [math.sqrt(max(variance, sigma_mm**2 / 4)) for variance in variances]  # thick slices: no less than half
    return sitk.SmoothingRecursiveGaussian(sitk.BinShrink(image, [block] * 3) if block > 1 else image, sigmas)


def _first_alignment(images: list[sitk.Image], level: _Level) -> sitk.Euler3DTransform:
    """Align at the coarsest resolution, from the best start by mutual information, or the best two."""
    best, *others = _sorted_starts(images, level, NODS if level.is_large else NODS[:1])
    if level.is_large:
        tried = [best, *[other for other in others if abs(other.GetAngleX() - best.GetAngleX()) > OTHER_NOD][:1]]
        for start in tried:
            level.improve(start, ROUGH_SEARCH)
        best = min(tried, key=level.value)
    level.improve(best, FIRST_SEARCH if level.is_large else SEARCH[4])
    return best


def _sorted_starts(images: list[sitk.Image], level: _Level, nods: Sequence[float]) -> list[sitk.Euler3DTransform]:
    """Sort the starts that leave an overlap, each with every nod, by mutual information, the best first."""
    values: list[tuple[float, int, sitk.Euler3DTransform]] = []
    for start in _starts(images):
        for nod in nods:
            turned = sitk.Euler3DTransform(start)
            turned.SetRotation(nod, 0.0, 0.0)
            try:
                values.append((level.value(turned), len(values), turned))
            except RuntimeError:  # this start leaves no overlap
                continue
    if not values:
        raise RuntimeError("the images overlap neither by their headers nor with their centres on each other")
    return [start for _, _, start in sorted(values)]


def _starts(images: list[sitk.Image]) -> Iterator[sitk.Euler3DTransform]:
    """Yield where the search may start; rotations are about the middle of the fixed image."""
    headers = sitk.Euler3DTransform()
    middle = [(n - 1) / 2 for n in images[0].GetSize()]
    headers.SetCenter(images[0].TransformContinuousIndexToPhysicalPoint(middle))
    yield headers
    for how in (sitk.CenteredTransformInitializerFilter.GEOMETRY, sitk.CenteredTransformInitializerFilter.MOMENTS):
        yield sitk.Euler3DTransform(sitk.CenteredTransformInitializer(*images, sitk.Euler3DTransform(), how))


def _as_affine(rigid: sitk.Euler3DTransform) -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    return affine
