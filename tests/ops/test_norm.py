import pytest
import torch
import torch.nn.functional as F
from bundle.ops import instance_norm_leaky_relu, norm

SHAPE = (5, 8, 3)


def features(channels=6, shape=SHAPE, dtype=torch.float64, seed=0):
    """Draw instances and channels that differ in mean and spread."""
    x = torch.randn(2, channels, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    each = torch.arange(1, 2 * channels + 1, dtype=dtype).view(2, channels, 1, 1, 1)
    return x * each.sqrt() + each


def plain(x, slope=0.1, eps=1e-5):
    return F.leaky_relu(F.instance_norm(x, eps=eps), slope)


def value_and_gradient(function, x, seed=1):
    leaf = x.detach().clone().requires_grad_()
    out = function(leaf)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaf)]


@pytest.mark.parametrize("elements", [1, 50, 6 * 7, 2**17])  # one voxel a run … one run
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_equals_instance_norm_then_leaky_relu(monkeypatch, layout, elements):
    monkeypatch.setattr(norm, "ELEMENTS_PER_RUN", elements)
    x = features().contiguous(memory_format=layout)
    expected = value_and_gradient(plain, x)
    torch.testing.assert_close(value_and_gradient(instance_norm_leaky_relu, x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("channels", "shape"), [(1, SHAPE), (4, (1, 1, 9)), (3, (7, 1, 1)), (1, (1, 2, 1))])
def test_equals_instance_norm_where_a_side_or_the_channels_are_one(channels, shape):
    x = features(channels, shape)
    expected = value_and_gradient(plain, x)
    torch.testing.assert_close(value_and_gradient(instance_norm_leaky_relu, x), expected, atol=1e-12, rtol=1e-12)


def test_passes_slope_and_eps_on():
    x = features()
    torch.testing.assert_close(instance_norm_leaky_relu(x, 0.3, 2.0), plain(x, 0.3, 2.0), atol=1e-12, rtol=0)


def test_float32_equals_instance_norm_in_value_and_gradient():
    x = features(shape=(9, 16, 11), dtype=torch.float32)
    expected = value_and_gradient(plain, x)
    torch.testing.assert_close(value_and_gradient(instance_norm_leaky_relu, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("elements", [50, 2**17])
def test_has_the_right_gradient(monkeypatch, elements):
    monkeypatch.setattr(norm, "ELEMENTS_PER_RUN", elements)
    x = features(channels=2, shape=(4, 3, 5)).requires_grad_()
    assert torch.autograd.gradcheck(instance_norm_leaky_relu, x)


@pytest.mark.parametrize("elements", [1000, 2**17])
def test_a_large_offset_costs_no_accuracy(monkeypatch, elements):
    monkeypatch.setattr(norm, "ELEMENTS_PER_RUN", elements)
    noise = torch.randn(2, 4, 16, 20, 24, generator=torch.Generator().manual_seed(0))
    x = 1000 + noise
    value, gradient = value_and_gradient(instance_norm_leaky_relu, x)
    twin_value, twin_gradient = value_and_gradient(plain, x.double())
    torch.testing.assert_close(value.double(), twin_value, atol=1e-4, rtol=0)  # float32 holds 1000 to 3e-5
    smooth = twin_value.abs() > 1e-4  # elsewhere rounding may cross the kink of the leaky ReLU
    assert smooth.double().mean() > 0.99
    torch.testing.assert_close(gradient.double()[smooth], twin_gradient[smooth], atol=1e-4, rtol=0)


def test_a_constant_channel_becomes_zero_and_keeps_a_finite_gradient():
    out, gradient = value_and_gradient(instance_norm_leaky_relu, torch.full((1, 2, *SHAPE), 0.7))
    assert out.abs().max() < 1e-3
    assert gradient.isfinite().all()


def test_the_result_is_channels_last():
    out = instance_norm_leaky_relu(features())
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert not out.is_contiguous()


def test_the_input_stays_as_it_is():
    x = features().contiguous(memory_format=torch.channels_last_3d)
    before = x.clone()
    instance_norm_leaky_relu(x)
    assert torch.equal(x, before)


def test_scripted_equals_eager():
    x = features()
    torch.testing.assert_close(torch.jit.script(instance_norm_leaky_relu)(x), instance_norm_leaky_relu(x))


def test_statistics_of_half_precision_features_are_those_of_full_precision():
    x = (features(shape=(9, 16, 11), dtype=torch.float32) + 30).bfloat16()  # a mean that bfloat16 rounds by 0.06
    found = value_and_gradient(instance_norm_leaky_relu, x)
    expected = value_and_gradient(plain, x.float())
    assert found[0].dtype == torch.bfloat16
    torch.testing.assert_close(found[0].float(), expected[0], atol=0.02, rtol=0.01)
    torch.testing.assert_close(found[1].float(), expected[1], atol=0.05, rtol=0.02)
