"""What does not count is filled from the other image through the field found so far."""

import numpy as np
import pytest
import torch
from bundle.inferers import RecursiveInferer
from bundle.lesions import REFILLS, RefillIgnoredd, ignored_in_fixed
from bundle.transforms import without_ignored
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

SHAPE = (24, 28, 26)
SHIFT = (3.0, -2.0, 0.0)  # voxels: moving(x + shift) is fixed(x)
BOX = (..., slice(9, 15), slice(10, 16), slice(9, 15))


def scene():
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    return torch.from_numpy(gaussian_filter(noise, 1.5) * 4 + 0.5).float().clamp(0.05, 0.95)


class Shifts(torch.nn.Module):
    """A network that knows the field between the two images, and keeps what it has been shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, pair):
        self.shown.append(pair.clone())
        ddf = torch.tensor(SHIFT).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
        return torch.cat([pair[:, :1], ddf], 1)


def filled_wrongly(channel):
    """An image and its shifted copy; one of them has 0 in a box, as if it had been filled badly."""
    fixed = scene()
    moving = fixed.roll((3, -2, 0), (0, 1, 2))
    image, ignored = torch.stack([moving, fixed]), torch.zeros(2, *SHAPE, dtype=torch.bool)
    ignored[channel][BOX] = True
    return torch.where(ignored, 0.0, image), image, ignored


@pytest.mark.parametrize("channel", [0, 1])
def test_the_box_takes_the_other_image_s_anatomy_and_all_else_stays(channel):
    spoiled, image, ignored = filled_wrongly(channel)
    network = Shifts()
    pred = network(spoiled[None])[0]
    item = {"image": MetaTensor(spoiled, affine=torch.eye(4)), "pred": pred, "ignored": ignored}
    found = RefillIgnoredd(network, RecursiveInferer())(item)
    assert len(network.shown) == 1 + REFILLS
    filled = found["image"].as_tensor()
    assert torch.equal(filled[1 - channel], spoiled[1 - channel])
    inside = ignored[channel]
    assert float((filled[channel] - image[channel])[inside].abs().mean()) < 0.05
    assert float((spoiled[channel] - image[channel])[inside].abs().mean()) > 0.2
    far = torch.ones_like(inside)
    far[7:17, 8:18, 7:17] = False
    torch.testing.assert_close(filled[channel][far], spoiled[channel][far])


def test_the_moving_image_s_mask_is_carried_to_the_fixed_side_by_the_field():
    _, _, ignored = filled_wrongly(0)
    ddf = torch.tensor(SHIFT).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    there = ignored_in_fixed(ignored[None], ddf)[0]
    assert torch.equal(there[0], ignored[0].roll((-3, 2, 0), (0, 1, 2)))
    assert not there[1].any()


def test_without_a_cost_mask_nothing_is_done():
    network = Shifts()
    item = {"image": object(), "pred": object()}
    assert RefillIgnoredd(network, RecursiveInferer())(item) == item
    assert not network.shown


@pytest.mark.parametrize("channel", [0, 1])
def test_two_voxels_around_what_does_not_count_are_replaced_too_and_no_more(channel):
    spoiled, _, ignored = filled_wrongly(channel)
    replaced = without_ignored(spoiled, ignored)
    changed = replaced != spoiled
    box = torch.zeros_like(ignored)
    box[channel, 7:17, 8:18, 7:17] = True  # two voxels more on each side
    assert torch.equal(changed.any(0), box[channel])
    assert torch.equal(changed, box)
