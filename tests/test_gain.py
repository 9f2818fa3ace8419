import pytest
import torch
from bundle import gain
from bundle.fields import warp
from bundle.gain import GainWeighting
from bundle.inferers import RecursiveInferer
from bundle.metrics import folding_percent
from bundle.similarity import contrast_correlation
from bundle.smoothing import smooth
from monai.bundle import ConfigParser

SHAPE = (36, 40, 44)


@pytest.fixture
def anatomy():
    """A volume with structure everywhere, (1, 1, H, W, L), in [0, 1]."""
    noise = smooth(torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)), 2.0)
    return (noise - noise.min()) / (noise.max() - noise.min())


def noisy(image, seed, level=0.03):
    return (image + level * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def jitter(size=0.7):
    """What a network finds in noise: a smooth field without any meaning, voxels."""
    field = smooth(torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(1)), 3.0)
    return field * size / field.norm(dim=1).mean()


def local_change(size=2.5):
    """A bump of displacement on one side of the volume, voxels."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SHAPE], indexing="ij"))
    distance = (grid - torch.tensor([10.0, 20.0, 22.0]).view(3, 1, 1, 1)).norm(dim=0)
    field = torch.zeros(1, 3, *SHAPE)
    field[:, 1] = size * torch.exp(-(distance**2) / 50)
    return field


def test_between_two_noisy_scans_of_one_anatomy_next_to_nothing_of_a_field_is_kept(anatomy):
    image = torch.cat([noisy(anatomy, 2), noisy(anatomy, 3)], 1)
    kept = GainWeighting()(image, jitter())
    assert jitter().norm(dim=1).mean() == pytest.approx(0.7)
    assert kept.norm(dim=1).mean() < 0.02


def test_what_is_asked_for_of_a_pair_is_settled_before_its_images_are_changed(anatomy):
    image, change = torch.cat([anatomy, warp(anatomy, local_change())], 1), local_change()
    weighting = GainWeighting(alike_from=0.5)
    for correlation, (least, full) in ((0.6, weighting.alike), (0.4, weighting.unlike)):
        settled = weighting.for_pair({"contrast_correlation": correlation})
        expected = GainWeighting(least, full, least, full)
        assert torch.equal(settled.weights(image, change), expected.weights(image, change))


def test_interpolation_that_smooths_noise_is_no_gain(anatomy):
    image = torch.cat([noisy(anatomy, 2, 0.1), noisy(anatomy, 3, 0.1)], 1)
    half = torch.full((1, 3, *SHAPE), 0.0)
    half[:, 0] = 0.5  # halfway between voxels: a mean of two
    assert GainWeighting().weights(image, half).mean() < 0.05


def test_a_change_is_kept_where_it_is_and_nothing_elsewhere(anatomy):
    change = local_change()
    image = torch.cat([noisy(anatomy, 2), noisy(warp(anatomy, change), 3)], 1)
    kept = GainWeighting()(image, change + 0.3 * jitter() * (change[:, 1:2].abs() < 0.05))
    peak = change[:, 1] > 1.5
    assert (kept - change)[:, 1][peak].abs().mean() < 0.1
    far = (change.norm(dim=1) < 0.01) & (torch.arange(SHAPE[0]).view(1, -1, 1, 1) > 24)
    assert kept.norm(dim=1)[far].mean() < 0.02


def test_the_weights_are_shares_and_do_not_depend_on_the_intensity_scale(anatomy):
    change = local_change()
    image = torch.cat([anatomy, warp(anatomy, change)], 1)
    weights = GainWeighting().weights(image, change)
    assert weights.shape == (1, 1, *SHAPE)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert torch.allclose(
        GainWeighting().weights(torch.cat([image[:, :1] * 0.5, image[:, 1:]], 1), change), weights, atol=0.02
    )


def test_of_scans_that_look_less_alike_more_is_asked(anatomy):
    change = local_change()
    other_contrast = (anatomy - 0.5).abs() * 2
    image = torch.cat([anatomy, warp(other_contrast, change)], 1)
    assert contrast_correlation(image[0, :1], image[0, 1:]) < 0.9
    strict = GainWeighting(0.4, 0.7, alike_from=-1.0).weights(image, change)
    assert torch.equal(GainWeighting().weights(image, change), strict)
    lenient = GainWeighting(alike_from=-1.0).weights(image, change)
    assert strict.sum() < lenient.sum()
    both = torch.cat([image, torch.cat([anatomy, warp(anatomy, change)], 1)])
    assert torch.equal(GainWeighting().weights(both, change.expand(2, -1, -1, -1, -1))[:1], strict)


def test_the_weight_is_that_of_the_share_explained_and_rises_without_an_edge(anatomy, monkeypatch):
    """Of correlations that are the same everywhere; 3 s² − 2 s³ of the way s from the gain ``least`` to ``full``."""
    for after, share in ((0.37, 0.0), (0.46, 0.2), (0.55, 0.5), (0.64, 0.8), (0.8, 1.0)):
        correlations = iter([0.2, after])
        monkeypatch.setattr(gain, "local_ncc", lambda one, *_: torch.full_like(one, next(correlations)))  # noqa: B023
        weights = GainWeighting(0.25, 0.625, alike_from=-1.0).weights(torch.cat([anatomy, anatomy], 1), jitter())
        assert float(weights.mean()) == pytest.approx(share**2 * (3 - 2 * share), abs=0.01)
        assert weights.max() - weights.min() < 1e-4


def test_what_is_refined_is_weighted_by_what_it_gains_itself(anatomy):
    """Not by the gain of the field that it began with, here none."""
    change = local_change()
    image = torch.cat([anatomy, warp(anatomy, change)], 1)
    refined = GainWeighting(alike_from=-1.0, refiner=lambda *_: change)(image, torch.zeros_like(change))
    expected = change * GainWeighting(0.03, 0.15, alike_from=-1.0).weights(image, change)
    assert torch.equal(refined, expected)
    assert (refined - change).norm(dim=1)[change.norm(dim=1) > 1].mean() < 0.1


@pytest.mark.parametrize(("least", "full"), [(0.4, 0.4), (-0.1, 0.5), (0.2, 1.1), ("low", 0.4)])
def test_gains_that_make_no_range_are_refused(least, full):
    with pytest.raises(ValueError, match="least"):
        GainWeighting(least, full)


def test_the_inferer_weights_last_and_warps_by_what_is_kept(anatomy):
    image = torch.cat([noisy(anatomy, 2), noisy(anatomy, 3)], 1)
    found = torch.cat([image[:, :1], jitter()], 1)
    plain = RecursiveInferer(remove_folds=True)(image, lambda _: found)
    kept = RecursiveInferer(remove_folds=True, gain_weighting=GainWeighting())(image, lambda _: found)
    assert plain[:, 1:].norm(dim=1).mean() > 0.5
    assert kept[:, 1:].norm(dim=1).mean() < 0.02
    assert folding_percent(kept[:, 1:]) == 0
    assert torch.equal(kept[:, :1], warp(image[:, :1], kept[:, 1:]))


@pytest.mark.parametrize("same_person", [True, False])
def test_the_workflow_weights_where_it_is_told_that_both_images_are_of_one_person(bundle_root, same_person):
    config = ConfigParser()
    config.read_config(str(bundle_root / "configs" / "inference.json"))
    config["same_person"] = same_person
    inferer = config.get_parsed_content("inferer")
    assert isinstance(inferer.gain_weighting, GainWeighting) == same_person
    assert same_person or inferer.gain_weighting is None


@pytest.mark.parametrize("names", [["inference"], ["train", "evaluate"]])
def test_one_person_is_aligned_rigidly_unless_asked_otherwise(bundle_root, names):
    config = ConfigParser()
    config.read_config([str(bundle_root / "configs" / f"{name}.json") for name in names])
    for same_person, asked, expected in ((True, None, "rigid"), (False, None, "affine"), (True, "center", "center")):
        config["same_person"] = same_person
        if asked:
            config["affine"] = asked
        assert config.get_parsed_content("affine") == expected
