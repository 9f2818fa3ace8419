"""What does not count is filled from the other image through the field found so far."""

import numpy as np
import pytest
import torch
from bundle.fields import identity_grid, warp
from bundle.inferers import RecursiveInferer
from bundle.lesions import REFILLS, RefillIgnoredd, ignored_in_fixed
from bundle.transforms import without_ignored
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

SHAPE = (24, 28, 26)
SHIFT = (3.0, -2.0, 0.0)  # voxels: moving(x + shift) is fixed(x)
BOX = (..., slice(9, 15), slice(10, 16), slice(9, 15))


def scene(width=1.5):
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), width)
    return torch.from_numpy(noise * 4 * (width / 1.5) ** 1.5 + 0.5).float().clamp(0.05, 0.95)


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


def refilled(image, ignored, ddf, network=None):
    """What is filled of a pair, (2, H, W, L), for which a field, (1, 3, H, W, L), has been found."""
    pred = torch.cat([image[None, :1], ddf], 1)[0]
    item = {"image": MetaTensor(image, affine=torch.eye(4)), "pred": pred, "ignored": ignored}
    return RefillIgnoredd(network or Keeps(ddf), RecursiveInferer())(item)["image"].as_tensor()


class Keeps(torch.nn.Module):
    """A network that finds one field whatever it is shown."""

    def __init__(self, ddf):
        super().__init__()
        self.ddf = ddf

    def forward(self, pair):
        return torch.cat([pair[:, :1], self.ddf], 1)


def test_a_voxel_of_which_the_mask_touches_a_part_does_not_count():
    _, _, ignored = filled_wrongly(0)
    there = ignored_in_fixed(ignored[None], torch.tensor([0.3, 0.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE))
    assert torch.equal(there[0, 0], ignored[0] | ignored[0].roll(-1, 0))


def test_the_moving_image_is_filled_by_the_inverse_of_a_field_that_stretches():
    ddf, moving = 0.3 * identity_grid(torch.zeros(1, 3, *SHAPE)), scene(3.0)
    fixed = warp(moving[None, None], ddf, padding="border")[0, 0]
    image, ignored = torch.stack([moving, fixed]), torch.zeros(2, *SHAPE, dtype=torch.bool)
    ignored[0][BOX] = True
    apart = (refilled(torch.where(ignored, 0.0, image), ignored, ddf) - image)[0][BOX].abs()
    assert float(apart.mean()) < 0.02


@pytest.mark.parametrize("channel", [0, 1])
def test_what_was_found_where_nothing_counts_does_not_say_what_is_filled_in(channel):
    spoiled, image, ignored = filled_wrongly(channel)
    ddf = torch.tensor(SHIFT).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE).clone()
    there = ignored_in_fixed(ignored[None], ddf).any(1)[0]
    ddf[:, :, there] += 1
    assert float((refilled(spoiled, ignored, ddf) - image)[ignored].abs().mean()) < 0.05


def test_the_second_filling_goes_through_what_was_found_after_the_first():
    spoiled, image, ignored = filled_wrongly(1)
    filled = refilled(spoiled, ignored, torch.zeros(1, 3, *SHAPE), Shifts())
    assert float((filled - image)[ignored].abs().mean()) < 0.05


def test_what_counts_in_neither_image_is_continued_from_around_wherever_the_field_carries_it():
    _, image, ignored = filled_wrongly(1)
    ignored[0] = ignored[1].roll((3, -2, 0), (0, 1, 2))  # the same anatomy
    ddf = torch.tensor(SHIFT).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    networks = Shifts(), Shifts()
    for value, network in zip((0.0, 1.0), networks):
        refilled(torch.where(ignored, value, image), ignored, ddf, network)
    for dark, bright in zip(*(network.shown for network in networks)):
        torch.testing.assert_close(dark, bright)


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("opposite", [False, True])
def test_a_filling_has_the_contrast_around_and_nothing_of_what_it_replaces(channel, opposite):
    image, ignored = torch.stack([scene(), scene()]), torch.zeros(2, *SHAPE, dtype=torch.bool)
    image[1] = 0.2 + 0.5 * (1 - image[1] if opposite else image[1])
    ignored[channel][BOX] = True
    filled = without_ignored(torch.where(ignored, 1.0, image), ignored)
    torch.testing.assert_close(filled, image, atol=1e-3, rtol=0)


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
