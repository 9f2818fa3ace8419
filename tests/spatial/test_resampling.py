import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.spatial import antialias, sample
from bundle.spatial.resampling import SplineSampler, sample_at
from tests.spatial.oblique import SHAPE, oblique, reoriented


def second_moment(profile):
    index = np.arange(len(profile))
    centre = (profile * index).sum() / profile.sum()
    return (profile * (index - centre) ** 2).sum() / profile.sum()


def test_antialias_spreads_a_point_by_its_closed_form_width_and_keeps_its_mass():
    grid = oblique((41, 43, 39), (1.0, 1.5, 4.2))
    target = oblique((20, 21, 22), (4.5, 4.5, 4.5))
    image = torch.zeros(1, *grid.shape)
    image[0, 20, 21, 19] = 100
    smooth = antialias(image, grid, target)[0].double().numpy()
    assert smooth.sum() == pytest.approx(100, rel=1e-5)
    for axis, ratio in enumerate((4.5, 3.0, 1.0)):
        profile = smooth.sum(tuple(i for i in range(3) if i != axis))
        assert second_moment(profile) == pytest.approx((ratio**2 - 1) / (8 * np.log(2)), rel=0.01)


def test_antialias_keeps_the_mean_of_an_image():
    rng = np.random.default_rng(2)
    image = torch.zeros(2, 24, 30, 20)
    image[:, 9:15, 9:21, 7:13] = torch.from_numpy(rng.uniform(1, 5, (2, 6, 12, 6))).float()
    grid = oblique((24, 30, 20), (1.2, 1.2, 1.6))
    smooth = antialias(image, grid, oblique((9, 11, 8), (3.0, 3.0, 3.0)))
    assert not torch.allclose(smooth, image)
    assert torch.allclose(smooth.mean((1, 2, 3)), image.mean((1, 2, 3)), rtol=1e-4)
    flat = torch.full((1, 24, 30, 20), 7.0)
    assert torch.allclose(antialias(flat, grid, oblique((9, 11, 8), (3.0, 3.0, 3.0))), flat)


def test_antialias_leaves_an_image_alone_that_is_sampled_as_finely_or_finer():
    image = torch.rand(1, *SHAPE)
    grid = oblique(spacing_mm=(2.0, 2.0, 2.0))
    for finer_mm in (0.5, 2.0, 2.15):
        assert antialias(image, grid, oblique(spacing_mm=[finer_mm] * 3)) is image


@pytest.mark.parametrize("permutation", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_antialias_leaves_thick_slices_alone_that_are_only_stored_in_another_order(permutation):
    grid = reoriented(torch.zeros(1, *SHAPE), oblique(spacing_mm=(0.9, 1.0, 6.0)), permutation, (True, False, True))[1]
    image = torch.rand(1, *grid.shape)
    assert antialias(image, grid, grid.canonical()) is image


def test_antialias_smooths_along_the_axis_that_gets_coarser_alone():
    grid, target = oblique((31, 21, 21), (1.0, 1.0, 1.0)), oblique((8, 21, 21), (4.0, 1.0, 1.0))
    image = torch.zeros(1, *grid.shape)
    image[0, 15, 10, 10] = 1
    spread = (antialias(image, grid, target)[0] > 1e-6).nonzero()
    assert spread[:, 1:].unique().tolist() == [10]
    assert len(spread) > 5


def test_splines_are_itk_s_up_to_the_border():
    image, index = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64), []
    for axis, side in enumerate(SHAPE):
        along = np.random.default_rng(axis).uniform(-0.49, side - 0.51, 300)
        along[:100] = np.random.default_rng(axis).choice([-0.4, -0.1, 0.5, side - 0.9, side - 0.6], 100)
        index.append(along)
    index = np.stack(index, -1)
    theirs = sitk.GetImageFromArray(image[0].numpy().T)
    expected = [theirs.EvaluateAtContinuousIndex(place, sitk.sitkBSpline3) for place in index.tolist()]
    found = SplineSampler(image, oblique())(torch.from_numpy(index))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 5), (2, 5, 0)])
def test_no_points_have_no_values(mode, shape):
    image, points = torch.rand(2, *SHAPE), torch.zeros(*shape, 3, dtype=torch.float64)
    for values in (sample(image, oblique(SHAPE, (1.0, 1.5, 2.0)), points, mode), sample_at(image, points, mode)):
        assert values.shape == (2, *shape)
        assert values.dtype == (torch.float64 if mode == "linear" else image.dtype)
