"""The kernels against the reference: on a GPU where there is one, else by Triton's interpreter (tests/conftest.py)."""

import os
import subprocess
import sys

import pytest
import torch
from bundle.ops import local_attention, local_attention_reference, local_attention_triton
from bundle.ops import triton as backend
from tests.interpreted import interpret_quickly

pytest.importorskip("triton", reason="Triton has no wheels for this platform")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def quick_interpreter(request, monkeypatch):
    """Interpret small volumes as one tile."""
    if DEVICE != "cpu":
        return
    interpret_quickly(monkeypatch)
    if "real_tiles" not in request.fixturenames:
        monkeypatch.setattr(backend, "TILE", (8, 8, 8))


@pytest.fixture
def real_tiles():
    return backend.TILE


def operands(shape, batch=1, heads=1, channels=1, neighbourhood=3, dtype=torch.float32, device=DEVICE):
    generator = torch.Generator().manual_seed(0)
    sizes = [(batch, heads, channels, *shape), (batch, heads, channels, *shape), (heads, *[neighbourhood] * 3)]
    return [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]


def value_and_gradients(attention, tensors):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    field = attention(*leaves)
    weight = torch.randn(field.shape, generator=torch.Generator().manual_seed(1)).to(field)
    return [field.detach(), *torch.autograd.grad((field * weight).sum(), leaves)]


def assert_equals_the_reference(tensors):
    found = value_and_gradients(local_attention_triton, tensors)
    expected = value_and_gradients(local_attention_reference, tensors)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    for mine, theirs in zip(found[1:], expected[1:], strict=True):  # sums of many terms: relative to their size
        torch.testing.assert_close(mine, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"shape": (5, 6, 7), "channels": 6},
        {"shape": (4, 3, 5), "batch": 2, "heads": 2, "channels": 2},
        {"shape": (3, 4, 2), "neighbourhood": 5},
        {"shape": (1, 1, 1)},
        {"shape": (1, 6, 2)},
        {"shape": (7, 1, 3)},
    ],
    ids=str,
)
def test_the_kernels_equal_the_reference_in_value_and_gradients(settings):
    assert_equals_the_reference(operands(**settings))


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_each_head_has_its_own_bias_and_channels(heads):
    tensors = operands((3, 5, 4), heads=heads)
    torch.testing.assert_close(local_attention_triton(*tensors), local_attention_reference(*tensors), atol=1e-5, rtol=0)


def test_tiles_meet_without_a_seam(real_tiles):
    shape = [n + 1 for n in real_tiles]
    assert backend._grid(torch.empty(2, 3, 1, *shape)) == (8, 6)
    assert_equals_the_reference(operands(shape))


def test_two_runs_are_equal_bit_by_bit():
    tensors = operands((5, 6, 7))
    first, second = (value_and_gradients(local_attention_triton, tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_half_precision_is_computed_and_returned_in_full_precision():
    tensors = operands((4, 5, 3), dtype=torch.bfloat16)
    found = value_and_gradients(local_attention_triton, tensors)
    expected = value_and_gradients(local_attention_triton, [t.float() for t in tensors])
    assert [t.dtype for t in found] == [torch.float32] + 3 * [torch.bfloat16]
    assert torch.equal(found[0], expected[0])
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs.bfloat16())


def test_operands_may_have_any_memory_layout():
    tensors = operands((2, 5, 4), channels=2)
    strided = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in tensors]
    assert not any(t.is_contiguous() for t in strided)
    torch.testing.assert_close(
        value_and_gradients(local_attention_triton, strided), value_and_gradients(local_attention_triton, tensors)
    )


def test_large_logits_stay_finite():
    query, key, bias = operands((4, 5, 6))
    found = value_and_gradients(local_attention_triton, [100 * query, 100 * key, 100 * bias])
    assert all(t.isfinite().all() for t in found)
    assert found[0].abs().max() <= 1


def test_compiling_keeps_the_kernels(monkeypatch):
    monkeypatch.setattr("bundle.ops.backend_for", lambda *_: local_attention_triton)  # as on a GPU
    graphs = []

    def spy(graph, _):
        graphs.append(graph.code)
        return graph

    tensors = operands((2, 3, 4), channels=1)
    expected = value_and_gradients(local_attention_triton, tensors)
    with torch.no_grad():
        torch.compile(local_attention, backend=spy, fullgraph=True)(*tensors)
    assert "pan_registration.local_attention" in graphs[0]
    compiled = torch.compile(local_attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(value_and_gradients(compiled, tensors), expected)


COMPILE = """
import torch
from types import SimpleNamespace
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from bundle.ops import kernels, triton as backend
driver.set_active(SimpleNamespace(
    get_current_device=lambda: 0, get_current_stream=lambda _: 0, get_current_target=lambda: GPUTarget("cuda", 90, 32)
))
constants = backend._constants(torch.empty(1, 2, 6, 160, 192, 160), torch.empty(2, 3, 3, 3))
for kernel in (kernels.forward, kernels.backward_by_query, kernels.backward_by_key):
    pointers = [torch.float32] * (len(kernel.arg_names) - 7)
    assert kernel.warmup(*pointers, grid=(1, 1), **constants).asm["cubin"]
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler comes with its Linux wheels")
def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device")
@pytest.mark.parametrize(("heads", "shape"), [(1, (80, 96, 81)), (8, (10, 12, 10))])
def test_the_gpu_equals_the_reference_and_repeats_itself(heads, shape):
    tensors = operands(shape, heads=heads, channels=6)
    assert local_attention(*tensors).equal(local_attention_triton(*tensors))
    assert_equals_the_reference(tensors)
    first, second = (value_and_gradients(local_attention_triton, tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
