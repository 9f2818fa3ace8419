"""MIND-SSC against a slow, literal reading of the paper, and what it is for: contrast does not matter."""

import numpy as np
import pytest
import torch
from bundle.mind import CHANNELS, mind_ssc

NEIGHBOURS = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]


def anatomy(size=(9, 11, 8)):
    x, y, z = torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")
    return (0.5 + 0.2 * (x / 1.3).sin() + 0.15 * (y / 1.7).cos() + 0.1 * (z / 1.1).sin())[None, None]


def literal(image):
    """The descriptor of every voxel, pair by pair of neighbours and voxel by voxel of their patches."""
    padded = np.pad(image[0, 0].numpy().astype(np.float64), 1, mode="edge")
    size, found = image.shape[2:], []
    for i, a in enumerate(NEIGHBOURS):
        for b in NEIGHBOURS[i + 1 :]:
            if np.abs(np.add(a, b)).sum() == 0:  # opposite ones are two voxels apart
                continue
            square = np.zeros(size)
            for at in np.ndindex(*size):
                here = np.array(at) + 1
                square[at] = (padded[tuple(here + a)] - padded[tuple(here + b)]) ** 2
            square = np.pad(square, 1, mode="edge")
            mean = np.zeros(size)
            for at in np.ndindex(*size):
                mean[at] = square[tuple(slice(n, n + 3) for n in at)].mean()
            found.append(mean)
    distance = np.array(found)
    distance -= distance.min(0)
    spread = distance.mean(0)
    return np.exp(-distance / np.clip(spread, 1e-3 * spread.mean(), 1e3 * spread.mean()))


def test_the_descriptor_is_that_of_a_literal_reading():
    image = anatomy()
    found = mind_ssc(image)
    assert found.shape == (1, CHANNELS, 9, 11, 8)
    expected = literal(image)
    # the order of the pairs says nothing
    np.testing.assert_allclose(np.sort(found[0].numpy(), 0), np.sort(expected, 0), atol=2e-3)
    np.testing.assert_allclose(found[0].mean((1, 2, 3)).sort()[0], np.sort(expected.mean((1, 2, 3))), atol=1e-3)


def test_inverted_and_rescaled_images_have_the_same_descriptors_and_other_anatomies_do_not():
    image = anatomy()
    assert torch.allclose(mind_ssc(image), mind_ssc(1 - image), atol=1e-4)
    assert torch.allclose(mind_ssc(image), mind_ssc(0.3 + 0.2 * image), atol=1e-3)
    other = image.roll(2, 2)
    assert float((mind_ssc(image) - mind_ssc(other)).abs().mean()) > 0.05


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_flat_image_has_finite_descriptors_that_tell_nothing(value):
    found = mind_ssc(torch.full((2, 1, 5, 6, 7), value))
    assert torch.equal(found, torch.ones(2, CHANNELS, 5, 6, 7))


def likeness_scale(image):
    """What the mean of the twelve distances is in parts of V: the mean of −log of the descriptor."""
    return -mind_ssc(image).log().mean(1)


def test_noise_where_nothing_is_shown_tells_nothing():
    image = torch.zeros(1, 1, 30, 11, 8)
    image[..., :12, :, :] = anatomy((12, 11, 8))
    image += 1e-5 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    assert likeness_scale(image)[:, 16:].max() < 0.01
    assert torch.allclose(likeness_scale(image)[:, 3:9], torch.tensor(1.0), atol=1e-4)


def test_what_differs_a_thousand_times_as_much_as_usual_is_told_by_that():
    image = torch.zeros(1, 1, 64, 60, 56)
    image[..., 30, 30, 30] = 1
    assert likeness_scale(image).max() > 1.2


def test_each_image_of_a_batch_is_described_for_itself():
    first, second = anatomy(), 100 * anatomy().flip(2)
    both = mind_ssc(torch.cat([first, second]))
    assert torch.allclose(both[:1], mind_ssc(first))
    assert torch.allclose(both[1:], mind_ssc(second))
