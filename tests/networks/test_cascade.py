"""A cascade: each network sees what those before it have aligned, and all are trained together."""

import pytest
import torch
from bundle.fields import compose, warp
from bundle.losses import RegistrationLoss
from bundle.networks import PAN
from bundle.networks.cascade import Cascade, cascaded
from bundle.networks.peers import DualPRNet

PAIR = torch.rand(1, 2, 32, 36, 33, generator=torch.Generator().manual_seed(0))


def networks():
    torch.manual_seed(0)
    return {"pan": PAN(channels=(16, 16), heads=(2, 1)), "dual-prnet": DualPRNet(channels=(4, 4, 6))}


@pytest.fixture(params=["pan", "dual-prnet"])
def moving_cascade(request):
    """Two networks that move something, each something else."""
    cascade = Cascade(networks()[request.param], 2)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in cascade.named_parameters():
            if name.endswith(("merge.weight", "merge.bias", "head.weight", "head.bias")):
                parameter.normal_(std=0.05)
    return cascade


def test_the_fields_are_composed_and_the_image_is_warped_once(moving_cascade):
    moving_cascade.eval()
    with torch.no_grad():
        first = moving_cascade.networks[0](PAIR)
        second = moving_cascade.networks[1](torch.cat([first[:, :1], PAIR[:, 1:]], 1))
        ddf = compose(first[:, 1:].clone(), second[:, 1:])
        pred = moving_cascade(PAIR)
        assert torch.equal(pred, moving_cascade(PAIR[:, :1], PAIR[:, 1:]))
    assert min(first[:, 1:].abs().max(), second[:, 1:].abs().max()) > 0.01
    torch.testing.assert_close(pred, torch.cat([warp(PAIR[:, :1], ddf), ddf], 1))


@pytest.mark.slow
def test_the_loss_of_the_last_image_reaches_the_first_network(moving_cascade):
    moving_cascade.train()
    RegistrationLoss()(moving_cascade(PAIR), PAIR[:, 1:]).backward()
    for network in moving_cascade.networks:
        assert all(p.grad is not None for p in network.parameters())
        assert sum(p.grad.abs().sum() for p in network.parameters()) > 0


def test_a_cascade_of_one_is_the_network_itself():
    network = networks()["pan"]
    assert cascaded(network) is network
    assert cascaded(network, 1) is network
    assert len(cascaded(network, 3).networks) == 3


def test_weights_of_one_network_start_all_and_those_of_a_cascade_each():
    network = networks()["dual-prnet"]
    cascade = Cascade(networks()["dual-prnet"], 2)
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            parameter.fill_(i)
    cascade.load_state_dict(network.state_dict())
    for one in cascade.networks:
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), network.parameters()))
    with torch.no_grad():
        next(iter(cascade.networks[1].parameters())).fill_(-1)
    again = Cascade(networks()["dual-prnet"], 2)
    again.load_state_dict(cascade.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), cascade.parameters()))


@pytest.mark.parametrize("cascades", [0, -1, 1.5, True, "2"])
def test_what_is_no_number_of_cascades_is_refused(cascades):
    with pytest.raises(ValueError, match="cascades takes a whole number from 1 up"):
        cascaded(networks()["pan"], cascades)
