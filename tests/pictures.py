"""Images and label maps on an oblique anisotropic grid, in memory."""

import numpy as np
import torch
from bundle.spatial import ras_from_lps
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from tests.spatial import oblique as grids

SHAPE = (18, 22, 15)


def oblique(shape=SHAPE, spacing_mm=(-2.4, 1.7, 3.1), degrees=(9, -5, 14), centre_mm=(6.0, -13.0, 21.0)):
    return grids.oblique(shape, spacing_mm, degrees, centre_mm)


def meta(array, grid):
    return MetaTensor(torch.as_tensor(array).float()[None], affine=torch.from_numpy(ras_from_lps(grid.affine)))


def picture(seed=0, grid=None):
    """Smooth positive values on an oblique grid."""
    grid = grid or oblique()
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(grid.shape), 2)
    return meta(100 + 50 * noise / np.abs(noise).max(), grid)


def regions(seed=0, grid=None):
    grid = grid or oblique()
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(grid.shape), 2)
    return meta(np.digitize(noise, np.quantile(noise, [0.5, 0.7, 0.9])), grid)
