import copy
import io

import pytest
import torch
import torch.nn.functional as F
from bundle.fields import compose, upsample, warp
from bundle.losses import RegistrationLoss
from bundle.networks import PAN
from bundle.ops import local_attention_reference
from bundle.spatial.grid import MULTIPLE
from monai.data import MetaTensor
from tests.configs import load

AWKWARD = (40, 37, 50)  # every side needs padding
SHAPE = (33, 48, 32)  # one does


def smooth_pair(seed, shape, batch=1):
    """Draw moving and fixed in [0, 1], alike enough for features to match and too uneven for symmetry."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 2, *[n // 4 + 2 for n in shape], generator=generator)
    fine = F.interpolate(coarse, shape, mode="trilinear", align_corners=True)
    return 0.9 * fine + 0.1 * torch.rand(batch, 2, *shape, generator=generator)


def build(lively, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PAN(**settings)
        if lively:
            for module in network.projection:
                torch.nn.init.normal_(module.weight, std=0.3)
            for module in network.attention:
                torch.nn.init.normal_(module.projection_bias, std=0.3)
                torch.nn.init.normal_(module.position_bias, std=0.3)
                torch.nn.init.normal_(module.merge.weight, std=0.03)
    return network.eval()


@pytest.fixture(scope="module")
def fresh():
    return build(lively=False)


@pytest.fixture(scope="module")
def lively():
    """Weights whose fields are of about a voxel: on a fresh network's zeros every comparison would hold."""
    return build(lively=True)


@pytest.fixture(scope="module")
def awkward(lively):
    pair = smooth_pair(0, AWKWARD)
    with torch.no_grad():
        return pair, lively(pair)


@pytest.fixture(scope="module")
def batch(lively):
    pair = smooth_pair(1, SHAPE, batch=2)
    with torch.no_grad():
        return pair, lively(pair)


@pytest.fixture(scope="module")
def trained(lively):
    """One training pass: the network with its gradients, and what it returned."""
    network = copy.deepcopy(lively).train()
    pair = smooth_pair(2, SHAPE, batch=2)
    out = network(pair[:, :1], pair[:, 1:])
    RegistrationLoss()(out, pair[:, 1:]).backward()
    return network, out


def assert_same(found, expected, tolerance=1e-4):
    assert expected[:, 1:].abs().mean() > 0.1  # voxels: there is something to compare
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def plain_pan(network, pair):
    """Follow method.md as it reads: concatenate, warp, project with bias, layer norm, attention, merge, compose.

    It shares nothing with ``bundle.benchmark.plain``, which speed and memory are compared with: neither can hide the
    other's mistake.
    """
    padded = F.pad(pair, [p for n in reversed(pair.shape[2:]) for p in (0, max(32, -(-n // 16) * 16) - n)])
    pyramids = []
    for image in (padded[:, :1], padded[:, 1:]):
        features, pyramid = image, []
        for i, level in enumerate(network.encoder):
            features = F.avg_pool3d(features, 2) if i else features
            for block in level.blocks:
                features = F.conv3d(features, block.convolution.weight, block.convolution.bias, padding=1)
                features = F.leaky_relu(F.instance_norm(features) if block.norm else features, 0.1)
            hidden = F.leaky_relu(level.excitation.squeeze(features.mean((2, 3, 4))), 0.01)
            features = features * level.excitation.excite(hidden).sigmoid()[:, :, None, None, None]
            pyramid.append(torch.cat([features, F.avg_pool3d(image, 2**i)], 1))
        pyramids.append(pyramid)
    ddf = None
    for t in (5, 4, 3, 2, 1):
        attention, weight = network.attention[5 - t], network.projection[t - 1].weight
        moving, fixed = (pyramid[t - 1] for pyramid in pyramids)
        if ddf is not None:
            ddf = upsample(ddf, moving.shape[2:])
            moving = warp(moving, ddf)
        heads = []
        for both in (fixed, moving):
            projected = F.linear(both.movedim(1, -1), weight, attention.projection_bias)
            heads.append(attention.norm(projected).movedim(-1, 1).unflatten(1, (attention.heads, -1)))
        residual = attention.merge(local_attention_reference(*heads, attention.position_bias))
        ddf = residual if ddf is None else compose(ddf, residual)
    ddf = ddf[:, :, : pair.shape[2], : pair.shape[3], : pair.shape[4]]
    return torch.cat([warp(pair[:, :1], ddf), ddf], 1)


def test_the_network_equals_the_method_written_plainly(lively):
    network, pair = copy.deepcopy(lively).double(), smooth_pair(3, (31, 37, 32)).double()
    for attention in network.attention:  # the last parameters that a fresh network leaves at 0 and 1
        torch.nn.init.normal_(attention.norm.weight, mean=1, std=0.1, generator=torch.Generator().manual_seed(0))
        torch.nn.init.normal_(attention.norm.bias, std=0.1, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(attention.merge.bias, std=0.1, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert_same(network(pair), plain_pan(network, pair), 1e-9)


def test_the_network_has_the_papers_parameters(fresh):
    assert sum(p.numel() for p in fresh.parameters()) == 3_567_759
    assert [a.heads for a in fresh.attention] == [8, 4, 2, 1, 1]


def test_every_parameter_gets_a_gradient_in_training(trained):
    network, _ = trained
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_fresh_network_returns_the_identity(fresh):
    pair = smooth_pair(0, AWKWARD)
    with torch.no_grad():
        pred = fresh(pair)
    assert pred.shape == (1, 4, *AWKWARD)
    assert pred[:, 1:].abs().max() <= 1e-4
    torch.testing.assert_close(pred[:, :1], pair[:, :1], atol=1e-4, rtol=0)


def test_the_first_channel_is_the_moving_image_warped_by_the_others(awkward):
    pair, pred = awkward
    torch.testing.assert_close(pred[:, :1], warp(pair[:, :1], pred[:, 1:]))
    assert (pred[:, :1] - pair[:, :1]).abs().max() > 0.05


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 33, 2), (17, 16, 32)])
def test_any_size_is_registered_on_its_own_grid(lively, shape):
    with torch.no_grad():
        pred = lively(smooth_pair(0, shape))
    assert pred.shape == (1, 4, *shape)
    assert pred.isfinite().all()


def test_padding_equals_zeros_after_the_last_voxel(lively, batch):
    pair, pred = batch
    with torch.no_grad():
        padded = lively(F.pad(pair, [0, 0, 0, 0, 0, 15]))
    assert_same(padded[:, 1:, :33], pred[:, 1:])


def test_a_batch_equals_its_pairs_one_by_one(lively, batch):
    pair, pred = batch
    with torch.no_grad():
        assert_same(torch.cat([lively(pair[:1]), lively(pair[1:])]), pred)


def test_the_order_of_a_batch_does_not_matter(lively, batch):
    pair, pred = batch
    with torch.no_grad():
        assert_same(lively(pair.flip(0)).flip(0), pred)
    assert (pred[0] - pred[1]).abs().max() > 0.1


def test_two_arguments_equal_one_tensor_of_two_channels(lively, batch):
    pair, pred = batch
    with torch.no_grad():
        assert torch.equal(lively(pair[:, :1], pair[:, 1:]), pred)


def test_moving_and_fixed_are_not_interchangeable(lively, batch):
    pair, pred = batch
    with torch.no_grad():
        assert (lively(pair.flip(1)) - pred)[:, 1:].abs().max() > 0.1


@pytest.mark.parametrize(
    ("moving", "fixed", "named"),
    [
        ((1, 1, 32, 33, 34), None, "1, 1, 32, 33, 34"),
        ((1, 3, 32, 33, 34), None, "1, 3, 32, 33, 34"),
        ((2, 32, 33, 34), None, "2, 32, 33, 34"),
        ((1, 2, 32, 33, 34), (1, 2, 32, 33, 34), "1, 4, 32, 33, 34"),
        ((1, 1, 32, 33, 34), (1, 1, 32, 33, 35), "32, 33, 35"),
        ((1, 1, 32, 33, 34), (2, 1, 32, 33, 34), "2, 1, 32, 33, 34"),
    ],
)
def test_other_shapes_are_refused_by_name(fresh, moving, fixed, named):
    with pytest.raises(ValueError, match=named):
        fresh(torch.zeros(moving), None if fixed is None else torch.zeros(fixed))


def test_levels_without_heads_are_refused():
    with pytest.raises(ValueError, match="3 levels in channels, 2 in heads"):
        PAN(channels=(16, 32, 64), heads=(2, 1))


def test_other_levels_and_a_wider_neighbourhood_register_too():
    network = build(lively=True, channels=(16, 32, 32), heads=(4, 2, 2), head_channels=4, neighbourhood=5)
    pair = smooth_pair(0, (9, 13, 7), batch=2)
    assert network.eval()(pair).shape == (2, 4, 9, 13, 7)
    assert [tuple(g.shape) for g in network.train()(pair)["gram"]] == [(2, 2, 4, 4), (2, 2, 2, 2), (2, 2, 2, 2)]


def test_evaluating_with_a_graph_equals_evaluating_without(lively, batch):
    pair, pred = batch
    with_graph = lively(pair)
    assert with_graph.requires_grad
    assert not pred.requires_grad
    assert_same(with_graph.detach(), pred)


def test_training_returns_the_prediction_and_the_grams_of_levels_with_heads(trained):
    network, out = trained
    assert set(out) == {"pred", "gram"}
    assert [tuple(g.shape) for g in out["gram"]] == [(2, 2, s, s) for s in (8, 4, 2)]
    for gram in out["gram"]:
        diagonal = gram.diagonal(dim1=2, dim2=3)
        torch.testing.assert_close(diagonal, torch.ones_like(diagonal), atol=1e-5, rtol=0)
        assert gram.abs().max() <= 1 + 1e-5
        assert (gram[0] - gram[1]).abs().max() > 1e-3  # query and key
    with torch.no_grad():
        assert_same(copy.deepcopy(network).eval()(smooth_pair(2, SHAPE, batch=2)), out["pred"].detach())


def test_a_metatensor_registers_like_a_tensor(lively, batch):
    pair, pred = batch
    with torch.no_grad():
        found = lively(MetaTensor(pair[:, :1]), MetaTensor(pair[:, 1:]))
        assert torch.equal(lively(MetaTensor(pair)), pred)
    assert type(found) is torch.Tensor
    assert torch.equal(found, pred)


def test_autocast_still_gives_a_float32_field(lively, batch):
    pair, pred = batch
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = lively(pair)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, :1], warp(pair[:, :1], found[:, 1:]))  # the grid is not rounded
    error, size = (found - pred)[:, 1:].abs().mean(), pred[:, 1:].abs().mean()
    assert 0 < error < 0.1 * size


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["script", "trace"])
def test_torchscript_equals_eager_at_every_size(lively, awkward, batch, exporter):
    with torch.no_grad():
        if exporter == "script":
            stored = io.BytesIO()
            torch.jit.save(torch.jit.script(lively), stored)
            stored.seek(0)
            exported = torch.jit.load(stored)
        else:  # the example must need padding on every axis, or the trace holds at its own size only
            exported = torch.jit.trace(lively, awkward[0], check_trace=False)
        for pair, pred in (awkward, batch):
            assert_same(exported(pair), pred)


@pytest.mark.slow
def test_torch_export_equals_eager_at_every_size_that_needs_no_padding(lively):
    sides = {axis: 16 * torch.export.Dim(name, min=2, max=16) for axis, name in ((2, "h"), (3, "w"), (4, "l"))}
    with torch.no_grad():
        exported = torch.export.export(lively, (smooth_pair(0, (48, 64, 80)),), dynamic_shapes=(sides,), strict=False)
        for shape in [(48, 64, 80), (32, 48, 64)]:
            pair = smooth_pair(1, shape)
            assert_same(exported.module()(pair), lively(pair))


@pytest.mark.slow
def test_compiled_equals_eager():
    """Two levels, to be quick; without a GPU the graph is the point here, not the code that a compiler makes of it."""
    network, pair = build(lively=True, channels=(16, 16), heads=(2, 1)), smooth_pair(0, (9, 10, 6))
    with torch.no_grad():
        expected = network(pair)
        network.compile(backend="aot_eager", fullgraph=True, dynamic=False)
        assert_same(network(pair), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_equals_the_cpu_eager_compiled_and_in_mixed_precision(lively, awkward):
    pair, pred = awkward
    network, pair = copy.deepcopy(lively).cuda(), pair.cuda()
    with torch.no_grad():
        assert_same(network(pair).cpu(), pred, 1e-3)
        with torch.autocast("cuda"):
            half = network(pair)
        assert half.dtype == torch.float32
        assert (half.cpu() - pred)[:, 1:].abs().mean() < 0.1 * pred[:, 1:].abs().mean()
        network.compile(mode="reduce-overhead", dynamic=False)  # as configs/inference.json does
        for _ in range(3):  # warm up, record, replay
            found = network(pair).clone()
        assert_same(found.cpu(), pred, 1e-3)


@pytest.mark.slow
def test_recomputed_levels_change_no_gradient(lively):
    pair = smooth_pair(5, SHAPE)
    gradients = []
    for recomputed in (0, 1, 5):
        network = copy.deepcopy(lively).train()
        network.recomputed = recomputed
        RegistrationLoss()(network(pair), pair[:, 1:]).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[0].abs().max() > 1e-3
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-6, rtol=1e-4)


def test_recomputed_levels_are_run_again_on_the_way_back():
    calls = []
    network = PAN(recomputed=2).train()
    for i, level in enumerate(network.encoder):
        level.blocks.register_forward_hook(lambda *_, i=i: calls.append(i))
    network(torch.rand(1, 2, 32, 32, 32))["pred"].mean().backward()
    assert [calls.count(i) for i in range(5)] == [4, 4, 2, 2, 2]


def test_grids_that_suit_the_network_are_not_padded(bundle_root):
    network = load(bundle_root, ["inference"]).get_parsed_content("network_def")
    assert MULTIPLE == network.divisor
