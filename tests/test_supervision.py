import numpy as np
import pytest
import torch
from bundle.fields import warp
from bundle.losses import RegistrationLoss, ncc_loss, smoothness_loss
from bundle.supervision import draw_regions, known_field_loss, label_loss, prepare_batch, warp_with_regions
from scipy.ndimage import map_coordinates

SIZE = (12, 17, 9)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def image(seed=0):
    return torch.rand(1, 1, *SIZE, generator=generator(seed))


def labels(seed=0):
    return (
        torch.randint(0, 5, (1, 1, 3, 4, 3), generator=generator(seed))
        .float()
        .repeat_interleave(4, 2)
        .repeat_interleave(5, 3)
        .repeat_interleave(3, 4)[:, :, : SIZE[0], : SIZE[1], : SIZE[2]]
    )


def field(seed=0):
    return torch.randn(1, 3, *SIZE, generator=generator(seed)) * 0.7


def soft_dice_by_numpy(moving, fixed, regions, ddf):
    """One-hot by comparison, warped by scipy, summed in float64."""
    where = np.stack(np.meshgrid(*[np.arange(n) for n in SIZE], indexing="ij")) + ddf[0].double().numpy()
    scores = []
    for region in regions:
        p = map_coordinates((moving[0, 0].numpy() == region).astype(float), where, order=1, mode="grid-constant")
        q = (fixed[0, 0].numpy() == region).astype(float)
        scores.append(2 * (p * q).sum() / (p.sum() + q.sum()))
    return 1 - np.mean(scores)


def test_the_label_term_equals_soft_dice_of_one_hot_maps_warped_by_scipy():
    moving, fixed, ddf = labels(0), labels(1), field()
    regions = torch.tensor([1, 3, 4])
    _, shares = warp_with_regions(image(), moving, regions, ddf)
    found = label_loss(shares, fixed, regions).item()
    assert found == pytest.approx(soft_dice_by_numpy(moving, fixed, regions.tolist(), ddf), abs=1e-5)
    assert 0.3 < found < 1


def test_the_label_term_is_judged_after_the_warp():
    """Labels that the field brings together cost nothing, where unwarped ones would, and the other way round."""
    moving = torch.zeros(1, 1, *SIZE)
    moving[:, :, 4:8, 5:10, 3:6] = 2
    ddf = torch.zeros(1, 3, *SIZE)
    ddf[:, 0], ddf[:, 1] = 1, -2
    fixed = warp(moving, ddf, mode="nearest")
    regions = torch.tensor([2])
    right = label_loss(warp_with_regions(moving, moving, regions, ddf)[1], fixed, regions)
    still = label_loss(warp_with_regions(moving, moving, regions, ddf * 0)[1], fixed, regions)
    assert right.item() == pytest.approx(0, abs=1e-5)
    assert still.item() > 0.4


def test_the_label_term_has_a_gradient_that_lowers_it():
    moving, fixed, regions = labels(0), labels(0).roll(1, 2), torch.tensor([1, 2, 3])
    ddf = torch.zeros(1, 3, *SIZE, requires_grad=True)
    before = label_loss(warp_with_regions(image(), moving, regions, ddf + 0.01)[1], fixed, regions)
    (step,) = torch.autograd.grad(before, ddf)
    assert step.abs().sum() > 0
    moved = (ddf - 0.5 * step / step.abs().max()).detach()
    assert label_loss(warp_with_regions(image(), moving, regions, moved + 0.01)[1], fixed, regions) < before


def test_regions_are_drawn_at_random_among_those_of_both_maps():
    moving, fixed = torch.zeros(1, 1, *SIZE), torch.zeros(1, 1, *SIZE)
    moving.flatten()[:60] = torch.arange(60.0)
    fixed.flatten()[:60] = torch.arange(60.0) + 20  # common: 20 to 59
    torch.manual_seed(0)
    drawn = [draw_regions(moving, fixed, 8).tolist() for _ in range(40)]
    assert all(len(set(one)) == 8 for one in drawn)
    assert {region for one in drawn for region in one} == set(range(20, 60))
    assert draw_regions(moving, fixed * 0, 8).tolist() == []
    atlas = torch.zeros(1, 1, *SIZE, dtype=torch.int64)
    atlas.flatten()[:3] = torch.tensor([614454277, 10**12, 2**60 + 1])
    assert sorted(draw_regions(atlas, atlas.clone(), 8).tolist()) == [614454277, 10**12, 2**60 + 1]


def test_no_region_in_common_costs_nothing():
    regions = torch.zeros(0, dtype=torch.long)
    assert label_loss(warp_with_regions(image(), labels(), regions, field())[1], labels(), regions).item() == 0


def test_the_error_of_a_known_field_is_its_length_in_voxels():
    known = field()
    fixed = torch.ones(1, 1, *SIZE)
    assert known_field_loss(known, known, fixed).item() == pytest.approx(0, abs=1e-6)
    off = known.clone()
    off[:, 2] += 3.0
    assert known_field_loss(off, known, fixed).item() == pytest.approx((3.0**2 + 0.01) ** 0.5 - 0.1, abs=1e-4)


def test_where_nothing_is_shown_the_known_field_counts_less():
    fixed, off = torch.zeros(1, 1, *SIZE), torch.zeros(1, 3, *SIZE)
    fixed[:, :, :6] = 0.5
    off[:, 0, :6] = 1.0
    seen = known_field_loss(off, off * 0, fixed)
    unseen = known_field_loss(off.flip(2), off * 0, fixed)
    assert (seen / unseen).item() == pytest.approx(10, rel=1e-3)


def test_a_voxel_that_moves_counts_more():
    known, fixed = torch.zeros(1, 3, *SIZE), torch.ones(1, 1, *SIZE)
    known[:, 1, :6] = 2.0  # half of the voxels, off by 2 where nothing is found
    still, moving = known * 0, known
    off = known + torch.where(known[:, 1:2] > 0, 0.0, 1.0)  # right where it moves
    for weight in (0.0, 3.0):
        share = (1 + 2 * weight) / (2 + 2 * weight)  # of the weights, where it moves
        missed, elsewhere = (known_field_loss(ddf, moving, fixed, moved=weight).item() for ddf in (still, off))
        assert missed == pytest.approx(share * ((4 + 0.01) ** 0.5 - 0.1), rel=1e-4)
        assert elsewhere == pytest.approx((1 - share) * ((3 + 0.01) ** 0.5 - 0.1), rel=1e-4)


def batch(**extras):
    return {"image": torch.cat([image(), image(1)], 1), "label": image(1), **extras}


def test_a_plain_batch_is_split_as_monai_would():
    seen, fixed = prepare_batch(batch())
    assert seen.shape[1] == 2
    assert torch.equal(fixed, image(1))


def prediction():
    return torch.cat([image(2), field(3)], 1)


def test_a_plain_image_and_a_batch_with_unused_labels_have_the_papers_loss():
    pred = prediction()
    expected = ncc_loss(pred[:, :1], image(1)) + smoothness_loss(pred[:, 1:])
    assert torch.equal(RegistrationLoss()(pred, image(1)), expected)
    _, extras = prepare_batch(batch(moving_label=labels(0), fixed_label=labels(1)))
    assert torch.equal(RegistrationLoss()(pred, extras), expected)


@pytest.mark.parametrize("key", ["moving_label", "fixed_label"])
def test_one_label_map_alone_adds_no_overlap(key):
    _, extras = prepare_batch(batch(**{key: labels(0)}))
    assert torch.equal(
        RegistrationLoss(label_weight=1.0)(prediction(), extras), RegistrationLoss()(prediction(), extras)
    )


def test_the_loss_compares_clean_images_and_adds_weighted_labels():
    pred, clean = prediction(), image(5)
    _, extras = prepare_batch(
        batch(
            clean_moving=clean,
            moving_label=labels(0),
            fixed_label=labels(1),
            synthetic=torch.tensor([True]),
            known=torch.tensor([False]),
            known_ddf=field(9),
        )
    )
    found = RegistrationLoss(alpha=1.0, label_weight=0.25, regions=99, synthetic_alpha=0.5)(pred, extras)
    dice = soft_dice_by_numpy(labels(0), labels(1), [1, 2, 3, 4], pred[:, 1:])
    expected = ncc_loss(warp(clean, pred[:, 1:]), image(1)) + 0.5 * smoothness_loss(pred[:, 1:]) + 0.25 * dice
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_known_field_takes_the_place_of_the_images_and_pairs_of_a_batch_are_judged_apart():
    pred = torch.cat([prediction(), prediction()])
    double = {key: torch.cat([value, value]) for key, value in batch(clean_moving=image(5)).items()}
    double |= {"known": torch.tensor([True, False]), "known_ddf": torch.cat([field(9), field(8)])}
    _, extras = prepare_batch(double)
    found = RegistrationLoss(known_weight=2.0)(pred, extras)
    one = 2.0 * known_field_loss(pred[:1, 1:], field(9), image(1))
    other = ncc_loss(warp(image(5), pred[1:, 1:]), image(1)) + smoothness_loss(pred[1:, 1:])
    torch.testing.assert_close(found, (one + other) / 2)
