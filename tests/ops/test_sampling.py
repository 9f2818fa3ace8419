import pytest
import torch
from bundle.fields import compose, warp
from bundle.ops import pull, sampling
from scipy.ndimage import map_coordinates


def pair(shape, channels=5, dtype=torch.float32, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, channels, *shape, generator=generator, dtype=dtype)
    return image, scale * torch.randn(2, 3, *shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("shape", [(9, 12, 7), (2, 3, 2), (17, 4, 33)])
def test_equals_the_sampling_that_gradients_go_through(shape, border):
    image, ddf = pair(shape, dtype=torch.float64)
    expected = warp(image, ddf, padding="border" if border else "zeros")
    torch.testing.assert_close(pull(image, ddf, border), expected, atol=1e-12, rtol=0)


def test_equals_scipy_slab_by_slab(monkeypatch):
    monkeypatch.setattr(sampling, "VOXELS_PER_SLAB", 100)
    image, ddf = pair((11, 6, 8))
    axes = torch.meshgrid(*(torch.arange(n) for n in image.shape[2:]), indexing="ij")
    found = pull(image, ddf, border=True)
    for one, u, result in zip(image, ddf, found):
        places = (torch.stack(axes) + u.double()).numpy()
        for channel, values in zip(one, result):
            expected = torch.from_numpy(map_coordinates(channel.double().numpy(), places, order=1, mode="nearest"))
            torch.testing.assert_close(values.double(), expected, atol=1e-5, rtol=0)


def test_fields_are_warped_and_composed_alike_with_and_without_a_graph():
    image, ddf = pair((8, 10, 6), channels=3)
    with torch.no_grad():
        warped, composed = warp(image, ddf), compose(image, ddf)
    torch.testing.assert_close(warped, warp(image, ddf), atol=2e-5, rtol=0)
    torch.testing.assert_close(composed, compose(image, ddf), atol=2e-5, rtol=0)


def test_a_side_of_one_voxel_is_sampled_too():
    image, ddf = pair((1, 6, 8))
    with torch.no_grad():
        torch.testing.assert_close(warp(image, ddf), warp(image.clone().requires_grad_(), ddf).detach())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_field_that_leads_nowhere_reads_nothing_outside(value):
    image, ddf = pair((5, 6, 7))
    ddf[0, 1, 2, 3, 4] = value
    for border in (False, True):
        found = pull(image, ddf, border)
        assert found.isfinite().all()
        assert found[0, :, 2, 3, 4].min() >= 0
        assert found[0, :, 2, 3, 4].max() <= 1
