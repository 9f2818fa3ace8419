import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.intensity import (
    PERCENTILES,
    above_air,
    clip_outliers,
    fill_value,
    foreground,
    intensity_range,
    percentile_range,
    quantiles,
    scale_between,
    shows_nothing,
)
from bundle.phantom import make_head


def head(seed=0, shape=(24, 30, 20)):
    """Air of 0 around noise between 100 and 900."""
    image = torch.zeros(1, *shape)
    noise = torch.rand(1, *(n - 8 for n in shape), generator=torch.Generator().manual_seed(seed))
    image[:, 4:-4, 4:-4, 4:-4] = 100 + 800 * noise
    return image


@pytest.mark.parametrize("image", [head(), head() - 1024, torch.rand(1, 20, 20, 20), head() * 1e-6])
def test_an_image_without_outliers_keeps_its_whole_range(image):
    assert intensity_range(image) == (float(image.min()), float(image.max()))
    assert clip_outliers(image) is image


@pytest.mark.parametrize("value", [60000.0, -32768.0, 1e30])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", [(24, 30, 20), (14, 16, 13)])  # of the small one a thousandth is no voxel
def test_outliers_are_brought_to_the_range_of_the_others(value, count, shape):
    image = head(shape=shape)
    image[0, 10, 10, 2 : 2 + count] = value
    low, high = intensity_range(image)
    assert -50 <= low <= 110
    assert 850 <= high <= 900
    clipped = clip_outliers(image)
    untouched = torch.ones_like(image, dtype=torch.bool)
    untouched[0, 10, 10, 2 : 2 + count] = False
    assert clipped.min() >= low
    assert clipped.max() <= high
    assert (clipped - image)[untouched].abs().max() < 15


@pytest.mark.parametrize("air", [-1000.0, -3.0, 70.0])
def test_intensities_are_counted_from_the_darkest_that_is_no_outlier(air):
    shifted = head() + air
    shifted[0, 0, 0, 0] = -32768.0
    torch.testing.assert_close(above_air(shifted), head(), rtol=0, atol=1e-3)


def test_an_image_whose_air_is_0_keeps_its_intensities():
    assert torch.equal(above_air(head()), head())


def test_a_small_bright_object_before_a_constant_background_is_no_outlier():
    image = torch.zeros(1, 60, 60, 60)
    image[:, 30:34, 30:34, 30:34] = 500 + torch.rand(4, 4, 4)  # 0.03 % of the voxels
    assert intensity_range(image)[1] == float(image.max())


def test_the_range_of_a_large_image_is_found_on_a_part_of_its_voxels_but_its_extremes_on_all():
    image = torch.rand(1, 128, 128, 130)
    image[0, 77, 3, 51] = 1.5
    assert intensity_range(image)[1] == 1.5


def test_the_fill_value_is_the_declared_padding_else_air_below_zero_else_zero():
    assert fill_value(head()) == 0
    assert fill_value(head() + 50) == 0
    assert fill_value(head() - 1024) == -1024
    assert fill_value(head() - 1024, declared=-2000.0) == -2000
    assert fill_value(head(), declared=0.0) == 0


def test_a_marker_of_missing_voxels_is_no_fill_value():
    image = head()
    image[0, 0, 0, 0] = -32768
    assert math.isclose(fill_value(image), 0, abs_tol=1)


def test_the_foreground_is_above_half_of_the_threshold_that_itk_finds():
    image = make_head(3, (40, 50, 36), (4.0, 3.5, 5.0))[0]
    smooth = sitk.OtsuThreshold(sitk.GetImageFromArray(image), 0, 1, 256)
    ours = foreground(torch.from_numpy(image)).numpy()
    assert (ours >= sitk.GetArrayFromImage(smooth).astype(bool)).all()  # half the threshold: more of it
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(256)
    otsu.Execute(sitk.GetImageFromArray(image))
    expected = image > otsu.GetThreshold() / 2
    assert (ours != expected).mean() < 0.02
    assert not foreground(torch.ones(4, 5, 6)).any()


def test_where_no_voxel_lies_between_object_and_noise_the_threshold_lies_in_the_middle():
    image = torch.rand(20, 22, 24, generator=torch.Generator().manual_seed(0)) * 20
    image[5:12, 6:14, 7:15] += 100
    assert torch.equal(foreground(image), image > 60)


def test_an_image_shows_nothing_where_one_value_is_left():
    image = head()
    assert shows_nothing(torch.ones(1, 4, 4, 4))
    assert not shows_nothing(image)
    assert not shows_nothing(image, torch.zeros_like(image, dtype=torch.bool))
    assert shows_nothing(image, torch.ones_like(image, dtype=torch.bool))
    assert shows_nothing(image, image > 0)
    assert not shows_nothing(image, image > 500)


def test_noise_beside_the_foreground_is_nothing_but_dim_tissue_beside_a_small_bright_region_is_something():
    noise = torch.rand(1, 24, 30, 20, generator=torch.Generator().manual_seed(1))
    assert shows_nothing(head() + noise, head() > 0)
    tissue = head() + noise
    tissue[:, 10:16, 10:16, 8:12] = 50_000  # brighter than the tissue by so much that it is all of the foreground
    assert not shows_nothing(tissue, tissue > 40_000)


def test_a_foreground_is_found_on_the_device_of_its_image():
    image = head()[0]
    with torch.device("meta"):  # where whatever names no device would come to lie
        found = foreground(image)
        assert quantiles(image.flatten(), [1.0]) == [float(image.max())]
    assert torch.equal(found, foreground(image))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_are_those_of_torch_as_far_as_it_takes_them(dtype):
    values = torch.rand(999, generator=torch.Generator().manual_seed(0), dtype=dtype)
    assert quantiles(values, [0.02, 0.99]) == [float(torch.quantile(values, share)) for share in (0.02, 0.99)]


def test_quantiles_of_more_values_than_torch_takes_are_those_of_a_part_of_them():
    values = torch.linspace(0, 1, 2**24 + 1)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values, 0.99)
    assert quantiles(values, [0.25, 0.99]) == pytest.approx([0.25, 0.99], abs=1e-6)


@pytest.mark.parametrize("voxels", [1000, 1_100_000])
def test_the_range_between_percentiles_is_numpys_of_tensors_and_arrays(voxels):
    image = torch.rand(voxels, generator=torch.Generator().manual_seed(0)) * 900
    wanted = pytest.approx(np.percentile(image.numpy(), PERCENTILES), rel=1e-6)
    assert percentile_range(image) == wanted
    assert percentile_range(image.numpy()) == wanted


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
def test_the_range_of_an_image_that_shows_next_to_nothing_is_that_of_what_it_shows(kind):
    image = np.zeros((32, 36, 32), np.float32)
    image[3:6, 3:6, 3:6] = np.linspace(1000, 1850, 27).reshape(3, 3, 3)
    low, high = percentile_range(kind(image))
    assert low == 0  # the background stays black
    assert high == pytest.approx(np.percentile(image[image > 0], 99.5), rel=1e-6)
    assert percentile_range(kind(-image)) == (-high, 0)
    assert percentile_range(kind(np.full((4, 5, 6), 7, np.float32))) == (7, 7)


def test_what_lies_between_two_intensities_comes_between_0_and_1_in_place():
    image = torch.tensor([0.0, 10.0, 15.0, 20.0, 99.0])
    assert scale_between(image, 10.0, 20.0) is image
    assert image.tolist() == [0, 0, 0.5, 1, 1]
    assert scale_between(torch.tensor([3.0, 3.5, 9.0]), 3.0, 3.0).tolist() == [0, 0.5, 1]  # nothing to divide by
