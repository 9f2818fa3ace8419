import math

import pytest
import torch
from bundle import elastic
from bundle.elastic import ElasticRefiner, _equally_sharp, _variance
from bundle.fields import warp
from bundle.gain import GainWeighting
from bundle.metrics import folding_percent
from bundle.smoothing import smooth

SHAPE = (40, 48, 44)


def structure(seed=0, width=2.0, shape=SHAPE):
    """Blobs of several brightnesses, (1, 1, H, W, L), from 0.2 to 0.8."""
    noise = smooth(torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed)), width)
    return 0.2 + 0.6 * torch.sigmoid(2 * noise / noise.std())


def noisy(image, seed, level=0.02):
    return (image + level * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def growth(size=2.5, shape=SHAPE):
    """What a ball displaces around it that grows: along the gradient of a potential, ``size`` voxels at most."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij"))
    offset = grid - torch.tensor([18.0, 24.0, 22.0]).view(3, 1, 1, 1)
    field = offset * torch.exp(-offset.square().sum(0) / 60)
    return (size * field / field.norm(dim=0).max())[None]


def ramp(axis, strength):
    """Shading along an axis, from 1 − strength to 1."""
    sides = [1] * 5
    sides[axis] = SHAPE[axis - 2]
    return 1 - strength * torch.linspace(1, 0, SHAPE[axis - 2]).view(sides)


def mean_error(found, wanted):
    return (found - wanted).norm(dim=1)[wanted.norm(dim=1) > 0.5].mean()


def test_of_a_growth_found_in_part_the_rest_is_found():
    anatomy, change = structure(), growth()
    image = torch.cat([noisy(anatomy, 2), noisy(warp(anatomy, change), 3)], 1)
    found = ElasticRefiner()(image, 0.4 * change)
    assert mean_error(torch.zeros_like(change), change) == pytest.approx(1.35, abs=0.05)
    assert mean_error(found, change) < 0.15
    assert folding_percent(found) == 0


def test_shading_makes_no_displacement():
    anatomy = structure()
    image = torch.cat([noisy(anatomy * ramp(3, 0.7), 2, 0.01), noisy(anatomy * ramp(4, 0.6), 3, 0.01)], 1)
    found = ElasticRefiner()(image, torch.zeros(1, 3, *SHAPE))
    assert found.norm(dim=1).mean() < 0.15  # 3.2 where the images are compared as they are


@pytest.mark.parametrize("dims", [[2, 3, 4], [4]])
@pytest.mark.parametrize("blurred", [0, 1])
def test_a_scan_that_is_less_sharp_makes_little_displacement(dims, blurred, monkeypatch):
    image = torch.cat([structure(width=3.0), structure(width=3.0)], 1)
    image[:, blurred : blurred + 1] = smooth(image[:, blurred : blurred + 1], 1.2, dims)
    still = torch.zeros(1, 3, *SHAPE)
    image = noisy(image, 2, 0.002)
    moving, fixed = _equally_sharp(*image.split(1, 1), still, torch.ones(1, 1, *SHAPE))
    inner = (..., *[slice(4, -4)] * 3)
    assert (moving - fixed)[inner].square().mean() < 0.035 * (image[:, :1] - image[:, 1:])[inner].square().mean()
    found = ElasticRefiner()(image, still)
    monkeypatch.setattr(elastic, "_equally_sharp", lambda moving, fixed, *_: (moving, fixed))
    assert found.norm(dim=1).mean() < 0.5 * ElasticRefiner()(image, still).norm(dim=1).mean()


def test_of_two_scans_equally_sharp_none_is_blurred():
    image = noisy(torch.cat([structure(), structure()], 1), 2)
    moving, fixed = _equally_sharp(*image.split(1, 1), torch.zeros(1, 3, *SHAPE), torch.ones(1, 1, *SHAPE))
    assert torch.equal(torch.cat([moving, fixed], 1), image)


def test_between_two_noisy_scans_of_one_anatomy_next_to_nothing_is_found():
    anatomy = structure()
    image = torch.cat([noisy(anatomy, 2), noisy(anatomy, 3)], 1)
    assert ElasticRefiner()(image, torch.zeros(1, 3, *SHAPE)).norm(dim=1).mean() < 0.08


def test_of_a_false_start_nothing_is_left():
    anatomy = structure()
    image = torch.cat([noisy(anatomy, 2), noisy(anatomy, 3)], 1)
    assert ElasticRefiner()(image, growth(1.0)).norm(dim=1).mean() < 0.08


def test_a_wide_motion_without_a_potential_is_found_too():
    anatomy, shear = structure(), torch.zeros(1, 3, *SHAPE)
    shear[:, 0] = 1.2 * torch.sin(torch.arange(float(SHAPE[1])) / 12)[None, :, None]
    image = torch.cat([noisy(anatomy, 2), noisy(warp(anatomy, shear), 3)], 1)
    assert mean_error(torch.zeros_like(shear), shear) > 0.9
    assert mean_error(ElasticRefiner()(image, torch.zeros_like(shear)), shear) < 0.25


def test_what_moved_at_the_border_is_found_there():
    """What lies beyond goes on as the outermost voxels do: it makes no edge there, which would tell of stillness."""
    anatomy, motion = structure(), torch.zeros(1, 3, *SHAPE)
    motion[:, 0] = 0.8 * torch.exp(-torch.arange(float(SHAPE[0])) / 6).view(-1, 1, 1)
    image = torch.cat([noisy(anatomy, 2), noisy(warp(anatomy, motion, padding="border"), 3)], 1)
    found = ElasticRefiner()(image, torch.zeros_like(motion))
    assert motion.norm(dim=1)[:, :3].mean() > 0.6
    assert (found - motion).norm(dim=1)[:, :3].mean() < 0.25


def test_the_noise_is_told_from_a_few_large_differences_and_from_brighter_scans():
    noise = 0.02 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    assert float(_variance(noise)) == pytest.approx(0.02**2, rel=0.05)
    noise[:400] += 5  # what changed
    assert float(_variance(noise + 0.3)) == pytest.approx(0.02**2, rel=0.1)


def test_the_pairs_of_a_batch_are_refined_each_for_itself():
    anatomy, change = structure(), growth()
    still, grown = (torch.cat([noisy(anatomy, 2), noisy(one, 3)], 1) for one in (anatomy, warp(anatomy, change)))
    refine, start = GainWeighting(refiner=ElasticRefiner(2)), torch.cat([torch.zeros_like(change), 0.4 * change])
    both = refine(torch.cat([still, grown]), start)
    assert torch.equal(both[:1], refine(still, start[:1]))
    assert torch.equal(both[1:], refine(grown, start[1:]))


def test_the_field_is_left_where_the_images_show_nothing():
    start = growth()
    image = torch.cat([structure(), structure(1)], 1)
    assert torch.equal(ElasticRefiner()(torch.zeros_like(image), start), start)
    flat = torch.full_like(image, 0.5)
    assert ElasticRefiner()(flat, torch.zeros_like(start)).abs().max() == 0


def test_odd_sides_and_single_slices_are_taken():
    for shape in ((15, 21, 18), (2, 24, 22), (1, 24, 22)):
        anatomy = structure(shape=shape)
        found = ElasticRefiner(2)(torch.cat([noisy(anatomy, 2), noisy(anatomy, 3)], 1), torch.zeros(1, 3, *shape))
        assert found.shape == (1, 3, *shape)
        assert found.isfinite().all()


def test_what_is_drawn_has_the_deviations_and_the_transpose_is_one():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 4, 40, 40, 40, generator=generator)
    field = torch.randn(1, 3, 40, 40, 40, generator=generator)
    for wanted, other in ((0.8, 1e-6), (1e-6, 0.5)):
        prior = ElasticRefiner(growth=wanted, other=other).prior
        inner = prior.draw(latent)[..., 6:-6, 6:-6, 6:-6]
        assert inner.std() == pytest.approx(max(wanted, other), rel=0.1)
        inside = torch.zeros_like(field)
        inside[..., 10:-10, 10:-10, 10:-10] = field[..., 10:-10, 10:-10, 10:-10]
        assert (prior.draw(latent) * inside).sum() == pytest.approx(
            float((latent * prior.transposed(inside)).sum()), rel=1e-3
        )


@pytest.mark.parametrize(
    ("options", "named"),
    [({"iterations": 0}, "linearisations"), ({"iterations": True}, "linearisations"), ({"growth": 0}, "growth")]
    + [({"other_width": value}, "other_width") for value in (-1, math.inf, math.nan, True, "wide")],
)
def test_settings_that_mean_nothing_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        ElasticRefiner(**options)


def test_of_scans_that_look_alike_the_gain_weighting_keeps_what_is_refined():
    anatomy, change = structure(), growth()
    image = torch.cat([noisy(anatomy, 2), noisy(warp(anatomy, change), 3)], 1)
    refining = GainWeighting(refiner=ElasticRefiner())
    plain, refined = (mean_error(gain(image, 0.4 * change), change) for gain in (GainWeighting(), refining))
    assert refined < 0.5 * plain
    still = torch.cat([noisy(anatomy, 2), noisy(anatomy, 3)], 1)
    assert refining(still, torch.zeros_like(change)).norm(dim=1).mean() < 0.02
    unlike = refining.for_pair({"contrast_correlation": 0.5})  # of these the field is weighted, and left as it is
    strict = GainWeighting(*refining.unlike)
    assert torch.equal(unlike(image, change), strict(image, change))
