import numpy as np
import pytest
import torch
from bundle import fields
from bundle.fields import compose, identity_grid, jacobian_determinant, upsample, warp, warp_planes
from monai.networks.blocks import Warp
from scipy.ndimage import map_coordinates

SHAPE = (9, 12, 7)


def random_field(seed, scale=1.5, shape=SHAPE, dtype=torch.float32):
    return scale * torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_image(seed, shape=SHAPE, dtype=torch.float32):
    return torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ramp(shape=SHAPE, weights=(1.0, -2.0, 0.5)):
    """Build an image that is linear in the voxel index."""
    grid = identity_grid(torch.zeros(1, 1, *shape, dtype=torch.float64))
    return (grid * torch.tensor(weights, dtype=torch.float64).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)


def smooth_field(seed, amplitude, shape):
    """Build a field of a few coarse knots, at most ``amplitude`` voxels."""
    knots = 2 * torch.rand(1, 3, 3, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    return amplitude * torch.nn.functional.interpolate(knots, shape, mode="trilinear", align_corners=True)


def test_identity_grid_holds_the_index_along_each_axis():
    grid = identity_grid(torch.zeros(2, 3, 2, 3, 4, dtype=torch.float64))
    assert grid.shape == (1, 3, 2, 3, 4)
    assert grid.dtype == torch.float64
    assert grid[0, :, 1, 2, 3].tolist() == [1, 2, 3]
    assert grid[0, :, 1, 0, 2].tolist() == [1, 0, 2]


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warp_equals_monai(mode, padding):
    image, ddf = random_image(0), random_field(1)
    torch.testing.assert_close(warp(image, ddf, mode, padding), Warp(mode, padding)(image, ddf), atol=2e-5, rtol=1e-5)


def pulled(image, ddf, **kwargs):
    """Warp as inference on a CPU does: row by row, without a graph."""
    with torch.no_grad():
        return warp(image, ddf, **kwargs)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 2), (17, 4, 33), (1, 6, 8)])
def test_rows_are_warped_as_the_whole_is(shape, padding, mode, monkeypatch):
    monkeypatch.setattr(fields, "VOXELS_PER_SLAB", 2 * shape[1] * shape[2] + 1)
    image, ddf = random_image(0, shape, torch.float64), random_field(1, 3.0, shape, torch.float64)
    expected = warp(image, ddf, mode, padding)
    torch.testing.assert_close(pulled(image, ddf, mode=mode, padding=padding), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("first", "last"), [(0, 9), (0, 1), (3, 6), (8, 9)])
@pytest.mark.parametrize("size", [0.3, 4.0, 40.0])  # within a plane, across many, and mostly beyond the border
def test_some_planes_are_warped_as_in_the_whole(size, first, last, dtype):
    image = random_image(0, (9, 8, 7))[:1].to(dtype).contiguous(memory_format=torch.channels_last_3d)
    ddf = random_field(1, size, (9, 8, 7))[:1]
    with torch.no_grad():
        found, expected = warp_planes(image, ddf, first, last), warp(image.float(), ddf)[:, :, first:last]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(
    ("image", "field"),
    [
        ((2, 1, 5, 6, 7), (1, 3, 5, 6, 7)),
        ((1, 1, 5, 6, 7), (2, 3, 5, 6, 7)),
        ((1, 1, 5, 6, 7), (1, 3, 5, 6, 8)),
        ((1, 1, 5, 6, 7), (1, 2, 5, 6, 7)),
        ((1, 5, 6, 7), (3, 5, 6, 7)),
    ],
)
def test_an_image_and_a_field_of_two_batches_or_grids_are_refused(image, field, graph):
    refused = pytest.raises(ValueError, match=rf"of its grid, got \({', '.join(map(str, image))}\) and ")
    with torch.set_grad_enabled(graph), refused:
        warp(torch.zeros(image), torch.zeros(field))
    with torch.no_grad(), refused:
        warp_planes(torch.zeros(image), torch.zeros(field), 0, 1)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_a_displacement_that_is_no_number_points_outside_in_every_way_of_warping(wrong):
    image, ddf = random_image(0, (9, 8, 7)), random_field(1, 1.0, (9, 8, 7))
    ddf[:, 0, 4, 3, 2] = wrong
    expected = warp(image, ddf)
    assert (expected[:, :, 4, 3, 2] == 0).all()
    torch.testing.assert_close(pulled(image, ddf), expected, atol=2e-5, rtol=0)
    with torch.no_grad():
        one = image[:1].contiguous(memory_format=torch.channels_last_3d)
        found = warp_planes(one, ddf[:1], 3, 6)
    torch.testing.assert_close(found, expected[:1, :, 3:6], atol=2e-5, rtol=0)


def test_planes_that_point_elsewhere_read_no_more_than_they_need():
    image = torch.full((1, 1, 9, 4, 4), torch.nan)
    image[:, :, 5:8] = 1  # plane 4 goes on to 5.25 and 6.5
    ddf = torch.zeros(1, 3, 9, 4, 4)
    ddf[:, 0, 4] = torch.tensor([1.25, 2.5, 1.25, 2.5])
    with torch.no_grad():
        assert warp_planes(image, ddf, 4, 5).unique().tolist() == [1.0]


def test_an_image_of_one_plane_is_warped_too():
    image, ddf = random_image(0, (1, 8, 7))[:1], random_field(1, 2.0, (1, 8, 7))[:1]
    with torch.no_grad():
        torch.testing.assert_close(warp_planes(image, ddf, 0, 1), warp(image, ddf))


def test_warp_equals_scipy():
    image, ddf = random_image(0), random_field(1)
    places = (identity_grid(ddf) + ddf).double().numpy()
    for one, place, result in zip(image.double().numpy(), places, pulled(image, ddf, padding="border")):
        for channel, values in zip(one, result.numpy()):
            assert np.allclose(values, map_coordinates(channel, place, order=1, mode="nearest"), atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_a_field_that_leads_nowhere_reads_nothing_outside(value, padding):
    image, ddf = torch.rand(2, 4, *SHAPE), random_field(1)
    ddf[0, 1, 2, 3, 4] = value
    found = pulled(image, ddf, padding=padding)
    assert found.isfinite().all()
    assert found[0, :, 2, 3, 4].min() >= 0
    assert found[0, :, 2, 3, 4].max() <= 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_warp_pulls_from_ahead_along_each_axis(axis):
    image, ddf = random_image(0), torch.zeros(2, 3, *SHAPE)
    ddf[:, axis] = 2
    expected = torch.roll(image, -2, axis + 2)
    expected.narrow(axis + 2, SHAPE[axis] - 2, 2).zero_()
    torch.testing.assert_close(warp(image, ddf), expected, atol=1e-5, rtol=1e-5)


def test_warp_of_a_linear_ramp_is_exact_between_voxels():
    ddf = torch.rand(1, 3, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    coordinates = identity_grid(ddf) + ddf
    expected = coordinates[:, 0] - 2 * coordinates[:, 1] + 0.5 * coordinates[:, 2]
    inside = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(warp(ramp(), ddf)[:, 0][inside], expected[inside], atol=1e-12, rtol=0)


def test_warp_has_the_right_gradients():
    shape = (3, 4, 5)
    image = random_image(0, shape, torch.float64)[:1, :2].requires_grad_()
    # within a voxel and off its faces, where the gradient jumps
    offset = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ddf = (0.1 + 0.8 * offset).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, ddf))


def test_scripted_warp_equals_eager():
    image, ddf = random_image(0), random_field(1)
    scripted = torch.jit.script(warp)
    for mode in ("bilinear", "nearest"):
        assert torch.equal(scripted(image, ddf, mode), warp(image, ddf, mode))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_warped_in_float32(dtype):
    shape = (4, 5, 192)  # half-precision coordinates miss by a third of a voxel here
    image, ddf = random_image(0, shape).to(dtype), random_field(1, shape=shape).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        warped = warp(image, ddf)
    assert warped.dtype == torch.float32
    assert torch.equal(warped, warp(image.float(), ddf.float()))
    torch.testing.assert_close(warp(image, torch.zeros_like(ddf)), image.float(), atol=1e-3, rtol=0)


def test_a_composed_field_warps_like_two_warps_in_turn():
    shape = (20, 24, 28)
    first, then = smooth_field(1, 1.5, shape), smooth_field(2, 1.5, shape)
    inside = (..., slice(4, -4), slice(4, -4), slice(4, -4))
    fused = compose(first, then)
    image = ramp(shape)  # interpolation is exact on a ramp, so both ways agree to rounding
    twice = warp(warp(image, first), then)
    torch.testing.assert_close(warp(image, fused)[inside], twice[inside], atol=1e-10, rtol=0)
    swapped = warp(image, compose(then, first))
    assert (swapped - twice)[inside].abs().max() > 0.1
    smooth = torch.sin(image / 10)
    twice = warp(warp(smooth, first), then)
    torch.testing.assert_close(warp(smooth, fused)[inside], twice[inside], atol=0.02, rtol=0)


def test_composing_constant_fields_adds_them_up_to_the_border():
    first, then = torch.tensor([1.5, -2.0, 0.25]), torch.tensor([-4.0, 3.0, 0.5])
    fields = [v.view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE) for v in (first, then)]
    expected = (first + then).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    torch.testing.assert_close(compose(*fields), expected)


def test_upsample_doubles_values_and_keeps_corners():
    ddf = random_field(0, shape=(3, 4, 5))
    fine = upsample(ddf, [6, 8, 10])
    ends = (..., slice(None, None, 2), slice(None, None, 3), slice(None, None, 4))
    fine_ends = (..., slice(None, None, 5), slice(None, None, 7), slice(None, None, 9))
    assert fine.shape == (2, 3, 6, 8, 10)
    torch.testing.assert_close(fine[fine_ends], 2 * ddf[ends])


def test_upsample_scales_each_component_by_its_own_axis_and_stays_linear():
    ddf = ramp((3, 4, 5)).expand(1, 3, 3, 4, 5)
    fine = upsample(ddf, [6, 12, 5])
    axes = [torch.linspace(0, n - 1, m, dtype=torch.float64) for n, m in zip((3, 4, 5), (6, 12, 5), strict=True)]
    g0, g1, g2 = torch.meshgrid(*axes, indexing="ij")
    for component, ratio in enumerate((2, 3, 1)):
        torch.testing.assert_close(fine[0, component], ratio * (g0 - 2 * g1 + 0.5 * g2))


def test_jacobian_of_a_scaling_is_its_volume_factor():
    grid = identity_grid(torch.zeros(1, 3, 4, 6, 5, dtype=torch.float64))
    factors = torch.tensor([0.5, 3.0, 1.25], dtype=torch.float64)
    det = jacobian_determinant((factors - 1).view(1, 3, 1, 1, 1) * grid)
    torch.testing.assert_close(det, torch.full((1, 1, 4, 6, 5), factors.prod().item(), dtype=torch.float64))


def test_jacobian_of_no_movement_is_one():
    assert torch.equal(jacobian_determinant(torch.zeros(2, 3, 4, 6, 5)), torch.ones(2, 1, 4, 6, 5))


def test_jacobian_of_an_affine_map_is_its_determinant():
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = identity_grid(torch.zeros(1, 3, 4, 6, 5, dtype=torch.float64))
    ddf = torch.einsum("ij,bjhwl->bihwl", matrix - torch.eye(3), grid)
    torch.testing.assert_close(jacobian_determinant(ddf), torch.linalg.det(matrix).expand(1, 1, 4, 6, 5))


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 2, 4, 5, 6), (1, 3, 4, 1, 6)])
def test_jacobian_refuses_what_is_not_a_field(shape):
    with pytest.raises(ValueError, match="field"):
        jacobian_determinant(torch.zeros(shape))
