import math

import pytest
import torch
import torch.nn.functional as F
from bundle.fields import warp
from bundle.networks import lat
from bundle.networks.encoder import EncoderLevel
from bundle.networks.lat import LocalAttentionTransformer, Projection, head_gram
from bundle.ops import local_attention_reference

SHAPE = (5, 7, 6)


@pytest.fixture(autouse=True)
def _own_random_numbers():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def draw(*size, seed=0, dtype=torch.float64):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def projection(channels=5, out_channels=12):
    module = Projection(channels, out_channels).double()
    torch.nn.init.normal_(module.weight)
    return module


def transformer(heads=2, head_channels=6, neighbourhood=3):
    """Build one whose every parameter matters."""
    module = LocalAttentionTransformer(heads, head_channels, neighbourhood).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_projection_equals_a_linear_map_of_the_concatenation_centred_over_the_channels(layout):
    module = projection()
    features, scale, image = draw(2, 5, *SHAPE), draw(2, 5, seed=1), draw(2, 1, *SHAPE, seed=2)
    both = torch.cat([features * scale[:, :, None, None, None], image], 1)
    expected = F.linear(both.movedim(1, -1), module.weight).movedim(-1, 1)
    expected = expected - expected.mean(1, keepdim=True)
    found = module(features.contiguous(memory_format=layout), scale, image)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_projecting_what_is_streamed_equals_projecting_at_once(monkeypatch, dtype):
    monkeypatch.setattr(lat, "VOXELS_AT_A_TIME", 50)  # of 210
    module = projection().float()
    features = draw(1, 5, *SHAPE, dtype=torch.float32).to(dtype).contiguous(memory_format=torch.channels_last_3d)
    scale, image = draw(1, 5, seed=1, dtype=torch.float32), draw(1, 1, *SHAPE, seed=2, dtype=torch.float32)
    monkeypatch.setattr(lat, "streamed_dtype", lambda: dtype)
    with torch.no_grad():
        expected = module(features.float(), scale, image)
        found = module.stream(features, scale, image, torch.zeros(0))
    assert found.dtype == dtype
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-2, "rtol": 2**-8}
    torch.testing.assert_close(found.float(), expected, **close)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_projections_may_take_the_place_of_the_features(monkeypatch, dtype):
    monkeypatch.setattr(lat, "VOXELS_AT_A_TIME", 50)
    monkeypatch.setattr(lat, "streamed_dtype", lambda: dtype)
    module, voxels = Projection(7, 6).float(), math.prod(SHAPE)
    memory = draw(voxels * 7, dtype=torch.float32).to(dtype)
    features = memory.view(1, *SHAPE, 7).permute(0, 4, 1, 2, 3)
    scale, image = draw(1, 7, seed=1, dtype=torch.float32), draw(1, 1, *SHAPE, seed=2, dtype=torch.float32)
    with torch.no_grad():
        expected = module.stream(features, scale, image, torch.zeros(0))
        found = module.stream(features, scale, image, memory[: voxels * 6])
    assert found.data_ptr() == memory.data_ptr()
    assert torch.equal(found, expected)


def test_projecting_before_the_warp_equals_projecting_after_it():
    module, ddf = projection(), 2 * draw(2, 3, *SHAPE, seed=3)  # reaches beyond the border
    features, scale, image = draw(2, 5, *SHAPE), draw(2, 5, seed=1), draw(2, 1, *SHAPE, seed=2)
    before = warp(module(features, scale, image), ddf)
    after = module(warp(features, ddf), scale, warp(image, ddf))
    torch.testing.assert_close(before, after, atol=1e-12, rtol=0)


def test_embedding_equals_bias_then_layer_norm_then_heads():
    module, plain = transformer(), draw(2, 12, *SHAPE)
    shifted = plain.movedim(1, -1) + module.projection_bias
    normalised = F.layer_norm(shifted, (12,), module.norm.weight, module.norm.bias, module.norm.eps).movedim(-1, 1)
    expected = torch.stack([normalised[:, :6], normalised[:, 6:]], 1)
    projected = plain - plain.mean(1, keepdim=True)  # as ``Projection`` leaves it
    torch.testing.assert_close(module.embed(projected), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("neighbourhood", [3, 5])
def test_the_residual_is_the_merged_attention_of_both_embeddings(neighbourhood):
    module, query, key = transformer(neighbourhood=neighbourhood), draw(2, 12, *SHAPE), draw(2, 12, *SHAPE, seed=1)
    sub_fields = local_attention_reference(module.embed(query), module.embed(key), module.position_bias)
    expected = F.conv3d(sub_fields, module.merge.weight, module.merge.bias, padding=1)
    residual, gram = module.eval()(query, key)
    torch.testing.assert_close(residual, expected, atol=1e-12, rtol=0)
    assert gram.numel() == 0


def test_training_adds_the_grams_of_query_and_key():
    module, query, key = transformer().train(), draw(2, 12, *SHAPE), draw(2, 12, *SHAPE, seed=1)
    expected = torch.stack([head_gram(module.embed(query)), head_gram(module.embed(key))])
    torch.testing.assert_close(module(query, key)[1], expected)
    assert transformer(heads=1).train()(query[:, :6], key[:, :6])[1].numel() == 0


def test_head_gram_holds_the_cosines_between_whole_heads():
    heads = torch.zeros(1, 3, 2, 2, 3, 1)  # S = 3, d = 2, 2 × 3 × 1 voxels
    heads[0, 0, 0, 0, 0, 0] = 3
    heads[0, 1, 0, 0, 0, 0], heads[0, 1, 1, 1, 2, 0] = 1, 1
    heads[0, 2, 1, 1, 2, 0] = -2
    r = 0.5**0.5
    expected = torch.tensor([[[1, r, 0], [r, 1, -r], [0, -r, 1]]])
    torch.testing.assert_close(head_gram(heads), expected)


def test_head_gram_equals_the_cosine_similarity_and_keeps_instances_apart():
    heads = draw(2, 4, 3, *SHAPE)
    flat = heads.flatten(2)
    expected = F.cosine_similarity(flat.unsqueeze(2), flat.unsqueeze(1), dim=3)
    torch.testing.assert_close(head_gram(heads), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("finest", "deepest"), [(True, False), (False, False), (False, True)])
def test_an_encoder_level_equals_plain_blocks_and_squeeze_and_excitation(finest, deepest):
    into = 1 if finest else 16
    level = EncoderLevel(into, 32, finest, deepest).double()
    x = image = draw(2, into, 6, 8, 4)
    for block in level.blocks:
        x = F.conv3d(x, block.convolution.weight, block.convolution.bias, padding=1)
        x = F.leaky_relu(F.instance_norm(x) if block.norm else x, 0.1)
    hidden = F.leaky_relu(F.linear(x.mean((2, 3, 4)), level.excitation.squeeze.weight), 0.01)
    scale = torch.sigmoid(F.linear(hidden, level.excitation.excite.weight))
    recalibrated = x * scale[:, :, None, None, None]
    expected = x, scale, recalibrated if deepest else F.avg_pool3d(recalibrated, 2)
    torch.testing.assert_close(level(image), expected, atol=1e-10, rtol=0)
    assert [block.norm for block in level.blocks] == [False, True, True][not finest :]
    assert all((block.convolution.bias is None) == block.norm for block in level.blocks)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("neighbourhood", [3, 5])
@pytest.mark.parametrize("voxels", [1, 100, 10**6])  # of 42 a plane: slabs of 1, 2 and all 5 planes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_attending_by_planes_equals_warping_and_attending_at_once(
    monkeypatch, voxels, neighbourhood, heads, dtype, layout
):
    monkeypatch.setattr(lat, "VOXELS_PER_SLAB", voxels)
    module = transformer(heads, neighbourhood=neighbourhood).float()
    query, key = (draw(1, 6 * heads, *SHAPE, seed=n, dtype=torch.float32).to(dtype) for n in range(2))
    query, ddf = query.contiguous(memory_format=layout), 2 * draw(1, 3, *SHAPE, seed=2, dtype=torch.float32)
    with torch.no_grad():
        expected = module(query.float().clone(), warp(key.float(), ddf))[0]
        sub_fields = module.stream(query.clone(), key.contiguous(memory_format=torch.channels_last_3d), ddf)
        found = module.merge_streamed(sub_fields)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "channels", "within"), [(torch.bfloat16, 6, True), (torch.float32, 2, False)])
def test_sub_fields_take_the_place_of_the_query_where_they_fit(dtype, channels, within):
    module = LocalAttentionTransformer(1, head_channels=channels).float()
    query, key = (
        draw(1, channels, *SHAPE, seed=n, dtype=torch.float32)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last_3d)
        for n in range(2)
    )
    with torch.no_grad():
        found = module.stream(query, key, torch.zeros(1, 3, *SHAPE))
    assert (found.data_ptr() == query.data_ptr()) == within
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
