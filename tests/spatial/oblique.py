"""Unequal, oblique, anisotropic grids, and transforms between them."""

import numpy as np
import torch
from bundle.spatial import Grid, SpatialTransform
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

SHAPE, SPACING_MM = (9, 12, 7), (1.4, 0.9, 2.6)


def oblique(shape=SHAPE, spacing_mm=SPACING_MM, degrees=(14, -9, 21), centre_mm=(11.0, -23.0, 31.0)):
    """A grid in LPS; a negative spacing runs its axis the other way."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def towards_ras(**changes):
    """An oblique grid whose axes run to the right, forwards and up, as nearly as they lie."""
    return oblique(spacing_mm=np.array(SPACING_MM) * (-1, -1, 1), **changes)


def indices_of(grid):
    return np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)


def random_points(grid, seed=0, count=200):
    return grid.to_points(np.random.default_rng(seed).uniform(0, np.array(grid.shape) - 1, (count, 3)))


def linear_map(seed=0):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] += rng.uniform(-0.12, 0.12, (3, 3))
    matrix[:3, 3] = rng.uniform(-4, 4, 3)
    return matrix


def moved_by(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def transform_of(alignment=None, ddf=None, field=None, fixed=None, moving=None):
    fixed = fixed or oblique()
    return SpatialTransform(np.eye(4) if alignment is None else alignment, ddf, field or fixed, fixed, moving or fixed)


def smooth_ddf(shape, seed=0, voxels=1.5):
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    field = np.stack([gaussian_filter(c, 2) for c in noise])
    return torch.from_numpy(field / np.abs(field).max() * voxels).float()


def reoriented(image, grid, permutation, flips):
    """The same image stored with its axes in another order and direction."""
    affine, shape = grid.affine.copy(), np.array(grid.shape)[list(permutation)]
    affine[:, :3] = affine[:, permutation]
    image = image.permute(0, *[1 + p for p in permutation])
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
        affine[:3, axis] *= -1
    return image.flip([1 + int(a) for a in np.flatnonzero(flips)]), Grid(tuple(shape), affine)
