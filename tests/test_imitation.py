import copy

import pytest
import torch
from bundle.imitation import EmbeddingInferer, ImitationLoss
from bundle.inferers import AutocastInferer
from bundle.networks import PAN
from bundle.networks.cascade import Cascade


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = PAN(channels=(16, 32), heads=(2, 1))
    with torch.no_grad():
        for projection in network.projection:
            projection.weight.normal_()
        for attention in network.attention:
            attention.projection_bias.normal_()
            attention.norm.weight.uniform_(0.5, 1.5)
            attention.norm.bias.normal_()
    return network


def batch(seed=0, size=(12, 9, 8)):
    images = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(seed))
    images[..., :4] = 0
    return images, {"clean_moving": images[:, :1], "label": images[:, 1:]}


def test_embeddings_are_the_layer_norm_of_the_projected_features_of_each_level(network):
    image = torch.rand(1, 1, 12, 10, 8)
    found = network.embeddings(image)
    features, below, expected = image, image, []
    for i, (level, projection) in enumerate(zip(network.encoder, network.projection)):
        full, scale, features = level(features)
        below = torch.nn.functional.avg_pool3d(below, 2) if i else below
        attention = network.attention[len(network.attention) - 1 - i]
        seen = torch.cat([full * scale[:, :, None, None, None], below], 1)
        projected = torch.einsum("oc,bchwl->bohwl", projection.weight, seen)
        projected = projected + attention.projection_bias.view(1, -1, 1, 1, 1)
        expected.append(attention.norm(projected.movedim(1, -1)).movedim(-1, 1))
    assert [tuple(e.shape) for e in found] == [(1, 6, 12, 10, 8), (1, 12, 6, 5, 4)]
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gamma", [1.0, 1.4])
def test_an_encoder_that_sees_clean_images_as_its_teacher_does_has_no_loss(network, gamma):
    images, supervision = batch()
    loss = ImitationLoss(copy.deepcopy(network), gamma)
    assert loss(EmbeddingInferer(gamma)(images, network), supervision).item() == pytest.approx(0, abs=1e-9)


def test_the_encoder_runs_in_bfloat16_where_asked_for_and_the_loss_in_float32(network):
    images, _ = batch()
    plain = EmbeddingInferer(1.4)(images, network)
    for bfloat16 in (False, True):
        found = EmbeddingInferer(1.4, AutocastInferer(bfloat16))(images, network)
        for one, other in zip([*found[0], *found[1]], [*plain[0], *plain[1]], strict=True):
            assert one.dtype == torch.float32
            assert torch.equal(one, other) != bfloat16
            torch.testing.assert_close(one, other, rtol=0.1, atol=0.1)


def test_the_loss_is_the_share_of_the_teachers_energy_that_is_missed_where_the_image_shows_something(network):
    images, supervision = batch(size=(8, 8, 8))
    targets = [[e.detach() for e in network.embeddings(images[:, i : i + 1])] for i in (0, 1)]
    shown = images[:, :1] > 0.03
    weights = [torch.where(shown, 1.0, 0.05)]
    weights.append(torch.nn.functional.avg_pool3d(weights[0], 2))
    doubled = [[2 * t for t in levels] for levels in targets]
    assert ImitationLoss(copy.deepcopy(network))(doubled, supervision).item() == pytest.approx(2.0, rel=1e-5)
    # of the moving image's finest level alone, in its dark half alone
    wrong = [[t.clone() for t in levels] for levels in targets]
    wrong[0][0][..., :4] += 1.0
    energy = (targets[0][0].square() * weights[0]).sum()
    expected = 0.05 * targets[0][0][..., :4].numel() / energy.item() / 2
    assert ImitationLoss(copy.deepcopy(network))(wrong, supervision).item() == pytest.approx(expected, rel=1e-4)


def test_training_teaches_the_encoder_and_leaves_the_teacher_and_the_attention_alone(network):
    images, supervision = batch()
    teacher = copy.deepcopy(network)
    before = copy.deepcopy(teacher.state_dict())
    loss, inferer = ImitationLoss(teacher), EmbeddingInferer()
    seen = 1 - images
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        value = loss(inferer(seen, network), supervision)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    untouched = [a.position_bias for a in network.attention] + [a.merge.weight for a in network.attention]
    assert all(p.grad is None for p in untouched)
    assert all(p.grad is not None for p in network.encoder.parameters())


@pytest.mark.parametrize("kind", [EmbeddingInferer, lambda gamma: ImitationLoss(PAN(), gamma)])
def test_an_exponent_that_is_not_positive_is_refused(kind):
    with pytest.raises(ValueError, match="gamma is above 0"):
        kind(gamma=0.0)


def test_a_network_that_has_no_embeddings_is_refused_before_it_trains(network):
    EmbeddingInferer(network=network)
    for wrong in (Cascade(network, 2), torch.nn.Sequential(network)):
        with pytest.raises(
            ValueError, match=r"the encoder of one PAN in one process: leave out --cascades, .*multi_gpu"
        ):
            EmbeddingInferer(network=wrong)
