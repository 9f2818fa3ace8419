"""Pre-alignment: a linear transform from fixed to moving space, through ITK's registration framework (SimpleITK)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.itk import image_to_itk, linear_from_itk
from bundle.spatial import Grid, Matrix, SpatialTransform

__all__ = ["ALIGNMENTS", "align"]

ALIGNMENTS = ("none", "center", "rigid", "affine")

Array = npt.NDArray[np.float32]

WORKING_SPACING_MM = 2.0  # finer voxels cost time and bring a linear transform nothing
BINS = 32
SAMPLES = 20_000
FEWEST_PLANES = 8  # along each axis of what is aligned


def align(
    moving: Array,
    moving_grid: Grid,
    fixed: Array,
    fixed_grid: Grid,
    kind: str = "affine",
    moving_mask: Array | None = None,
    fixed_mask: Array | None = None,
    seed: int = 1,
    moving_ignored: Array | None = None,
    fixed_ignored: Array | None = None,
) -> Matrix:
    """Find the linear transform that takes points of the fixed image to the moving one.

    ``none`` trusts the headers. ``center`` lays the centres of the two grids over each other, to the next whole voxel
    where the grids are parallel and equally fine: half a voxel further, interpolation would blur. ``rigid`` and
    ``affine`` maximise mutual information over up to three resolutions, rigid first, from whichever start is best: the
    headers as they are, the centres of the grids or those of the masses. Deterministic for a given seed.

    Args:
        moving: (H, W, L) on ``moving_grid``.
        moving_grid: its voxels in space.
        fixed: (H, W, L) on ``fixed_grid``.
        fixed_grid: its voxels in space.
        kind: one of ``ALIGNMENTS``.
        moving_mask: where the moving image counts, on its grid; None everywhere.
        fixed_mask: likewise.
        seed: of the metric's random samples.
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
    images = [_working_copy(_to_itk(a, g)) for a, g in ((fixed, fixed_grid), (moving, moving_grid))]
    masks = [
        _counting(mask, ignored, grid)
        for mask, ignored, grid in ((fixed_mask, fixed_ignored, fixed_grid), (moving_mask, moving_ignored, moving_grid))
    ]
    try:
        with _single_thread():
            rigid = _best_start(images, masks, seed)
            _optimise(images, masks, rigid, seed)
            if kind == "rigid":
                return linear_from_itk(rigid)
            affine = _as_affine(rigid)
            _optimise(images, masks, affine, seed)
            return linear_from_itk(affine)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise ValueError(
            f"The {kind} pre-alignment failed ({reason}): align the images by hand first, or start from --affine "
            "center or --initial_transform."
        ) from error


def _counting(mask: Array | None, ignored: Array | None, grid: Grid) -> sitk.Image | None:
    """Make the mask of the metric: where an image counts; None for everywhere."""
    if mask is None and ignored is None:
        return None
    counts = np.ones(grid.shape, dtype=bool) if mask is None else mask > 0
    if ignored is not None:
        counts = counts & ~(ignored > 0)
    return _to_itk(counts.astype(np.uint8), grid, "nearest")


def _to_itk(array: npt.NDArray[Any], grid: Grid, mode: str = "linear") -> sitk.Image:
    """Make an ITK image of an array, resampled if its grid is sheared: ITK would straighten the axes unasked."""
    straight = grid.orthogonal()
    if straight is not grid:
        transform = SpatialTransform(np.eye(4), None, straight, straight, grid)
        array = transform.resample(torch.from_numpy(array)[None], mode=mode)[0].numpy()
    return image_to_itk(array, straight)


def _between_centres(moving_grid: Grid, fixed_grid: Grid) -> npt.NDArray[np.float64]:
    """Find the translation from the fixed grid's centre to the moving one's, in mm; whole voxels where that is one."""
    translation = moving_grid.centre_mm - fixed_grid.centre_mm
    if np.allclose(moving_grid.affine[:3, :3], fixed_grid.affine[:3, :3], atol=1e-4):
        steps = (np.array(moving_grid.shape) - fixed_grid.shape) / 2
        translation += moving_grid.affine[:3, :3] @ (np.floor(steps) - steps)
    return translation


def _working_copy(image: sitk.Image) -> sitk.Image:
    """Bring an image to about ``WORKING_SPACING_MM`` by averaging, in float32; a slab of a few thick slices to more."""
    factors = [max(1, round(WORKING_SPACING_MM / s)) for s in image.GetSpacing()]
    factors = [min(f, max(1, n // 16)) for f, n in zip(factors, image.GetSize())]
    shrunk = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)
    more = [-(-FEWEST_PLANES // n) for n in shrunk.GetSize()]
    return _finer(shrunk, more) if max(more) > 1 else shrunk


def _finer(image: sitk.Image, factors: list[int], interpolator: int = sitk.sitkLinear) -> sitk.Image:
    """Divide voxels along each axis: with so few, the coarser resolutions and their gradients would have none left."""
    spacing = [s / f for s, f in zip(image.GetSpacing(), factors)]
    corner = [(1 / f - 1) / 2 for f in factors]  # of the first new voxel's centre, in voxels of the image
    origin = image.TransformContinuousIndexToPhysicalPoint(corner)
    size = [n * f for n, f in zip(image.GetSize(), factors)]
    transform, pixel = sitk.Transform(), image.GetPixelID()
    return sitk.Resample(image, size, transform, interpolator, origin, spacing, image.GetDirection(), 0.0, pixel)


def _registration(masks: list[sitk.Image | None], seed: int, voxels: int) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / voxels), seed)
    method.SetInterpolator(sitk.sitkLinear)
    if masks[0] is not None:
        method.SetMetricFixedMask(masks[0])
    if masks[1] is not None:
        method.SetMetricMovingMask(masks[1])
    return method


def _best_start(images: list[sitk.Image], masks: list[sitk.Image | None], seed: int) -> sitk.Euler3DTransform:
    """Choose between the headers, the centres of the grids and the centres of mass, by mutual information."""
    starts: list[tuple[float, int, sitk.Transform]] = []
    for start in _starts(images):
        method = _registration(masks, seed, images[0].GetNumberOfPixels())
        method.SetInitialTransform(start)
        try:
            starts.append((method.MetricEvaluate(*images), len(starts), start))
        except RuntimeError:  # this start leaves no overlap
            continue
    if not starts:
        raise RuntimeError("the images overlap neither by their headers nor with their centres on each other")
    return sitk.Euler3DTransform(min(starts)[2])


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


@contextmanager
def _single_thread() -> Iterator[None]:
    """Let ITK use one thread: several add up in another order each time, and the result is not the same twice."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _optimise(images: list[sitk.Image], masks: list[sitk.Image | None], transform: sitk.Transform, seed: int) -> None:
    """Improve a transform in place: maximise mutual information over up to three resolutions."""
    method = _registration(masks, seed, images[0].GetNumberOfPixels())
    fewest = min(min(image.GetSize()) for image in images)
    factors = [factor for factor in (4, 2, 1) if fewest // factor >= FEWEST_PLANES // 2 or factor == 1]
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel(factors)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    # per level; the share of voxels sampled grows as the images shrink
    share = min(1.0, SAMPLES / images[0].GetNumberOfPixels())
    method.SetMetricSamplingPercentagePerLevel([min(1.0, share * f**3) for f in factors], seed)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.01, numberOfIterations=150, relaxationFactor=0.8, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(*images)
