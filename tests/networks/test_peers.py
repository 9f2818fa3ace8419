"""The peers: PAN's interface at any size, every parameter in use, and as many of them as their publications have."""

import pytest
import torch
from bundle.fields import warp
from bundle.losses import RegistrationLoss
from bundle.networks.peers import DualPRNet, TransMorph, ViTVNet, VoxelMorph
from bundle.networks.peers.dual_prnet import local_correlation
from bundle.networks.peers.transmorph import SwinStage
from bundle.networks.peers.vit_vnet import ViT
from monai.bundle import ConfigParser

SMALL = {
    DualPRNet: dict(channels=(4, 4, 6, 8)),
    TransMorph: dict(embedding=8, depths=(2, 2, 2), heads=(2, 2, 4), window=(2, 3, 4), full_channels=4),
    ViTVNet: dict(channels=(4, 6, 8), patch=4, hidden=12, layers=2, heads=3, mlp=24, position_grid=(3, 5, 4))
    | dict(decoder=(10, 8, 6, 4)),
    VoxelMorph: dict(channels=(4, 4, 4, 4), unet_out_channels=4, final_conv_channels=(4,)),
}
PARAMETERS = {"dual_prnet": 3_878_295, "transmorph": 46_840_371, "vit_vnet": 31_900_791, "voxelmorph": 244_323}


@pytest.fixture(params=SMALL, ids=lambda network: network.__name__)
def network(request):
    torch.manual_seed(0)
    return request.param(**SMALL[request.param])


@pytest.mark.parametrize("sides", [(33, 40, 37), (48, 20, 30)])
def test_any_unequal_sides_come_back_with_the_image_warped_by_the_field(network, sides):
    pair = torch.rand(2, 2, *sides)
    with torch.no_grad():
        torch.nn.init.normal_(head(network).weight, std=0.05)
        pred = network.eval()(pair)
    assert pred.shape == (2, 4, *sides)
    assert pred[:, 1:].abs().max() > 0.05
    torch.testing.assert_close(pred[:, :1], warp(pair[:, :1], pred[:, 1:]), atol=1e-6, rtol=0)


def head(network):
    """The convolution that makes the field, of the finest level."""
    if isinstance(network, DualPRNet):
        return network.registration[0].head
    return network.network.backbone.net[-1][-1].conv if isinstance(network, VoxelMorph) else network.head


def test_a_fresh_network_moves_next_to_nothing_or_as_monai_has_it_less_than_a_voxel(network):
    with torch.no_grad():
        largest = network(torch.rand(1, 2, 32, 33, 34))[:, 1:].abs().max()
    assert largest < (1.0 if isinstance(network, VoxelMorph) else 0.01)


def test_moving_and_fixed_are_one_tensor_or_two(network):
    pair = torch.rand(1, 2, 32, 36, 33)
    with torch.no_grad():
        assert torch.equal(network(pair), network(pair[:, :1], pair[:, 1:]))


def test_the_loss_reaches_every_parameter(network):
    pair = torch.rand(1, 2, 33, 40, 37)
    with torch.no_grad():
        torch.nn.init.normal_(head(network).weight, std=0.01)
    RegistrationLoss()(network(pair), pair[:, 1:]).backward()
    untouched = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert untouched == []


def test_other_shapes_are_refused_in_one_sentence(network):
    with pytest.raises(ValueError, match=rf"{type(network).__name__} takes one moving and one fixed channel"):
        network(torch.rand(1, 3, 32, 32, 32))
    with pytest.raises(ValueError, match="must share one grid"):
        network(torch.rand(1, 1, 32, 32, 32), torch.rand(1, 1, 32, 32, 33))


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_network_of_a_config_has_the_parameters_that_the_documents_count(bundle_root, name):
    parser = ConfigParser()
    parser.read_config(str(bundle_root / f"configs/peers/{name}.json"))
    network = parser.get_parsed_content("network_def")
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == PARAMETERS[name]
    assert f"{counted:,}" in (bundle_root / "docs/peers.md").read_text()


def test_local_correlation_is_what_a_loop_over_voxels_and_offsets_finds():
    fixed, moving = torch.rand(2, 3, 3, 5, 4, dtype=torch.float64), torch.rand(2, 3, 3, 5, 4, dtype=torch.float64)
    radius = 1
    found = local_correlation(fixed, moving, radius)
    span = range(-radius, radius + 1)
    offsets = [(i, j, k) for i in span for j in span for k in span]
    assert found.shape == (2, len(offsets), 3, 5, 4)
    for b in range(2):
        for o, offset in enumerate(offsets):
            for x in range(3 * 5 * 4):
                at = (x // 20, x // 4 % 5, x % 4)
                there = tuple(a + d for a, d in zip(at, offset))
                inside = all(0 <= n < side for n, side in zip(there, (3, 5, 4)))
                dots = [fixed[(b, c, *at)] * moving[(b, c, *there)] for c in range(3)] if inside else [0.0]
                assert float(found[(b, o, *at)]) == pytest.approx(float(sum(dots)) / 3, abs=1e-12)


def test_the_correlation_peaks_where_the_features_have_gone():
    torch.manual_seed(0)
    fixed = torch.randn(1, 64, 6, 7, 8)
    moving = fixed.roll((1, 0, -1), (2, 3, 4))  # fixed(x) stands at x + (1, 0, -1)
    best = local_correlation(fixed, moving, 1)[0, :, 2:-2, 2:-2, 2:-2].argmax(0)
    assert (best == 2 * 9 + 1 * 3 + 0).all()


def test_windows_are_never_smaller_than_their_position_bias():
    stage = SwinStage(8, 2, 2, (4, 4, 4))
    seen = []
    stage.blocks[0].attn.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    assert stage(torch.rand(1, 2, 5, 3, 8)).shape == (1, 2, 5, 3, 8)
    assert seen == [64]


def test_the_position_embedding_is_itself_on_its_grid_and_reached_whole_on_any_other():
    vit = ViT(4, 2, 12, 1, 3, 24, (3, 5, 4))
    assert torch.equal(vit.positions([3, 5, 4]), vit.position)
    for sides in ([2, 3, 2], [6, 5, 3]):
        found = vit.positions(sides)
        assert list(found.shape[2:]) == sides
        (gradient,) = torch.autograd.grad(found.sum(), vit.position)
        assert (gradient > 0).all()


def test_settings_of_a_network_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="4 levels of the encoder take patches of 16 voxels"):
        ViTVNet(patch=4)
    with pytest.raises(ValueError, match="4 in depths, 3 in heads"):
        TransMorph(heads=(4, 4, 8))
