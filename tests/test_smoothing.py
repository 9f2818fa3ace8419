"""Smoothing on a grid of voxels, against SciPy."""

import numpy as np
import pytest
import torch
from bundle.smoothing import smooth
from scipy.ndimage import gaussian_filter


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0, 8.0])
def test_what_is_constant_stays(sigma):
    torch.testing.assert_close(smooth(torch.full((1, 2, 9, 7, 5), 3.0), sigma), torch.full((1, 2, 9, 7, 5), 3.0))


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_it_is_scipys_filter_with_edges_replicated(sigma):
    image = torch.rand(1, 1, 24, 17, 9, generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter(image[0, 0].double().numpy(), sigma, mode="nearest", truncate=3.0)
    np.testing.assert_allclose(smooth(image, sigma)[0, 0].numpy(), expected, atol=2e-2)
    wide = gaussian_filter(image[0, 0].double().numpy(), 1.2 * sigma, mode="nearest", truncate=3.0)
    assert np.abs(smooth(image, sigma)[0, 0].numpy() - expected).mean() < 0.3 * np.abs(wide - expected).mean()
