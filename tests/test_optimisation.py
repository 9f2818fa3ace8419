"""Pairwise optimisation: better by the loss, without folds, on fields and images of unequal sides."""

import pytest
import torch
import torch.nn.functional as F
from bundle.fields import compose, jacobian_determinant, warp
from bundle.losses import RegistrationLoss
from bundle.metrics import folding_percent
from bundle.mind import CHANNELS, mind_ssc
from bundle.optimisation import SIMILARITIES, PairwiseOptimiser, _Descriptors, _Equation1, remove_folds
from bundle.smoothing import smooth

SHAPE = (24, 28, 20)


def smooth_noise(channels, coarse, seed):
    noise = torch.rand(1, channels, *coarse, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, SHAPE, mode="trilinear", align_corners=True)


@pytest.fixture(scope="module")
def pair():
    """Moving and fixed image, and the field of up to 2 voxels that makes one of the other."""
    moving = smooth_noise(1, (9, 10, 8), 0)
    truth = 4 * (smooth_noise(3, (4, 4, 4), 1) - 0.5)
    return torch.cat([moving, warp(moving, truth, padding="border")], 1), truth


def warped_by(image, ddf):
    return torch.cat([warp(image[:, :1], ddf), ddf], 1)


def loss_of(image, ddf):
    return float(RegistrationLoss()(warped_by(image, ddf), image[:, 1:]))


def test_the_true_field_is_approached_without_a_fold(pair):
    image, truth = pair
    found = PairwiseOptimiser(30, alpha=0.1)(image, torch.zeros_like(truth))
    inner = (..., *[slice(4, -4)] * 3)
    assert (found - truth)[inner].norm(dim=1).mean() < 0.5 * truth[inner].norm(dim=1).mean()
    assert folding_percent(found) == 0


def test_the_gradient_is_that_of_equation_1_for_a_composed_step(pair):
    start = 0.5 * pair[1]
    moving = smooth_noise(1, (5, 6, 4), 4)
    image = torch.cat([moving, warp(moving, pair[1], padding="border")], 1)
    step = (smooth_noise(3, (4, 4, 4), 2) - 0.5) * F.pad(torch.ones(1, 1, 12, 16, 8), [6] * 6)  # away from the border
    _, gradient = _Equation1(image[:, :1], image[:, 1:], alpha=0.0)(start)
    ends = [
        RegistrationLoss(alpha=0.0)(warped_by(image, compose(start, e * step)), image[:, 1:]) for e in (0.05, -0.05)
    ]
    assert float((gradient * step).sum()) == pytest.approx(float(ends[0] - ends[1]) / 0.1, rel=0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_result_is_never_worse_than_the_start(pair, seed):
    image, truth = pair
    start = truth + 3 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    found = PairwiseOptimiser(5)(image, start)
    assert loss_of(image, found) < loss_of(image, start)
    assert folding_percent(found) < folding_percent(start)


def test_identical_images_stay_where_they_are(pair):
    image = pair[0][:, :1].expand(-1, 2, -1, -1, -1)
    found = PairwiseOptimiser(5)(image, torch.zeros(1, 3, *SHAPE))
    assert found.abs().max() < 0.05


def test_each_pair_of_a_batch_is_optimised_for_itself(pair):
    image, truth = pair
    images, starts = torch.cat([image, image.flip(1)]), torch.cat([torch.zeros_like(truth), 0.5 * truth])
    both = PairwiseOptimiser(3)(images, starts)
    for k in range(2):
        torch.testing.assert_close(both[k : k + 1], PairwiseOptimiser(3)(images[k : k + 1], starts[k : k + 1]))


def test_without_steps_the_field_is_returned_as_it_is(pair):
    image, truth = pair
    assert PairwiseOptimiser(0)(image, truth) is truth


def test_no_gradient_is_left_behind(pair):
    image, start = pair[0].clone().requires_grad_(), torch.zeros_like(pair[1]).requires_grad_()
    for similarity in SIMILARITIES:
        found = PairwiseOptimiser(2, similarity=similarity)(image, start)
        assert not torch.equal(found, start)
        assert not found.requires_grad
    assert image.grad is None
    assert start.grad is None


@pytest.mark.parametrize("iterations", [-1, 2.5, "many"])
def test_a_broken_number_of_steps_is_refused(iterations):
    with pytest.raises(ValueError, match="whole number from 0 up"):
        PairwiseOptimiser(iterations)


def test_removing_folds_changes_a_field_only_where_it_folds():
    ddf = 0.3 * (smooth_noise(3, (4, 4, 4), 3) - 0.5)
    ddf[:, 0, 10:12, 12:15, 9:12] += 3.0
    assert (jacobian_determinant(ddf) <= 0).any()
    found = remove_folds(ddf)
    assert not (jacobian_determinant(found) <= 0).any()
    far = (slice(None), slice(None), slice(0, 2))
    assert torch.equal(found[far], ddf[far])
    assert remove_folds(found) is found


# --- across contrasts ---


def other_contrast(image):
    """The pair with its moving image painted anew: dark for bright, and one curve bent."""
    moving = 0.1 + 0.9 * (1 - image[:, :1]) ** 1.5
    return torch.cat([moving, image[:, 1:]], 1)


def descriptor_distance(image, ddf):
    halved = F.avg_pool3d(image, 2)
    field = F.avg_pool3d(ddf, 2) / 2
    difference = warp(mind_ssc(halved[:, :1]), field) - mind_ssc(halved[:, 1:])
    return float(difference.square().mean(1)[..., 3:-3, 3:-3, 3:-3].mean())


def test_the_true_field_is_approached_across_contrasts_by_mind(pair):
    image, truth = pair
    image, start = other_contrast(image), torch.zeros_like(truth)
    inner = (..., *[slice(5, -5)] * 3)
    found = PairwiseOptimiser(40, alpha=0.02, sigma=1.0, similarity="mind")(image, start)
    assert (found - truth)[inner].norm(dim=1).mean() < 0.6 * truth[inner].norm(dim=1).mean()
    assert descriptor_distance(image, found) < descriptor_distance(image, start)
    assert folding_percent(found) == 0


def test_the_gradient_of_the_descriptors_is_that_of_their_distance_for_a_composed_step(pair):
    start = 0.5 * pair[1]
    step = pair[1] * F.pad(torch.ones(1, 1, 12, 16, 8), [6] * 6)
    cost = _Descriptors(torch.rand(1, 1, *SHAPE), torch.rand(1, 1, *SHAPE), alpha=0.0)
    # real descriptors change from voxel to voxel, where a difference of neighbours is no derivative
    cost.moving = smooth_noise(CHANNELS, (4, 5, 4), 5)
    cost.fixed = warp(cost.moving, pair[1], padding="border")
    _, gradient = cost(start)
    ends = [cost(compose(start, e * step))[0] for e in (0.05, -0.05)]
    assert float((gradient * step).sum()) == pytest.approx((ends[0] - ends[1]) / 0.1, rel=0.15)


def test_what_the_steps_change_is_brought_back_from_half_the_resolution_in_place(monkeypatch):
    """A change that rises evenly along each axis is the same ramp afterwards, not one half a voxel aside."""
    size = (12, 16, 10)
    axes = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij"))[None]
    ramp = 0.02 * axes + 0.03 * axes.roll(1, 1)
    halved = F.avg_pool3d(ramp, 2) / 2  # voxels are twice as long there

    def descend(_, cost, ddf):
        return ddf + halved, 0.0

    monkeypatch.setattr(PairwiseOptimiser, "_descend", descend)
    start = torch.full((1, 3, *size), 0.25)
    found = PairwiseOptimiser(5, similarity="mind")(torch.rand(1, 2, *size), start)
    inner = (..., *[slice(2, -2)] * 3)
    torch.testing.assert_close((found - start)[inner], ramp[inner], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(13, 16, 9), (2, 20, 17)])
def test_odd_and_thin_images_are_refined_across_contrasts(size):
    image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    found = PairwiseOptimiser(2, similarity="mind")(image, torch.zeros(1, 3, *size))
    assert found.shape == (1, 3, *size)
    assert torch.isfinite(found).all()


def test_another_similarity_is_refused():
    with pytest.raises(ValueError, match="one of ncc, mind, not 'mi'"):
        PairwiseOptimiser(1, similarity="mi")


@pytest.mark.parametrize("places", [[(0, 0, 0)], [(20, 17, 15)], [(38, 30, 3)], [(1, 2, 3), (37, 30, 27)]])
def test_folds_are_smoothed_away_around_them_alone_as_in_the_whole_field(places, monkeypatch):
    ddf = smooth(torch.randn(1, 3, 40, 34, 30, generator=torch.Generator().manual_seed(3)), 2.0)
    for i, j, k in places:
        ddf[:, :, i : i + 2, j : j + 2, k : k + 2] += torch.tensor([2.5, -3.0, 2.0]).view(1, 3, 1, 1, 1)
    assert (jacobian_determinant(ddf) <= 0).any()
    found = remove_folds(ddf)
    monkeypatch.setattr("bundle.optimisation.TILE", 16)
    assert torch.equal(found, remove_folds(ddf))
    assert not torch.equal(found, ddf)


def test_the_determinant_by_slabs_is_that_of_the_whole_field_to_the_bit():
    ddf = torch.randn(2, 3, 41, 67, 59, generator=torch.Generator().manual_seed(3), requires_grad=True)
    expected = jacobian_determinant(ddf)
    with torch.no_grad():
        assert torch.equal(jacobian_determinant(ddf), expected)
