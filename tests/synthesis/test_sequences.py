import math

import numpy as np
import pytest
import torch
from bundle.synthesis.sequences import (
    FLUID,
    GREY,
    LESION,
    WHITE,
    ScannerSequence,
    Tissue,
    anchors,
    draw_sequence,
    signal,
)

SIZE = 30, 34, 28


@pytest.fixture
def head():
    """A T1-weighted head, from inside out fluid, white and grey matter, bone and fat: image, labels."""
    axes = [torch.linspace(-1, 1, n).square() for n in SIZE]
    radius = sum(axis.view([-1 if i == j else 1 for j in range(3)]) for i, axis in enumerate(axes)).sqrt()[None]
    image = torch.zeros_like(radius)
    for outer, value in ((1.2, 0.8), (0.98, 0.03), (0.75, 0.5), (0.6, 0.9), (0.3, 0.2)):
        image[radius < outer] = value
    labels = torch.zeros_like(radius)
    for outer, label in ((0.75, 7), (0.6, 3), (0.3, 1)):
        labels[radius < outer] = label
    return image, labels


def test_the_signal_equals_closed_forms():
    tissue = Tissue(1000.0, 100.0, 0.8)
    assert signal(tissue, 1e9, 0) == pytest.approx(0.8)
    assert signal(tissue, 1e9, 100) == pytest.approx(0.8 / math.e)
    assert signal(tissue, 1000, 0) == pytest.approx(0.8 * (1 - 1 / math.e))
    assert signal(tissue, 1e9, 0, inversion=1000 * math.log(2)) == pytest.approx(0, abs=1e-12)
    assert signal(tissue, 1e9, 0, inversion=0) == pytest.approx(0.8)  # all of it inverted: the magnitude


@pytest.mark.parametrize(
    ("timing", "rising"),
    [
        ({"repetition": 500, "echo": 10}, [FLUID, GREY, WHITE]),  # T1
        ({"repetition": 5000, "echo": 100}, [WHITE, GREY, LESION, FLUID]),  # T2
        ({"repetition": 9000, "echo": 120, "inversion": 2500}, [FLUID, WHITE, GREY, LESION]),  # FLAIR
    ],
)
def test_tissues_compare_as_radiologists_know_them(timing, rising):
    signals = [signal(tissue, **timing) for tissue in rising]
    assert signals == sorted(signals)
    assert signals[-1] > 1.2 * signals[0]


def test_anchors_are_the_intensities_of_fluid_grey_and_white_matter(head):
    fluid, grey, white = anchors(*head)
    assert fluid == pytest.approx(0.2, abs=0.02)
    assert 0.3 < grey < 0.6
    assert white == pytest.approx(0.9, abs=0.1)


def test_a_mixture_has_the_mixture_of_the_signals(head):
    image, labels = head
    sequence = draw_sequence(np.random.RandomState(0), image, labels)
    _, grey, white = anchors(image, labels)
    brain = torch.ones(1, 4, 4, 4)
    seen = [
        float(sequence(torch.full((1, 4, 4, 4), value), brain, torch.zeros(1, 4, 4, 4)).mean())
        for value in (grey, 0.7 * grey + 0.3 * white, white)
    ]
    assert seen[1] == pytest.approx(0.7 * seen[0] + 0.3 * seen[2], abs=2e-3)


def test_the_brighter_of_grey_and_white_matter_is_1_however_bright_fluid_and_fat_are(head):
    fluid, *matter = (round(value * 1023) for value in anchors(*head))
    drawn = [draw_sequence(np.random.RandomState(seed), *head) for seed in range(20)]
    for sequence in drawn:
        assert sequence.brain[matter].max() == pytest.approx(1, abs=5e-3)
    assert max(sequence.brain[fluid] for sequence in drawn) > 1.5


def test_a_lesion_looks_like_one_as_far_as_it_is_one():
    sequence = ScannerSequence(torch.full((1024,), 0.5), torch.full((1024,), 0.5), lesion=2.0)
    lesions = torch.zeros(1, 4, 4, 4)
    lesions[0, 0], lesions[0, 1] = 1.0, 0.5
    seen = sequence(torch.full((1, 4, 4, 4), 0.7), torch.ones(1, 4, 4, 4), lesions)
    torch.testing.assert_close(seen[0, :3, 0, 0], torch.tensor([2.0, 1.25, 0.5]))


def test_a_seed_fixes_the_sequence_and_another_gives_another(head):
    image, labels = head
    none = torch.zeros_like(image)
    first, again, other = (draw_sequence(np.random.RandomState(n), *head)(image, labels, none) for n in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.05)


def test_what_is_blank_stays_blank_and_air_dark(head):
    image, labels = head
    for seed in range(10):
        seen = draw_sequence(np.random.RandomState(seed), image, labels)(image, labels, torch.zeros_like(image))
        assert (seen[image == 0] == 0).all()
        assert (seen[image > 0] > 0).all()
        bone = (image == 0.03) & (seen < 0.05)
        assert bone.sum() > 0.5 * (image == 0.03).sum()  # what lies next to the brain may be fluid


def test_most_contrasts_are_not_that_of_the_image(head):
    image, labels = head
    inside, none = labels > 0, torch.zeros_like(image)
    found = [draw_sequence(np.random.RandomState(n), image, labels)(image, labels, none)[inside] for n in range(40)]
    likeness = [float(np.corrcoef(seen.numpy(), image[inside].numpy())[0, 1]) for seen in found]
    assert 5 <= sum(value < 0 for value in likeness) <= 25  # T2: fluid is the brightest
    assert sum(value > 0.9 for value in likeness) <= 15


def test_an_image_without_regions_gets_a_contrast_too(head):
    image = head[0]
    none = torch.zeros_like(image)
    seen = draw_sequence(np.random.RandomState(0), image, none)(image, none, none)
    assert torch.isfinite(seen).all()
    assert len(seen.unique()) > 3
