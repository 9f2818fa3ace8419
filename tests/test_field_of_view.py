"""How far the network's grid and the kept field reach, and what cutting and continuing them leaves as it was."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.benchmark.measure import quality
from bundle.fields import jacobian_determinant
from bundle.metrics import folding_percent
from bundle.phantom import write_phantoms
from bundle.postprocessing import BuildTransformd, MapJacobiand, MeasureRegistrationd
from bundle.spatial import SpatialTransform, antialias, sample
from bundle.transforms import MatchPaird, ReadVolumed, grid_of, matching
from bundle.transforms.matching import MARGIN_MM
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from tests.spatial import oblique as grids

SHAPE, SPACING_MM = (60, 74, 52), (1.4, 1.1, 2.2)


def oblique(shape=SHAPE, spacing_mm=SPACING_MM, centre_mm=(11.0, -23.0, 31.0)):
    """A grid in LPS whose axes run to the right, forwards and up, as nearly as they lie."""
    return grids.oblique(shape, np.array(spacing_mm) * (-1, -1, 1), centre_mm=centre_mm)


def points_of(grid):
    return grid.to_points(np.argwhere(np.ones(grid.shape)))


def brain(grid, blank=True, centre_mm=(11.0, -23.0, 31.0)):
    """A structured ball of 20 mm radius, in nothing at all or in noise."""
    away = np.linalg.norm(points_of(grid) - centre_mm, axis=1).reshape(grid.shape)
    texture = gaussian_filter(np.random.default_rng(0).uniform(0, 1, grid.shape), 1.5)
    values = np.where(away < 20, 1 + 10 * texture, 0 if blank else 1e-3 * texture)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    return MetaTensor(torch.from_numpy(values).float()[None], affine=torch.from_numpy(affine))


def transform_of(ddf, field_grid, fixed_grid):
    return SpatialTransform(np.eye(4), ddf, field_grid, fixed_grid, fixed_grid)


# --- grids ---


def test_a_box_holds_the_voxels_between_two_indices_beyond_the_border_too():
    grid = oblique()
    box = grid.crop((-2, 5, 7), (8, 5, 60))
    assert box.shape == (11, 1, 54)
    assert np.allclose(box.to_points([0, 0, 0]), grid.to_points([-2, 5, 7]))
    assert np.allclose(box.to_points([10, 0, 53]), grid.to_points([8, 5, 60]))


def test_a_grid_over_another_holds_its_voxels_and_no_plane_more():
    grid, other = oblique(), oblique((31, 20, 40), (0.9, 2.0, 1.3), (15.0, -40.0, 33.0))
    over = grid.cover(other)
    assert np.allclose(over.affine[:3, :3], grid.affine[:3, :3])
    low, high = over.bounds(other)
    assert (low > -0.002).all()
    assert (low < 1).all()
    assert (high < np.array(over.shape) - 0.998).all()
    assert (high > np.array(over.shape) - 2).all()
    assert grid.cover(grid).is_close(grid)


@pytest.mark.parametrize(("low", "high"), [((3.2, 70, -9), (12.1, 71, 99)), ((0, 0, 0), (59, 73, 51))])
def test_a_grid_within_two_indices_keeps_them_in_multiples_of_16_of_its_own_voxels(low, high):
    grid = oblique((64, 80, 64))
    part = grid.crop_to(low, high)
    first, last = grid.bounds(part)
    assert (np.array(part.shape) % 16 == 0).all()
    assert (first > -1e-6).all()
    assert (last < np.array(grid.shape) - 1 + 1e-6).all()
    assert (first <= np.maximum(low, 0) + 1e-6).all()
    assert (last >= np.minimum(high, np.array(grid.shape) - 1) - 1e-6).all()
    assert (np.array(part.shape) < np.ceil(np.array(high) - low) + 1 + 16 + 16).all()


# --- what the network sees ---


@pytest.mark.parametrize("blank", [True, False], ids=["blank", "noisy"])
@pytest.mark.parametrize("spacing_mm", [None, 1.5])
def test_the_network_s_grid_ends_a_little_beyond_what_the_images_show(spacing_mm, blank):
    grid, aside_mm = oblique(), np.array([4.0, -3.0, 5.0])
    centres = {"moving": np.array((11.0, -23.0, 31.0)) + aside_mm, "fixed": np.array((11.0, -23.0, 31.0))}
    pair = {role: brain(grid, blank, centre) for role, centre in centres.items()}
    cut = grid_of(MatchPaird("none", spacing_mm)(pair)["image"])
    assert np.prod(cut.shape) < 0.6 * np.prod(grid.canonical(spacing_mm).shape)
    for role, centre in centres.items():  # of balls of 20 mm
        low, high = cut.inverse[:3, :3] @ centre + cut.inverse[:3, 3] + np.outer((-1, 1), 20 / cut.spacing_mm)
        margins_mm = np.minimum(low, np.array(cut.shape) - 1 - high) * cut.spacing_mm
        assert (margins_mm >= MARGIN_MM - 1.1).all(), role  # the foreground leaves out the outermost of a ball


def test_after_an_alignment_of_more_than_a_shift_the_grid_ends_where_the_fixed_image_does(tmp_path):
    grid = oblique()
    moving = brain(grid) + brain(grid, centre_mm=(36.0, -23.0, 31.0))  # reaches 25 mm further
    grids = {}
    for name, radians in (("shift", 0.0), ("turn", 0.02)):
        initial = sitk.Euler3DTransform((11.0, -23.0, 31.0), radians, 0.0, 0.0)
        sitk.WriteTransform(initial, str(tmp_path / f"{name}.tfm"))
        item = {"moving": moving, "fixed": brain(grid), "initial_transform": tmp_path / f"{name}.tfm"}
        grids[name] = grid_of(MatchPaird("none")(item)["image"])
    assert np.prod(grids["turn"].shape) < 0.8 * np.prod(grids["shift"].shape)


def test_specks_in_the_air_do_not_widen_the_network_s_grid():
    grid = oblique()
    speckled = {role: brain(grid) for role in ("moving", "fixed")}
    for image in speckled.values():
        image[0, 1, 1, 1] = image[0, -2, -2, -2] = image.max()
    alone, with_specks = (
        MatchPaird("none")(pair)["image"] for pair in ({role: brain(grid) for role in speckled}, speckled)
    )
    assert grid_of(alone).is_close(grid_of(with_specks))


def test_a_wide_margin_of_nothing_does_not_change_what_the_network_sees():
    grid = oblique()
    wide = grid.crop((-40, -30, -20), np.add(grid.shape, (30, 50, 20)))
    padded = {}
    for role in ("moving", "fixed"):
        image = torch.zeros(1, *wide.shape)
        image[:, 40:100, 30:104, 20:72] = brain(grid).as_tensor()
        padded[role] = MetaTensor(image, affine=torch.from_numpy(np.diag([-1.0, -1, 1, 1]) @ wide.affine))
    few, many = (MatchPaird("none")(pair)["image"] for pair in ({role: brain(grid) for role in padded}, padded))
    assert grid_of(few).is_close(grid_of(many))
    assert torch.allclose(few.as_tensor(), many.as_tensor(), atol=1e-5)


def test_masks_cut_the_network_s_grid_as_blanked_images_do():
    grid = oblique()
    images = {role: brain(grid, blank=False) for role in ("moving", "fixed")}
    masks = {f"{role}_mask": (image > 0.5).float() for role, image in images.items()}
    blank = {role: brain(grid) for role in images}
    by_mask, by_image = (MatchPaird("none")(pair)["image"] for pair in (images | masks, blank))
    assert grid_of(by_mask).is_close(grid_of(by_image))


# --- what is kept of the field ---


def smooth_ddf(shape):
    noise = np.random.default_rng(3).standard_normal((3, *shape))
    return torch.from_numpy(np.stack([gaussian_filter(c, 3) for c in noise]) * 20).float()


def test_a_field_finer_than_the_fixed_image_is_kept_at_its_voxels_and_loses_nothing_there():
    fixed = oblique()
    finer = fixed.canonical(0.9).padded(fixed, np.eye(4))
    transform = transform_of(smooth_ddf(finer.shape), finer, fixed)
    kept = transform.resample_field()
    assert kept.field_grid.is_close(fixed.canonical())
    assert torch.allclose(kept.displacement_field(), transform.displacement_field(), atol=1e-4)
    image = torch.rand(1, *fixed.shape)
    assert torch.allclose(kept.resample(image), transform.resample(image), atol=1e-4)


@pytest.mark.parametrize("spacing_mm", [1.5, 4.0])  # coarser along two axes of three, and along all
def test_a_field_coarser_than_the_fixed_image_keeps_its_own_voxels_over_the_whole_of_it(spacing_mm):
    fixed = oblique()
    coarse = fixed.canonical(spacing_mm).crop((3, 3, 3), (14, 14, 20))
    transform = transform_of(smooth_ddf(coarse.shape), coarse, fixed)
    kept = transform.resample_field()
    assert kept.field_grid.is_close(coarse.cover(fixed))
    assert torch.equal(kept.resample_field().ddf, kept.ddf)
    inside = coarse.to_points(np.random.default_rng(0).uniform(0.1, np.array(coarse.shape) - 1.1, (200, 3)))
    assert torch.allclose(kept.displacement_at(inside), transform.displacement_at(inside), atol=1e-4)
    everywhere = points_of(fixed)
    assert torch.allclose(
        kept.displacement_at(everywhere), transform.displacement_at(everywhere, extend=True), atol=1e-4
    )


@pytest.mark.parametrize("spacing_mm", [1.0, 3.0])
def test_a_field_is_kept_at_the_spacing_that_is_asked_for_smoothed_if_that_is_coarser(spacing_mm):
    fixed = oblique()
    ddf = smooth_ddf(fixed.shape)
    transform = transform_of(ddf, fixed, fixed)
    kept = transform.resample_field(spacing_mm)
    assert np.allclose(kept.field_grid.spacing_mm, spacing_mm)
    low, high = kept.field_grid.bounds(fixed)
    assert (low > -0.002).all()
    assert (high < np.array(kept.field_grid.shape) - 0.998).all()
    smoothed = transform_of(antialias(ddf, fixed, kept.field_grid, pointwise=True), fixed, fixed)
    assert torch.equal(smoothed.ddf, ddf) == (spacing_mm == 1.0)
    points = points_of(kept.field_grid)
    assert torch.allclose(kept.displacement_at(points), smoothed.displacement_at(points, extend=True), atol=1e-4)


def test_how_far_a_field_moves_is_told_of_what_is_kept_and_what_folds_of_what_was_found():
    grid = oblique((20, 24, 18), (2.0, 2.2, 2.4))
    item = MatchPaird("none", 1.1)({"moving": brain(grid), "fixed": brain(grid)})
    ddf = torch.zeros(3, *item["image"].shape[1:])
    ddf[0] = 2.0
    found = BuildTransformd()(item | {"pred": torch.cat([item["image"][:1].as_tensor(), ddf])})
    assert found["transform"].field_grid.is_close(grid.canonical())
    assert torch.equal(found["ddf"], ddf)
    assert MeasureRegistrationd()(found)["quality"]["max_field_displacement_mm"] == pytest.approx(2.2, abs=1e-3)
    coarse = BuildTransformd(field_spacing_mm=4.0)(found)
    assert np.allclose(coarse["transform"].field_grid.spacing_mm, 4.0)


def test_a_cut_makes_no_folds_at_its_border():
    grid = oblique((20, 24, 18), (2.0, 2.2, 2.4))
    item = MatchPaird("none")({"moving": brain(grid), "fixed": brain(grid)})
    ddf = torch.zeros(3, *item["image"].shape[1:])
    low, high = grid_of(item["image"]).bounds(grid.canonical())
    for axis, (first, last) in enumerate(zip(np.floor(low + 1e-3), np.ceil(high - 1e-3))):
        for border, inwards in ((int(first), 1), (int(last), -1)):
            along = ddf[axis].movedim(axis, 0)
            along[border], along[border + inwards] = 0.8 * inwards, -0.4 * inwards  # they pass each other
    assert folding_percent(ddf[None]) == 0
    found = MapJacobiand()(BuildTransformd()(item | {"pred": torch.cat([item["image"][:1].as_tensor(), ddf])}))
    kept = found["transform"]
    assert folding_percent(kept.ddf[None]) > 1
    assert kept.jacobian.shape == (1, *kept.field_grid.shape)
    for determinant in (kept.jacobian, kept.without_alignment().jacobian, found["jacobian"]):
        assert determinant.min() > 0
    points = torch.from_numpy(points_of(kept.field_grid))
    expected = sample(jacobian_determinant(ddf[None])[0], grid_of(item["image"]), points)
    torch.testing.assert_close(kept.jacobian.flatten(), expected.flatten(), atol=1e-4, rtol=0, check_dtype=False)
    numbers = MeasureRegistrationd()(found)["quality"]
    labels = {"fixed_label": item["fixed"] > 1, "moving_label": item["fixed"] > 1}
    whole = replace(kept, ddf=ddf, field_grid=grid_of(item["image"]))
    compared = quality({key: value.byte() for key, value in labels.items()}, whole, "nearest")
    for name in ("folding_percent", "log_jacobian_sd"):
        assert numbers[name] == compared[name]


@pytest.fixture(scope="module")
def far_apart(tmp_path_factory):
    """Two synthetic heads that their headers lay far apart."""
    folder = tmp_path_factory.mktemp("far")
    write_phantoms(folder, training=1, validation=1, test=0, seed=500)
    roles = {"moving": "phantom_000.nii.gz", "fixed": "phantom_001.nii.gz"}
    paths = {role: str(folder / "images" / name) for role, name in roles.items()}
    paths |= {f"{role}_label": str(folder / "labels" / name) for role, name in roles.items()}
    return ReadVolumed(list(paths), ["moving_label", "fixed_label"])(paths)


def test_an_alignment_of_images_far_apart_is_not_dropped_for_what_windows_say(far_apart):
    item = MatchPaird(affine="affine", spacing_mm=1.3333, never_worse=True)(dict(far_apart))
    assert item["alike"]["similarity_aligned"] < item["alike"]["similarity_before"]
    assert item["alike"]["alignment_dropped"] == 0
    moving, fixed = (grid_of(far_apart[role]) for role in ("moving", "fixed"))
    transform = SpatialTransform(item["alignment"].numpy(), None, fixed, fixed, moving)
    label, wanted = far_apart["moving_label"].as_tensor(), far_apart["fixed_label"].as_tensor()
    found = [one.resample(label, mode="nearest") for one in (transform.without_field(False), transform)]
    by_headers, aligned = (dice(one, wanted) for one in found)
    assert aligned > by_headers + 0.15


@pytest.mark.parametrize("shift_mm", [(130, 0, 0), (0, 0, 80)])
def test_an_alignment_that_throws_images_apart_is_dropped_though_each_tells_where_the_other_is_not(
    far_apart, monkeypatch, shift_mm
):
    matrix = np.eye(4)
    matrix[:3, 3] = shift_mm
    matrix[0, 0] = 1.001  # more than a shift: the grid is laid over the fixed image alone
    monkeypatch.setattr(matching, "align", lambda *_, **__: matrix)
    item = MatchPaird(affine="affine", spacing_mm=4.0, never_worse=True)(dict(far_apart))
    assert item["alike"]["alignment_dropped"] == 1
    assert np.array_equal(item["alignment"], np.eye(4))


def dice(one, other):
    """Mean over the regions of the other label map."""
    regions = [region for region in other.unique().tolist() if region]
    return np.mean(
        [float(2 * ((one == r) & (other == r)).sum() / ((one == r).sum() + (other == r).sum())) for r in regions]
    )


@pytest.mark.parametrize("symmetric", [False, True])
def test_how_far_a_field_moves_is_told_of_the_fixed_image_alone(symmetric):
    grid = oblique((20, 24, 18), (2.0, 2.2, 2.4))
    item = MatchPaird("none", 1.1)({"moving": brain(grid), "fixed": brain(grid)})
    lattice = grid_of(item["image"])
    points = lattice.to_points(np.stack(np.meshgrid(*map(np.arange, lattice.shape), indexing="ij"), -1))
    away = np.linalg.norm(points - grid.centre_mm, axis=-1)  # the further from the middle, the further it moves
    ddf = torch.zeros(3, *lattice.shape)
    ddf[0] = torch.from_numpy(away / 10)
    found = BuildTransformd(symmetric=symmetric)(item | {"pred": torch.cat([item["image"][:1].as_tensor(), ddf])})
    quality = MeasureRegistrationd()(found)["quality"]
    moved = found["transform"].without_alignment().displacement_field().norm(dim=0)
    assert quality["max_field_displacement_mm"] == pytest.approx(float(moved.max()), rel=1e-5)
    assert quality["mean_field_displacement_mm"] == pytest.approx(float(moved.mean()), rel=1e-5)
    assert float(found["transform"].field_mm.norm(dim=0).max()) > float(moved.max()) * (1.05 if symmetric else 0.99)
