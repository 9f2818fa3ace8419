"""Images and fields continued through a region."""

import pytest
import torch
from bundle.inpainting import dilate, fill_in


def region(shape=(17, 20, 15), low=5, high=11):
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[..., low:high, low : high + 2, low : high - 1] = True
    return mask


def ramp(shape=(17, 20, 15)):
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij")
    return torch.stack([0.3 * axes[0] - 0.2 * axes[1], 0.1 * axes[2] + 1])[None]


def test_what_is_known_stays_and_a_constant_goes_on():
    x = torch.rand(1, 2, 17, 20, 15)
    filled = fill_in(x, region())
    outside = ~region().expand_as(x)
    assert torch.equal(filled[outside], x[outside])
    constant = torch.full((1, 2, 17, 20, 15), 3.0)
    torch.testing.assert_close(fill_in(constant * ~region(), region()), constant)


def test_a_ramp_goes_on_through_the_region_whatever_lies_in_it():
    spoiled = torch.where(region(), torch.tensor(1e3), ramp())
    apart = (fill_in(spoiled, region()) - ramp()).abs()
    assert apart.max() < 0.35  # of a change of 1.8 across the region
    assert apart[region().expand_as(apart)].mean() < 0.12


def test_what_is_filled_lies_where_it_belongs_on_odd_sides_too():
    """A ramp along each axis in turn, of which a third of the side is unknown, far from the first voxel."""
    shape = 37, 25, 29
    unknown = torch.zeros(1, 1, *shape, dtype=torch.bool)
    unknown[(..., *(slice(n // 2, n // 2 + n // 3) for n in shape))] = True
    for values in torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij"):
        apart = fill_in(values[None, None].masked_fill(unknown, 1e3), unknown) - values
        assert abs(float(apart[unknown].mean())) < 0.05


def test_a_region_that_is_everything_or_nothing_is_left_alone():
    x = torch.rand(1, 1, 5, 6, 7)
    assert torch.equal(fill_in(x, torch.zeros_like(x, dtype=torch.bool)), x)
    assert torch.equal(fill_in(x, torch.ones_like(x, dtype=torch.bool)), x)


def test_a_mask_grows_by_so_many_voxels_along_each_axis():
    mask = torch.zeros(1, 1, 9, 10, 11, dtype=torch.bool)
    mask[..., 4, 5, 6] = True
    grown = dilate(mask, 2)
    assert grown.sum() == 5**3
    assert grown[..., 2:7, 3:8, 4:9].all()


@pytest.mark.parametrize("corner", [(0, 0, 0), (8, 9, 10), (4, 0, 10)])
@pytest.mark.parametrize("voxels", [0, 1, 3])
def test_a_mask_at_the_border_grows_within_the_image(corner, voxels):
    mask = torch.zeros(1, 1, 9, 10, 11, dtype=torch.bool)
    mask[(0, 0, *corner)] = True
    side = 2 * voxels + 1
    whole = torch.nn.functional.max_pool3d(mask.float(), side, stride=1, padding=voxels) > 0
    assert torch.equal(dilate(mask, voxels), whole)
    assert not dilate(torch.zeros_like(mask), voxels).any()


def test_a_region_at_the_border_goes_on_from_what_lies_inside():
    x, unknown = torch.full((1, 1, 12, 14, 10), 2.0), torch.zeros(1, 1, 12, 14, 10, dtype=torch.bool)
    unknown[..., :3, -4:, :5] = True
    torch.testing.assert_close(fill_in(x.masked_fill(unknown, 50.0), unknown), x)


def test_nearly_nothing_known_fills_the_image():
    x = torch.rand(1, 1, 5, 6, 7)
    unknown = torch.ones_like(x, dtype=torch.bool)
    unknown[..., 0, 0, :2] = False
    low, high = x[..., 0, 0, :2].min(), x[..., 0, 0, :2].max()
    filled = fill_in(x, unknown)
    assert filled.min() >= low - 1e-6
    assert filled.max() <= high + 1e-6


@pytest.mark.parametrize("shape", [(2, 3, 9), (1, 5, 5), (16, 2, 1)])
def test_sides_of_one_voxel_on_the_way_down_do_no_harm(shape):
    x, unknown = torch.full((1, 1, *shape), 2.0), torch.ones(1, 1, *shape, dtype=torch.bool)
    unknown[..., :1, :1, :1] = False
    torch.testing.assert_close(fill_in(x.masked_fill(unknown, 50.0), unknown), x)


def test_a_region_of_no_numbers_is_filled():
    x, unknown = torch.full((1, 1, 12, 14, 10), 2.0), torch.zeros(1, 1, 12, 14, 10, dtype=torch.bool)
    unknown[..., 3:7, 4:9, 2:5] = True
    torch.testing.assert_close(fill_in(x.masked_fill(unknown, torch.nan), unknown), x)
