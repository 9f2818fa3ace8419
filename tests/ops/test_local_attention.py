import itertools
import math
import subprocess
import sys
import warnings

import bundle.ops
import pytest
import torch
from bundle.ops import (
    lean,
    local_attention,
    local_attention_lean,
    local_attention_reference,
    local_attention_triton,
    neighbour_offsets,
)

SHAPE = (5, 7, 6)
BACKENDS = {"reference": local_attention_reference, "lean": local_attention_lean, "chosen": local_attention}


def operands(batch=2, heads=2, channels=6, shape=SHAPE, neighbourhood=3, dtype=torch.float64, seed=0):
    """Draw Q, K and P as spread out as after a layer norm."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(batch, heads, channels, *shape), (batch, heads, channels, *shape), (heads, *[neighbourhood] * 3)]
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


def value_and_gradients(attention, tensors, seed=1):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    field = attention(*leaves)
    weight = torch.randn(field.shape, generator=torch.Generator().manual_seed(seed), dtype=field.dtype)
    return [field.detach(), *torch.autograd.grad((field * weight).sum(), leaves)]


def attention_by_loops(query, key, bias):
    """Follow equations (4) and (5) voxel by voxel with Python numbers."""
    q, k, p = query.tolist(), key.tolist(), bias.tolist()
    (batch, heads, channels), shape, n = query.shape[:3], query.shape[3:], bias.shape[1]
    field = torch.zeros(batch, 3 * heads, *shape, dtype=torch.float64)
    for b, s in itertools.product(range(batch), range(heads)):
        for x in itertools.product(*map(range, shape)):
            weights = {}
            for offset in itertools.product(range(-(n // 2), n // 2 + 1), repeat=3):
                y = [i + o for i, o in zip(x, offset)]
                logit = p[s][offset[0] + n // 2][offset[1] + n // 2][offset[2] + n // 2]
                if all(0 <= i < side for i, side in zip(y, shape)):  # else K is zero, and the neighbour stays
                    logit += sum(q[b][s][c][x[0]][x[1]][x[2]] * k[b][s][c][y[0]][y[1]][y[2]] for c in range(channels))
                weights[offset] = math.exp(logit)
            for axis in range(3):
                expected = sum(w * offset[axis] for offset, w in weights.items()) / sum(weights.values())
                field[(b, 3 * s + axis, *x)] = expected
    return field


@pytest.mark.parametrize("neighbourhood", [3, 5])
@pytest.mark.parametrize("attention", BACKENDS.values(), ids=BACKENDS)
def test_attention_equals_loops_over_the_formula(attention, neighbourhood):
    tensors = operands(channels=3, shape=(3, 2, 4), neighbourhood=neighbourhood)
    torch.testing.assert_close(attention(*tensors), attention_by_loops(*tensors), atol=1e-12, rtol=0)


@pytest.mark.parametrize("offset", [(1, 0, 0), (0, -1, 0), (0, 0, 1), (-1, 1, 0), (1, -1, 1)])
@pytest.mark.parametrize("attention", BACKENDS.values(), ids=BACKENDS)
def test_a_query_moves_to_the_only_key_that_it_matches(attention, offset):
    query, key, bias = (torch.zeros_like(t) for t in operands(batch=1, heads=1))
    here = (2, 3, 4)
    there = tuple(x + o for x, o in zip(here, offset))
    query[(0, 0, 4, *here)], key[(0, 0, 4, *there)] = 10, 5
    field = attention(query, key, bias)
    assert field[(0, slice(None), *here)].tolist() == pytest.approx(offset, abs=1e-12)
    field[(0, slice(None), *here)] = 0
    assert field.abs().max() < 1e-12  # nobody else has a preference


@pytest.mark.parametrize("attention", BACKENDS.values(), ids=BACKENDS)
def test_each_head_fills_its_own_three_channels(attention):
    query, key, bias = (torch.zeros_like(t) for t in operands(heads=3))
    offsets = [(1, 0, -1), (0, -1, 1), (-1, -1, 0)]
    for head, (i, j, k) in enumerate(offsets):
        bias[head, i + 1, j + 1, k + 1] = 50
    expected = torch.tensor(offsets, dtype=torch.float64).view(1, 9, 1, 1, 1).expand(2, 9, *SHAPE)
    torch.testing.assert_close(attention(query, key, bias), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("attention", BACKENDS.values(), ids=BACKENDS)
def test_neighbours_beyond_the_border_stay_in_the_softmax(attention):
    query, key, bias = (torch.zeros_like(t) for t in operands(heads=1))
    bias[0, 0, 2, 1] = math.log(2)  # offset (−1, 1, 0) weighs 2 of 28, its opposite 1
    expected = torch.tensor([-1, 1, 0], dtype=torch.float64).view(1, 3, 1, 1, 1).expand(2, 3, *SHAPE) / 28
    torch.testing.assert_close(attention(query, key, bias), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("attention", BACKENDS.values(), ids=BACKENDS)
def test_logits_are_not_divided_by_the_root_of_the_channels(attention):
    query, key, bias = (torch.zeros_like(t) for t in operands(batch=1, heads=1))
    query[0, 0, :, 2, 3, 3], key[0, 0, :, 3, 3, 3] = 1, math.log(4) / 6  # logit log 4: weighs 4 of 30
    along_axis_0 = attention(query, key, bias)[0, 0, 2, 3, 3].item()
    assert along_axis_0 == pytest.approx((4 - 1) / 30, abs=1e-14)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("neighbourhood", [3, 5])
@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_lean_equals_the_reference_in_value_and_gradients(heads, neighbourhood, dtype, tolerance):
    tensors = operands(heads=heads, neighbourhood=neighbourhood, dtype=dtype)
    found = value_and_gradients(local_attention_lean, tensors)
    expected = value_and_gradients(local_attention_reference, tensors)
    torch.testing.assert_close(found[0], expected[0], atol=tolerance, rtol=0)
    for mine, theirs in zip(found[1:], expected[1:], strict=True):  # sums of many terms: relative to their size
        torch.testing.assert_close(mine, theirs, atol=tolerance * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 6, 2), (7, 1, 3), (2, 5, 1)])
def test_lean_equals_the_reference_where_everything_is_border(shape):
    tensors = operands(shape=shape)
    for attention in (local_attention_lean, local_attention):
        torch.testing.assert_close(
            value_and_gradients(attention, tensors), value_and_gradients(local_attention_reference, tensors)
        )


@pytest.mark.parametrize(("logits", "slabs"), [(1, 11), (27 * 64 * 3, 4), (27 * 64 * 4, 3), (2**20, 1)])
def test_the_size_of_a_slab_changes_nothing(monkeypatch, logits, slabs):
    tensors = operands(shape=(11, 6, 6))  # 64 voxels a padded plane
    expected = value_and_gradients(local_attention_reference, tensors)
    monkeypatch.setattr(lean, "LOGITS_PER_SLAB", logits)
    assert len(list(lean._Layout(3, 11, 6, 6).slabs())) == slabs
    torch.testing.assert_close(value_and_gradients(local_attention_lean, tensors), expected, atol=1e-12, rtol=1e-12)


def test_lean_takes_operands_in_any_memory_layout():
    tensors = operands()
    strided = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in tensors]
    assert not any(t.is_contiguous() for t in strided)
    torch.testing.assert_close(
        value_and_gradients(local_attention_lean, strided), value_and_gradients(local_attention_lean, tensors)
    )


def test_lean_takes_large_logits():
    query, key, bias = operands(dtype=torch.float32)
    found = value_and_gradients(local_attention_lean, [100 * query, 100 * key, bias])
    assert all(t.isfinite().all() for t in found)
    assert found[0].abs().max() <= 1


@pytest.mark.parametrize("logits", [1, 2**20])
def test_lean_has_the_right_gradients(monkeypatch, logits):
    monkeypatch.setattr(lean, "LOGITS_PER_SLAB", logits)
    tensors = [t.requires_grad_() for t in operands(batch=1, channels=2, shape=(3, 1, 2))]
    assert torch.autograd.gradcheck(local_attention_lean, tensors)


def test_offsets_run_along_the_last_axis_first():
    offsets = neighbour_offsets(5, torch.zeros(0, dtype=torch.float64))
    assert offsets.tolist() == [list(map(float, o)) for o in itertools.product(range(-2, 3), repeat=3)]


@pytest.mark.parametrize(
    ("query", "key", "bias", "named"),
    [
        ((1, 6, 4, 5, 6), (1, 6, 4, 5, 6), (1, 3, 3, 3), "1, 6, 4, 5, 6"),
        ((1, 2, 6, 4, 5, 6), (1, 2, 6, 4, 5, 7), (2, 3, 3, 3), "4, 5, 7"),
        ((1, 2, 6, 4, 5, 6), (1, 2, 6, 4, 5, 6), (3, 3, 3, 3), "3, 3, 3, 3"),
        ((1, 2, 6, 4, 5, 6), (1, 2, 6, 4, 5, 6), (2, 4, 4, 4), "2, 4, 4, 4"),
        ((1, 2, 6, 4, 5, 6), (1, 2, 6, 4, 5, 6), (2, 3, 5, 3), "2, 3, 5, 3"),
        ((1, 2, 6, 4, 5, 6), (1, 2, 6, 4, 5, 6), (2, 27), "2, 27"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(query, key, bias, named):
    with pytest.raises(ValueError, match=named):
        local_attention(torch.zeros(query), torch.zeros(key), torch.zeros(bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
def test_triton_serves_the_gpu_except_in_double_precision(monkeypatch, device, dtype):
    monkeypatch.setattr(bundle.ops.triton, "AVAILABLE", True)
    expected = local_attention_triton if device == "cuda" and dtype != torch.float64 else local_attention_lean
    assert bundle.ops.backend_for(device, dtype) is expected


def test_without_triton_the_gpu_gets_the_lean_backend_and_one_warning(monkeypatch):
    monkeypatch.setattr(bundle.ops.triton, "AVAILABLE", False)
    bundle.ops._tell_that_triton_is_missing.cache_clear()
    with pytest.warns(UserWarning, match="pip install triton"):
        assert bundle.ops.backend_for("cuda", torch.float32) is local_attention_lean
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bundle.ops.backend_for("cuda", torch.float32) is local_attention_lean


def test_the_backend_that_was_chosen_does_the_work(monkeypatch):
    tensors = operands()
    monkeypatch.setattr(bundle.ops, "backend_for", lambda device, dtype: lambda *given: (device, dtype, given))
    assert local_attention(*tensors) == ("cpu", torch.float64, tuple(tensors))


def test_importing_the_operators_does_not_import_triton():
    subprocess.run([sys.executable, "-c", "import sys, bundle.ops; assert 'triton' not in sys.modules"], check=True)
