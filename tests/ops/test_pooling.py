import pytest
import torch
import torch.nn.functional as F
from bundle.ops import halve


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_equals_average_pooling_in_value_and_gradient(layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 6, 10, generator=generator, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(2, 3, 2, 3, 5, generator=generator, dtype=torch.float64)
    results = []
    for pool in (halve, lambda t: F.avg_pool3d(t, 2)):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = pool(leaf)
        results.append([out.detach(), *torch.autograd.grad((out * weight).sum(), leaf)])
    torch.testing.assert_close(*results, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("dtype", "large"), [(torch.float16, 2048), (torch.bfloat16, 256)])
@pytest.mark.parametrize("with_graph", [True, False])
def test_half_precision_is_summed_in_full(dtype, large, with_graph):
    """A sum in half precision would lose each 1 that is added to a number as large."""
    x = torch.ones(1, 1, 2, 2, 2, dtype=dtype)
    x[..., 0, 0, 0] = large
    with torch.set_grad_enabled(with_graph):
        found = halve(x)
    assert found.to(dtype).item() == torch.tensor((large + 7) / 8).to(dtype).item() != large / 8


def test_without_a_graph_the_result_is_channels_last_and_the_input_as_it_was():
    x = torch.randn(1, 4, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with torch.no_grad():
        out = halve(x)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(out, F.avg_pool3d(x, 2))
    assert torch.equal(x, before)
