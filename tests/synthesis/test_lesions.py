import numpy as np
import pytest
import torch
from bundle.synthesis import RandContrastd
from bundle.synthesis.lesions import darken_lesions, draw_lesions
from bundle.synthesis.sequences import anchors

SIZE = 40, 44, 36


@pytest.fixture
def head():
    """A T1-weighted head with a ventricle, white and grey matter, and air around: image, labels."""
    axes = [torch.linspace(-1, 1, n).square() for n in SIZE]
    radius = sum(axis.view([-1 if i == j else 1 for j in range(3)]) for i, axis in enumerate(axes)).sqrt()[None]
    image, labels = torch.full_like(radius, 0.02), torch.zeros_like(radius)
    for outer, value, label in ((0.9, 0.5, 7), (0.75, 0.9, 3), (0.25, 0.2, 1)):
        image[radius < outer], labels[radius < outer] = value, label
    part = torch.arange(SIZE[0]).view(1, -1, 1, 1) // 5  # more regions of grey matter than of white
    labels = torch.where(labels == 7, labels + part, labels)
    return image, labels


def drawn(head, seed):
    return draw_lesions(np.random.RandomState(seed), *head, torch.Generator().manual_seed(seed))


def test_lesions_lie_in_white_matter_and_most_beside_the_ventricles(head):
    labels = head[1]
    found = torch.stack([drawn(head, seed) for seed in range(12)])
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert (found[:, labels != 3] == 0).all()
    mean = found.mean(0)
    distance = torch.nn.functional.max_pool3d((labels == 1).float()[None], 9, 1, 4)[0] > 0
    near, far = mean[distance & (labels == 3)].mean(), mean[~distance & (labels == 3)].mean()
    assert near > 2 * far
    assert near > 0.05


def test_a_seed_fixes_the_lesions(head):
    assert torch.equal(drawn(head, 1), drawn(head, 1))
    assert not torch.equal(drawn(head, 1), drawn(head, 2))


@pytest.mark.parametrize(("depth", "bright"), [(0.0, 1), (1.0, 0)])
def test_a_lesion_is_as_dark_as_grey_matter_or_fluid(head, depth, bright):
    image, labels = head
    lesions = (labels == 3).float()
    seen = darken_lesions(image, labels, lesions, depth)
    expected = anchors(image, labels)[bright]
    assert seen[labels == 3].unique().tolist() == pytest.approx([expected])
    assert torch.equal(seen[labels != 3], image[labels != 3])


def contrasted(pair, seed, **shares):
    transform = RandContrastd(["moving", "fixed"], ["moving_label", "fixed_label"], **shares)
    transform.set_random_state(seed)
    return transform(pair)


def test_a_pair_shows_lesions_of_its_own_and_keeps_its_clean_images(head):
    image, labels = head
    pair = {"moving": image, "fixed": image.clone(), "moving_label": labels, "fixed_label": labels.clone()}
    shares = {"real_share": 0.0, "alike_share": 0.0, "one_real_share": 1.0, "lesion_share": 1.0}
    for seed in range(4):
        item = contrasted(pair, seed, sequence_share=1.0, **shares)
        changed = [(item[role] - image).abs() > 1e-6 for role in ("moving", "fixed")]
        real = min(changed, key=lambda mask: int(mask.sum()))  # the other one is of another contrast
        assert real.any()
        assert (labels[real] == 3).all()
        for role in ("moving", "fixed"):
            assert torch.equal(item[f"clean_{role}"], image)
            assert torch.equal(item[f"{role}_label"], labels)
        assert item["synthetic"]


def test_a_real_pair_gets_no_lesions(head):
    image, labels = head
    pair = {"moving": image, "fixed": image.clone(), "moving_label": labels, "fixed_label": labels.clone()}
    item = contrasted(pair, 0, real_share=1.0, alike_share=0.0, lesion_share=1.0)
    assert torch.equal(item["moving"], image)
    assert torch.equal(item["fixed"], image)


def test_every_contrast_may_be_a_scanner_s(head):
    image, labels = head
    pair = {"moving": image, "fixed": image.clone(), "moving_label": labels, "fixed_label": labels.clone()}
    shares = {"real_share": 0.0, "alike_share": 0.0, "one_real_share": 0.0, "curve_share": 0.0, "sequence_share": 1.0}
    for seed in range(4):
        item = contrasted(pair, seed, **shares)
        for role in ("moving", "fixed"):
            assert item[role].min() >= 0
            assert item[role].max() <= 1
            assert torch.isfinite(item[role]).all()
            assert not torch.equal(item[role], image)


@pytest.mark.parametrize("share", ["sequence_share", "lesion_share"])
def test_a_share_beyond_one_is_refused(share):
    with pytest.raises(ValueError, match="0 to 1"):
        RandContrastd(["moving"], ["moving_label"], **{share: 1.5})


def test_a_slab_thinner_than_the_windows_gets_lesions_too(head):
    image, labels = (volume[..., volume.shape[-1] // 2 :][..., :10] for volume in head[:2])
    lesions = drawn((image, labels), 0)
    assert lesions.shape == image.shape
    assert lesions.max() > 0
