"""Convolving slab by slab in one piece of memory gives what convolving the whole volume gives."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from bundle.networks.encoder import EncoderLevel
from bundle.ops import (
    StreamedNorm,
    as_planes,
    check_bfloat16,
    computes_bfloat16,
    convolve_by_slabs,
    halve_by_slabs,
    norm,
    pooling,
    streamable,
    streamed_dtype,
    streaming,
    streaming_in,
)

SHAPE = (7, 6, 5)
NEEDS_BFLOAT16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU cannot convolve in bfloat16"
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def channels_last(features):
    return features.contiguous(memory_format=torch.channels_last_3d)


@pytest.fixture(params=[1, 2 * 30 * 4, 3 * 30 * 4, 2**20], ids=["a plane", "two", "three", "all"])
def slabs(request, monkeypatch):
    monkeypatch.setattr(streaming, "ELEMENTS_PER_SLAB", request.param)
    monkeypatch.setattr(pooling, "ELEMENTS_PER_CALL", request.param)


@pytest.mark.parametrize("into", [1, 2, 3, 4])
def test_the_result_may_end_where_the_input_does(slabs, into):
    features, weight, bias = channels_last(draw(1, into, *SHAPE)), draw(4, into, 3, 3, 3, seed=1), draw(4, seed=2)
    expected = F.conv3d(features, weight, bias, padding=1)
    room = torch.full((4 * features[0, 0].numel(),), torch.nan)
    room[-features.numel() :] = as_planes(features).flatten()
    inside = room[-features.numel() :].view(*SHAPE, into)[None].permute(0, 4, 1, 2, 3)
    found = convolve_by_slabs(inside, weight, bias, room, lambda x, to: to.copy_(x))
    assert found.data_ptr() == room.data_ptr()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_planes_are_activated_once_each_and_the_result_s_are_seen_once_each(slabs):
    features, weight = channels_last(draw(1, 3, *SHAPE)), draw(4, 3, 3, 3, 3, seed=1)
    seen = []
    out = torch.empty(4 * features[0, 0].numel())
    found = convolve_by_slabs(features, weight, None, out, lambda x, to: torch.add(x, 1, out=to), seen.append)
    expected = F.conv3d(features + 1, weight, padding=1)  # the zeros beyond the border stay zeros
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.cat([planes.reshape(-1) for planes in seen]), out)


@pytest.mark.parametrize("elements", [1, 50, 2**19])
def test_the_norm_of_planes_is_that_of_the_volume(slabs, monkeypatch, elements):
    monkeypatch.setattr(norm, "ELEMENTS_PER_RUN", elements)
    features = channels_last(draw(1, 4, *SHAPE) * 3 + 2)
    expected = F.leaky_relu(F.instance_norm(features), 0.1)
    streamed, planes = StreamedNorm(0.1), as_planes(features)
    for part in planes.split(3):
        streamed.measure(part)
    found = torch.empty_like(planes)
    for part, to in zip(planes.split(2), found.split(2)):
        streamed.apply(part, to)
    torch.testing.assert_close(found, as_planes(expected), atol=1e-5, rtol=1e-5)


def test_halving_activates_in_place(slabs):
    features = channels_last(draw(1, 4, 6, 4, 8))
    expected = features.clone() + 1
    halved = halve_by_slabs(features, lambda x, to: torch.add(x, 1, out=to))
    torch.testing.assert_close(halved, F.avg_pool3d(expected, 2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("kind", [{"finest": True}, {}, {"deepest": True}], ids=["finest", "middle", "deepest"])
def test_a_level_of_the_encoder_is_the_same_streamed(slabs, kind):
    torch.manual_seed(0)
    into = 1 if "finest" in kind else 8
    level, features = EncoderLevel(into, 16, **kind), channels_last(draw(1, into, 6, 8, 10))
    given = features.clone()
    with torch.no_grad():
        full, scale, halved = level(features.clone())
        room = torch.full((16 * 480 + 5,), torch.nan)
        found = level.stream(features, room)
    expected = (full, scale, full if "deepest" in kind else halved)  # of the deepest nothing is halved, nor asked for
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(features, given)


def test_what_needs_a_graph_or_another_library_is_not_streamed():
    features = draw(1, 2, *SHAPE)
    assert not streamable(features)
    with torch.no_grad():
        assert streamable(features)
        assert not streamable(draw(2, 2, *SHAPE))
        assert not streamable(features.double())
        assert not streamable(features.to("meta"))
        with torch.autocast("cpu"):
            assert not streamable(features)
        with torch.backends.mkldnn.flags(enabled=False):
            assert not streamable(features)


@NEEDS_BFLOAT16
@pytest.mark.parametrize("kind", [{"finest": True}, {}, {"deepest": True}], ids=["finest", "middle", "deepest"])
def test_a_level_in_bfloat16_is_off_by_the_rounding_of_what_it_keeps(slabs, kind):
    torch.manual_seed(0)
    into = 1 if "finest" in kind else 8
    level, features = EncoderLevel(into, 16, **kind), channels_last(draw(1, into, 6, 8, 10))
    with torch.no_grad():
        full, scale, halved = level.stream(features, torch.empty(16 * 480))
        room = torch.full((16 * 480,), torch.nan, dtype=torch.bfloat16)
        found = level.stream(features, room)
    assert found[0].dtype == torch.bfloat16
    assert found[1].dtype == torch.float32
    rounding = 2**-8  # of features with a standard deviation near 1
    for one, other, times in zip(found, (full, scale, halved), (2, 0.1, 2)):
        assert float((one - other).square().mean().sqrt()) < times * rounding
    assert not torch.equal(found[0].float(), full)


def test_what_is_kept_in_bfloat16_is_normalised_in_float32():
    values = draw(3, 8, 8, 4) * 3 + 200  # bfloat16 tells 200 from 201 alone
    kept = values.bfloat16()
    exact, rounded = StreamedNorm(0.1), StreamedNorm(0.1)
    exact.measure(kept.float())
    rounded.measure(kept)
    expected, found = torch.empty_like(values), torch.empty_like(kept)
    exact.apply(kept.float(), expected)
    rounded.apply(kept, found)
    torch.testing.assert_close(found.float(), expected, atol=1e-3, rtol=2**-7)


@NEEDS_BFLOAT16
def test_numbers_are_float32_but_where_bfloat16_is_asked_for():
    assert streamed_dtype() == torch.float32
    with streaming_in(torch.bfloat16):
        assert streamed_dtype() == torch.bfloat16
    assert streamed_dtype() == torch.float32


def test_a_cpu_with_instructions_for_bfloat16_is_known_by_them():
    assert not computes_bfloat16(torch.device("cuda"))
    flags = Path("/proc/cpuinfo")
    if not flags.is_file() or "flags" not in flags.read_text():
        pytest.skip("only Linux on x86 lists a CPU's instructions there")
    words = set(flags.read_text().split())
    assert computes_bfloat16(torch.device("cpu")) == bool(words & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize("supported", [True, False])
def test_on_a_gpu_bfloat16_is_refused_whatever_the_cpu_can(monkeypatch, supported):
    monkeypatch.setattr(streaming.torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    with pytest.raises(ValueError, match=r"--bfloat16 is for CPUs, and the network runs on cuda: .*--amp True"):
        check_bfloat16(True, torch.device("cuda"))
    check_bfloat16(False, torch.device("cuda"))


def test_a_cpu_that_cannot_convolve_in_bfloat16_says_so(monkeypatch):
    monkeypatch.setattr(streaming.torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="leave --bfloat16 out"), streaming_in(torch.bfloat16):
        pass
    with streaming_in(torch.float32):
        assert streamed_dtype() == torch.float32
