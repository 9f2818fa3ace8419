"""Two scans of one head with a known deformation between them: what the expected error is calibrated and tried on."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.fields import identity_grid, jacobian_determinant
from bundle.intensity import quantiles
from bundle.io.images import write_image
from bundle.io.labels import check_labelled
from bundle.shapes import DDF
from bundle.spatial import Grid, SpatialTransform
from bundle.synthesis.acquisition import blur, draw_acquisition, smooth_noise
from bundle.transforms import ReadVolumed, grid_of
from scipy.spatial.transform import Rotation

__all__ = ["KnownPair", "brightest", "draw_pose_mm", "read_head", "scans_on_disk", "simulate_pair"]

SCALES = (4, 4.0), (8, 2.5), (14, 1.2)  # of the deformation: points an axis, and mm at one standard deviation
SLOWEST = 0.3  # least volume that the deformation leaves of a voxel's, as a share
TURN, SHIFT_MM = 0.03, 2.0  # what an alignment leaves, about and along each axis at most: radians, mm
ERASED_SHARE, ERASED_MM = 0.5, (8.0, 20.0)  # of the pairs where a ball in one scan is noise alone; its radius


@dataclass(frozen=True, eq=False)
class KnownPair:
    """Two scans of one head.

    Args:
        moving: (1, H, W, L).
        fixed: (1, H, W, L), on the same grid.
        truth: from fixed to moving, exactly.
    """

    moving: torch.Tensor
    fixed: torch.Tensor
    truth: SpatialTransform


def read_head(item: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Grid]:
    """Read an image and its label map as every workflow does.

    Args:
        item: ``image`` and ``label``, paths.

    Returns:
        The image, from 0 up, its labels in the order of its axes, (1, H, W, L) each, and the grid of both.

    Raises:
        ValueError: see ``ReadVolumed``; or there is no label.
    """
    read = ReadVolumed(["image", "label"], ["label"])({key: item[key] for key in ("image", "label")})
    image, labels = read["image"], read["label"].as_tensor()
    check_labelled(labels, f"label ({item['label']})")
    return image.as_tensor().clamp(min=0), labels, grid_of(image)


def simulate_pair(image: torch.Tensor, grid: Grid, seed: int) -> KnownPair:
    """Scan a head twice, deformed in between; noise, blur, bias field and contrast curve are each scan's own.

    The moving scan is anatomy(M p), the fixed one anatomy(p + c(p)): T(p) = M⁻¹(p + c(p)) holds exactly. In about
    every second pair a ball of one scan shows noise alone, where nothing can be found.

    Args:
        image: (1, H, W, L), from 0 up.
        grid: of all three.
        seed: of all that is drawn.
    """
    state = np.random.RandomState(seed)
    pose = draw_pose_mm(state, grid, TURN, SHIFT_MM)
    change = _draw_deformation(state, grid)
    image = image / brightest(image)
    transforms = SpatialTransform(pose, None, grid, grid, grid), SpatialTransform(np.eye(4), change, grid, grid, grid)
    erased = state.randint(2) if state.rand() < ERASED_SHARE else None
    scans = []
    for n, transform in enumerate(transforms):
        anatomy = transform.resample(image, mode="bspline").clamp(min=0).float()
        generator = torch.Generator().manual_seed(int(state.randint(2**31)))
        if n == erased:
            anatomy = _erase(anatomy, grid, state, generator)
        scans.append(draw_acquisition(state)(anatomy, generator))
    return KnownPair(scans[0], scans[1], SpatialTransform(np.linalg.inv(pose), change, grid, grid, grid))


def brightest(image: torch.Tensor) -> float:
    """Find the intensity that a hundredth of what an image, from 0 up, shows is brighter than."""
    return quantiles(image[image > 0][::7], [0.99])[0]


@contextmanager
def scans_on_disk(moving: torch.Tensor, fixed: torch.Tensor, grid: Grid) -> Iterator[dict[str, Path]]:
    """Write two scans, (1, H, W, L), into a folder of their own that goes at the end: their paths by role."""
    with tempfile.TemporaryDirectory() as name:
        paths = {role: Path(name) / f"{role}.nii.gz" for role in ("moving", "fixed")}
        for image, path in zip((moving, fixed), paths.values()):
            write_image(image, grid, path)
        yield paths


def draw_pose_mm(state: np.random.RandomState, grid: Grid, turn: float, shift_mm: float) -> np.ndarray:
    """Draw a rigid motion about the middle of a grid: 4×4, mm, LPS; at most ``turn`` radians, ``shift_mm`` an axis."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(state.uniform(-turn, turn, 3)).as_matrix()
    pose[:3, 3] = grid.centre_mm - pose[:3, :3] @ grid.centre_mm + state.uniform(-shift_mm, shift_mm, 3)
    return pose


def _draw_deformation(state: np.random.RandomState, grid: Grid) -> DDF:
    """Draw a smooth deformation of several scales, (3, H, W, L), voxels; volumes stay above ``SLOWEST``."""
    strength, size = state.uniform(0.3, 1.3), torch.Size(grid.shape)
    spacing = torch.from_numpy(grid.spacing_mm).float().view(3, 1, 1, 1)
    ddf = torch.zeros(3, *size)
    for points, length_mm in SCALES:
        generator = torch.Generator().manual_seed(int(state.randint(2**31)))
        noise = blur(smooth_noise(size, points, generator, 3), max(size) / points / 4)
        ddf += noise / noise.std() * (strength * length_mm / spacing / 3**0.5)
    least = float(jacobian_determinant(ddf[None]).min())
    while least < SLOWEST:
        ddf *= 0.9
        least = float(jacobian_determinant(ddf[None]).min())
    return ddf


def _erase(anatomy: torch.Tensor, grid: Grid, state: np.random.RandomState, generator: torch.Generator) -> torch.Tensor:
    """Replace a ball about a bright voxel by noise around the mean of what it shows."""
    places = (anatomy[0] > 0.3).nonzero()
    centre = places[state.randint(len(places))]
    offset = identity_grid(anatomy[None])[0] - centre.view(3, 1, 1, 1)
    offset = offset * torch.from_numpy(grid.spacing_mm).float().view(3, 1, 1, 1)
    ball = offset.square().sum(0, keepdim=True) <= state.uniform(*ERASED_MM) ** 2
    noise = anatomy[ball].mean() * (1 + 0.1 * torch.randn(anatomy.shape, generator=generator))
    return torch.where(ball, noise.clamp(min=0), anatomy)
