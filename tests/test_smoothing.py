"""Smoothing on a grid of voxels, against SciPy."""

import numpy as np
import pytest
import torch
from bundle.smoothing import halve, restore, smooth, voxel_ratio
from scipy.ndimage import correlate1d
from scipy.stats import norm


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0, 8.0])
def test_what_is_constant_stays(sigma):
    torch.testing.assert_close(smooth(torch.full((1, 2, 9, 7, 5), 3.0), sigma), torch.full((1, 2, 9, 7, 5), 3.0))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_each_weight_is_the_share_of_the_gaussian_that_falls_on_its_voxel_and_edges_are_replicated(sigma):
    image = torch.rand(1, 2, 24, 17, 9, generator=torch.Generator().manual_seed(0))
    radius = int(3 * sigma + 0.5)
    weights = np.diff(norm.cdf(np.arange(-radius - 0.5, radius + 1), scale=sigma))
    expected = image.double().numpy()
    for axis in (2, 3, 4):
        expected = correlate1d(expected, weights / weights.sum(), axis, mode="nearest")
    np.testing.assert_allclose(smooth(image, sigma).numpy(), expected, atol=1e-6)


def test_sides_of_fewer_than_four_voxels_are_not_halved_and_the_last_of_an_odd_one_stays():
    volume = torch.rand(1, 2, 3, 7, 2, generator=torch.Generator().manual_seed(0))
    assert voxel_ratio(volume.shape[2:]) == [1, 2, 1]
    pairs = (volume[:, :, :, 0:6:2] + volume[:, :, :, 1:7:2]) / 2
    torch.testing.assert_close(halve(volume), torch.cat([pairs, volume[:, :, :, 6:]], 3))
    assert restore(halve(volume), (3, 7, 2)).shape == volume.shape
    assert [voxel_ratio([n])[0] for n in (1, 3, 4, 5)] == [1, 1, 2, 2]
