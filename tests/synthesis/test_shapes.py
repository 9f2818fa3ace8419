import numpy as np
import pytest
import torch
from bundle.synthesis import RandShapesd, shapes
from bundle.synthesis.shapes import draw_shapes
from monai.data import MetaTensor, list_data_collate

SIZE = (26, 36, 20)


def replaced(seed, prob=1.0):
    transform = RandShapesd(["moving", "fixed"], ["moving_label", "fixed_label"], prob)
    transform.set_random_state(seed)
    image = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    return image, transform({"moving": image, "fixed": image.clone()})


def test_shapes_correspond_and_are_moved():
    _, item = replaced(1)
    moving, fixed = item["moving_label"], item["fixed_label"]
    common = set(moving.unique().tolist()) & set(fixed.unique().tolist())
    assert len(common) >= 4
    assert 0.01 < float((moving != fixed).float().mean()) < 0.6
    for role in ("moving", "fixed"):  # one intensity a shape, the same in both images
        for shape in common:
            values = item[role][item[f"{role}_label"] == shape].unique()
            assert len(values) == 1
            assert values == item["moving"][moving == shape][0]


def test_a_larger_peak_moves_more():
    share = [
        float((m != f).float().mean()) for m, f in (draw_shapes(np.random.RandomState(0), SIZE, p) for p in (1, 5))
    ]
    assert share[0] < share[1]


def test_the_peak_is_drawn_up_to_the_largest(monkeypatch):
    peaks = []
    monkeypatch.setattr(shapes, "draw_shapes", lambda *drawn: peaks.append(drawn[2]) or draw_shapes(*drawn))
    for seed in range(20):
        replaced(seed)
    assert 1 <= min(peaks) < 2.5
    assert 4.5 < max(peaks) <= 6


def test_shapes_are_blobs_not_dust():
    labels = draw_shapes(np.random.RandomState(0), SIZE, 2.0)[0]
    assert float((labels[:, 1:] != labels[:, :-1]).float().mean()) < 0.3


def test_pairs_that_stay_have_the_keys_of_those_that_are_replaced():
    bare = {"moving": torch.rand(1, 20, 24, 16), "fixed": torch.rand(1, 20, 24, 16)}
    labels = ["moving_label", "fixed_label"]
    items = [RandShapesd(["moving", "fixed"], labels, 0.5).set_random_state(seed)(bare) for seed in range(8)]
    assert {frozenset(item) for item in items} == {frozenset([*bare, *labels, "synthetic_anatomy"])}
    for item in items:
        assert bool(item["moving_label"].any()) == bool(item["synthetic_anatomy"])
    assert set(RandShapesd(["moving", "fixed"], labels, 0.0)(bare)) == {*bare, "synthetic_anatomy"}
    assert set(RandShapesd(["moving", "fixed"], [], 1.0)(bare)) == {*bare, "synthetic_anatomy"}


@pytest.mark.parametrize("labelled", [True, False])
def test_pairs_that_are_replaced_are_of_the_kind_of_those_that_stay(labelled):
    affine = torch.diag(torch.tensor([-2.0, 1.5, 3.0, 1.0], dtype=torch.float64))
    images, labels = ["moving", "fixed"], ["moving_label", "fixed_label"]
    pair = {key: MetaTensor(torch.rand(1, 20, 24, 16).half(), affine=affine) for key in images}
    if labelled:
        pair |= {key: MetaTensor(torch.ones(1, 20, 24, 16, dtype=torch.int32), affine=affine) for key in labels}
    stays = {key: (MetaTensor, torch.int32 if labelled and key in labels else torch.float16) for key in images + labels}
    items = [RandShapesd(images, labels, 0.5).set_random_state(seed)(pair) for seed in range(8)]
    assert {bool(item["synthetic_anatomy"]) for item in items} == {True, False}
    for item in items:
        assert {key: (type(item[key]), item[key].dtype) for key in stays} == stays
        assert all(torch.equal(item[key].affine, affine) for key in stays)
    assert list_data_collate(items)["moving_label"].shape == (8, 1, 20, 24, 16)


def test_a_seed_fixes_the_shapes_and_beyond_the_share_pairs_stay():
    assert torch.equal(replaced(3)[1]["moving"], replaced(3)[1]["moving"])
    assert not torch.equal(replaced(3)[1]["moving"], replaced(4)[1]["moving"])
    image, item = replaced(3, prob=0.0)
    assert torch.equal(item["moving"], image)
    assert not item["synthetic_anatomy"]
    assert replaced(3)[1]["synthetic_anatomy"]
