import numpy as np
import pytest
import torch
from bundle.synthesis.acquisition import Acquisition, blur, draw_acquisition, smooth_noise, thick_slices
from scipy.ndimage import gaussian_filter

SIZE = (18, 25, 14)


@pytest.fixture
def image():
    return 0.1 + torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sigma", [0.3, 0.6, 1.3])
def test_the_blur_equals_scipys(image, sigma):
    expected = gaussian_filter(image[0].double().numpy(), sigma, mode="nearest", radius=max(1, round(3 * sigma)))
    np.testing.assert_allclose(blur(image, sigma)[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_blur_along_their_axis_alone(axis):
    ramp = torch.arange(float(SIZE[axis])).view([-1 if i == axis else 1 for i in range(3)]).expand(1, *SIZE)
    other = torch.rand(1, *[1 if i == axis else n for i, n in enumerate(SIZE)]).expand(1, *SIZE)
    torch.testing.assert_close(thick_slices(other, axis, 2.5), other)
    middle = (slice(None), *[slice(4, -4) if i == axis else slice(None) for i in range(3)])
    torch.testing.assert_close(thick_slices(ramp, axis, 2.3)[middle], ramp[middle], atol=1e-3, rtol=0)
    stripes = (ramp % 2).float()
    assert thick_slices(stripes, axis, 2.0).std() < 0.3 * stripes.std()


def test_noise_is_rician():
    """In air the magnitude of two channels of noise is a Rayleigh variable: mean σ√(π/2)."""
    dark = torch.full((1, 40, 50, 30), 1e-4)
    dark[:, 20:] = 1.0
    scan = Acquisition(noise=0.05)(dark, generator())
    # scaled by the percentiles: undo by the difference of the means, which are σ√(π/2) and about 1 + σ²/2
    low, high = scan[:, :20].mean(), scan[:, 20:].mean()
    spread_low, spread_high = scan[:, :20].std() / (high - low), scan[:, 20:].std() / (high - low)
    assert spread_high == pytest.approx(0.05 / (1 - 0.0627 + 0.00125), rel=0.1)
    assert spread_low == pytest.approx(0.05 * 0.655 / 0.9386, rel=0.1)  # √(2 − π/2) = 0.655


def test_a_scan_without_faults_is_the_image_itself_scaled(image):
    scan = Acquisition()(image.clone(), generator())
    assert np.corrcoef(scan.flatten(), image.flatten())[0, 1] > 0.999
    assert scan.min() == 0
    assert scan.max() == 1


def test_the_bias_field_is_smooth():
    flat = torch.ones(1, *SIZE)
    flat[:, 0, 0, 0] = 1.01
    scan = Acquisition(bias=0.3)(flat, generator())
    inside = scan[(scan > 0) & (scan < 1)]
    assert inside.std() > 0.1
    assert all(scan.diff(dim=dim).abs().median() < 0.1 for dim in (1, 2, 3))


def test_a_seed_fixes_the_scan_and_blank_stays_blank(image):
    image[:, :4] = 0
    drawn = [draw_acquisition(np.random.RandomState(3)) for _ in range(2)]
    assert drawn[0] == drawn[1] != draw_acquisition(np.random.RandomState(4))
    first, again = (one(image.clone(), generator(7)) for one in drawn)
    assert torch.equal(first, again)
    assert (first[:, :4] == 0).all()
    assert torch.equal(smooth_noise(SIZE, 4, generator(1)), smooth_noise(SIZE, 4, generator(1)))
