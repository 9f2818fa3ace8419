import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle import plausibility
from bundle.intensity import foreground
from bundle.phantom import make_head
from bundle.plausibility import LIMITS, linear_part, measure, rigid_part, verdict
from bundle.spatial import Grid, SpatialTransform
from scipy.spatial.transform import Rotation
from tests.report.pairs import Pair
from tests.spatial.oblique import oblique

SHAPE, SPACING = (40, 50, 36), (4.0, 3.5, 5.0)


GRID = oblique(SHAPE, SPACING, (12, -7, 20), (10.0, -20.0, 30.0))
MOVING = oblique((200, 190, 180), (3.0, 3.0, 3.0), (-4, 6, -8), (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def head():
    """A head in [0, 1], (1, H, W, L), as it lies on ``GRID``'s voxels."""
    image, _, _ = make_head(3, SHAPE, SPACING)
    return torch.from_numpy(image / np.percentile(image, 99.5)).clamp(0, 1)[None]


def about(centre, matrix, shift=(0.0, 0.0, 0.0)):
    """The affine map that leaves a point where it is but for a shift, 4×4."""
    result = np.eye(4)
    result[:3, :3] = matrix
    result[:3, 3] = np.asarray(centre) - matrix @ centre + shift
    return result


def measured(head, alignment, ddf=None, warped=None, moving=MOVING):
    transform = SpatialTransform(alignment, ddf, GRID, GRID, moving)
    return measure(transform, head, head if warped is None else warped, GRID)


def test_an_affine_map_is_told_by_its_rotation_stretch_and_volume(head):
    rotation = Rotation.from_rotvec(np.radians(17) * np.array([1, 2, -2]) / 3).as_matrix()
    axes = Rotation.from_euler("xyz", (20, -30, 40), degrees=True).as_matrix()
    matrix = rotation @ axes @ np.diag([1.3, 1.0, 0.9]) @ axes.T
    found = measured(head, about(GRID.centre_mm, matrix))
    assert found["rotation_degrees"] == pytest.approx(17, abs=1e-6)
    assert found["stretch"] == pytest.approx(1.3 / 0.9, rel=1e-6)
    assert found["volume_ratio"] == pytest.approx(1.3 * 0.9, rel=1e-6)
    assert found["foreground_log_jacobian_sd"] == 0


def test_a_shear_is_a_stretch(head):
    sheared = np.eye(3)
    sheared[0, 1] = 0.3
    found = measured(head, about(GRID.centre_mm, sheared))
    scales = np.linalg.svd(sheared, compute_uv=False)
    assert found["stretch"] == pytest.approx(scales[0] / scales[-1], rel=1e-6)
    assert found["volume_ratio"] == pytest.approx(1, rel=1e-6)


def test_the_displacement_is_of_the_whole_transform_and_the_nonrigid_one_of_its_rest(head):
    ddf = torch.zeros(3, *SHAPE)
    ddf[0] = 0.5 * torch.sin(torch.arange(SHAPE[1]) / 4).view(1, -1, 1)  # 2 mm at most along the first axis
    rotation = Rotation.from_euler("z", 25, degrees=True).as_matrix()
    found = measured(head, about(GRID.centre_mm, rotation, (60.0, -10.0, 5.0)), ddf)
    assert found["mean_displacement_mm"] > 40
    assert found["max_displacement_mm"] > found["mean_displacement_mm"]
    assert 0.5 < found["mean_nonrigid_displacement_mm"] < 2
    assert found["max_nonrigid_displacement_mm"] < 4.2
    assert found["rotation_degrees"] == pytest.approx(25, abs=0.5)
    still = measured(head, about(GRID.centre_mm, rotation, (60.0, -10.0, 5.0)))
    assert still["max_nonrigid_displacement_mm"] < 1e-6


def test_a_growing_ball_spreads_the_jacobian_inside_the_head_alone(head):
    smooth = measured(head, np.eye(4), torch.zeros(3, *SHAPE))
    ddf = torch.zeros(3, *SHAPE)
    ddf[2] = 0.3 * torch.arange(SHAPE[2]).view(1, 1, -1)
    even = measured(head, np.eye(4), ddf)  # the same everywhere: no spread
    ddf[2] = 2 * torch.sin(torch.arange(SHAPE[2]) / 3).view(1, 1, -1)
    uneven = measured(head, np.eye(4), ddf)
    assert smooth["foreground_log_jacobian_sd"] == 0
    assert even["foreground_log_jacobian_sd"] == pytest.approx(0, abs=1e-5)
    assert uneven["foreground_log_jacobian_sd"] > 0.3


def test_an_image_is_like_itself_and_noise_is_not(head):
    noise = torch.rand(head.shape, generator=torch.Generator().manual_seed(0))
    itself, other = measured(head, np.eye(4)), measured(head, np.eye(4), warped=noise)
    assert itself["foreground_similarity"] > 0.95
    assert itself["foreground_dice"] == 1
    assert itself["common_view_percent"] == 100
    assert other["foreground_similarity"] < 0.1


def test_what_the_moving_image_never_saw_is_not_compared(head):
    low = GRID.centre_mm - [0, 0, 200]  # a slab that ends in the middle of the head
    half = oblique((200, 200, 40), (2.0, 2.0, 10.0), (0, 0, 0), low)
    seen = torch.from_numpy(np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) @ GRID.affine[:3, :3].T)
    below = (seen + GRID.affine[:3, 3])[..., 2] < GRID.centre_mm[2]
    found = measured(head, np.eye(4), warped=head * below, moving=half)
    assert 25 < found["common_view_percent"] < 75
    assert found["foreground_dice"] > 0.9


def test_images_without_anything_in_common_have_no_numbers_and_no_verdict(head):
    away = oblique(SHAPE, SPACING, (12, -7, 20), (2000.0, 0.0, 0.0))
    found = measured(head, np.eye(4), moving=away, warped=torch.zeros_like(head))
    assert found["common_view_percent"] == 0
    assert math.isnan(found["stretch"])
    assert verdict(found)["verdict"] == "not plausible"
    flat = measured(torch.zeros_like(head), np.eye(4))
    assert verdict(flat)["verdict"] == "not plausible"


def test_the_fits_find_the_map_that_was_applied():
    here = np.random.default_rng(0).standard_normal((200, 3)) * [40, 60, 50]
    rotation = Rotation.from_euler("xyz", (70, -20, 110), degrees=True).as_matrix()
    np.testing.assert_allclose(rigid_part(here, here @ rotation.T + [1, 2, 3]), rotation, atol=1e-9)
    matrix = rotation @ np.diag([1.2, 0.8, 1])
    np.testing.assert_allclose(linear_part(here, here @ matrix.T - 5), matrix, atol=1e-9)
    mirrored = rigid_part(here, here * [-1, 1, 1])
    assert np.linalg.det(mirrored) == pytest.approx(1)  # a rotation, not a mirror image


GOOD = dict.fromkeys(LIMITS, 1.0) | {"common_view_percent": 90.0, "folding_percent": 0.0}
GOOD |= {"foreground_log_jacobian_sd": 0.3}
GOOD |= {"similarity_before": 0.2, "similarity_after": 0.4}


def test_each_limit_decides_alone():
    assert verdict(GOOD) == {"verdict": "plausible", "limits_missed": []}
    for name, (low, high) in LIMITS.items():
        beyond = [low - 0.01] * math.isfinite(low) + [high + 0.01] * math.isfinite(high) + [math.nan]
        for value in beyond:
            found = verdict(GOOD | {name: value})
            assert found["verdict"] == "not plausible"
            (sentence,) = found["limits_missed"]
            assert sentence.startswith(f"{name} ")
    for missing in GOOD:
        assert len(verdict({k: v for k, v in GOOD.items() if k != missing})["limits_missed"]) == 1
    assert verdict(GOOD | {"similarity_after": 0.19})["verdict"] == "not plausible"


def test_a_head_a_third_longer_or_of_twice_the_volume_is_not_plausible_either_way(head):
    for factor in (4 / 3, 3 / 4):
        found = measured(head, about(GRID.centre_mm, np.diag([1.0, factor, 1.0])))
        missed = verdict(GOOD | found)["limits_missed"]
        assert any(sentence.startswith("stretch") for sentence in missed)
    for factor in (2 ** (1 / 3), 0.5 ** (1 / 3)):
        found = measured(head, about(GRID.centre_mm, factor * np.eye(3)))
        assert [s.split()[0] for s in verdict(GOOD | found)["limits_missed"]][:1] == ["volume_ratio"]


@pytest.mark.parametrize("sides", [(2, 2, 2), (3, 4, 9)])
def test_an_image_smaller_than_the_window_is_like_itself(sides):
    grid = Grid(sides, np.diag([-4.0, -4.0, 4.0, 1.0]))
    image = torch.rand(1, *sides, generator=torch.Generator().manual_seed(0))
    numbers = measure(SpatialTransform(np.eye(4), None, grid, grid, grid), image, image, grid)
    assert numbers["foreground_similarity"] > 0.8
    assert numbers["foreground_dice"] == 1


@pytest.mark.parametrize("sides", [(35, 51, 35), (36, 49, 38), (7, 13, 5), (90, 91, 6)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.4, -0.9, 6.0)])
def test_an_image_onto_itself_is_seen_as_a_whole_whatever_its_sides(sides, spacing):
    fixed = oblique(sides, spacing, (9, -4, 12), (10.0, -20.0, 30.0))
    image = torch.rand(1, *sides, generator=torch.Generator().manual_seed(0)) / 2 + 0.4
    for grid in (fixed.padded(fixed, np.eye(4)), fixed.canonical(1.3).padded(fixed, np.eye(4))):
        transform = SpatialTransform(np.eye(4), None, fixed, fixed, fixed)
        there = transform.resample(image, grid)
        found = measure(transform, there, there, grid)
        assert found["common_view_percent"] == 100
        assert found["foreground_dice"] == 1
        assert found["max_displacement_mm"] == 0


def as_itk_finds(pair):
    """The same numbers by ITK's transform, of every voxel of the fixed foreground that lands in the moving image."""
    fixed = torch.from_numpy(pair.fixed)
    here = pair.fixed_grid.to_points(torch.nonzero(foreground(fixed)).numpy())
    transform, moving = pair.itk_transform("warped"), pair.itk_image("moving")
    there = np.array([transform.TransformPoint(point) for point in here.tolist()])
    index = np.array([moving.TransformPhysicalPointToContinuousIndex(point) for point in there.tolist()])
    seen = ((index >= -0.5) & (index < np.array(moving.GetSize()) - 0.5)).all(1)
    here, there = here[seen], there[seen]
    linear = np.linalg.lstsq(np.column_stack([here, np.ones(len(here))]), there, rcond=None)[0][:3].T
    points = (here.ravel().tolist(), there.ravel().tolist())
    rigid = sitk.LandmarkBasedTransformInitializer(sitk.VersorRigid3DTransform(), *points)
    rest = np.array([rigid.TransformPoint(point) for point in here.tolist()]) - there
    scales = np.linalg.svd(linear)[1]
    return {
        "common_view_percent": 100 * seen.mean(),
        "mean_displacement_mm": np.linalg.norm(there - here, axis=1).mean(),
        "max_displacement_mm": np.linalg.norm(there - here, axis=1).max(),
        "mean_nonrigid_displacement_mm": np.linalg.norm(rest, axis=1).mean(),
        "max_nonrigid_displacement_mm": np.linalg.norm(rest, axis=1).max(),
        "stretch": scales[0] / scales[-1],
        "volume_ratio": np.linalg.det(linear),
    }


@pytest.fixture(scope="module")
def pair():
    """Two small images that show something up to their borders, a third of the fixed one beyond the moving one."""
    pair = Pair(fixed_shape=(31, 43, 27))
    pair.transform.alignment[:3, 3] += [12.0, -6.0, 9.0]
    return pair


@pytest.mark.parametrize(
    ("spacing_mm", "points", "tolerance"), [(None, 700_000, 1e-5), (1.3, 700_000, 0.03), (None, 20_000, 0.05)]
)
def test_the_numbers_are_those_of_the_whole_foreground_that_is_seen(pair, monkeypatch, spacing_mm, points, tolerance):
    monkeypatch.setattr(plausibility, "POINTS", points)
    lattice = pair.fixed_grid if spacing_mm is None else pair.fixed_grid.canonical(spacing_mm)
    grid = lattice.padded(pair.moving_grid, pair.transform.alignment)
    identity, fixed = pair.transform.without_field(aligned=False), torch.from_numpy(pair.fixed)[None]
    image = identity.resample(fixed, grid, image_grid=pair.fixed_grid) / 1000
    found, expected = measure(pair.transform, image, image, grid), as_itk_finds(pair)
    assert 40 < expected["common_view_percent"] < 90
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=tolerance), name


def test_the_outer_half_of_a_thick_outermost_slice_where_the_field_breaks_off_does_not_count():
    fixed = oblique((30, 32, 8), (2.0, 2.0, 6.0), (12, -7, 20), (10.0, -20.0, 30.0))
    grid = oblique((30, 32, 24), (2.0, 2.0, 2.0), (12, -7, 20), (10.0, -20.0, 30.0))  # three planes a slice
    moving = grid.crop((0, 0, 1), (29, 31, 22))  # all but the first plane and the last
    image = torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(0)) / 2 + 0.4
    image[:, :8] = 0  # air
    found = measure(SpatialTransform(np.eye(4), None, fixed, fixed, moving), image, image, grid)
    assert found["common_view_percent"] == 100
    found = measure(SpatialTransform(np.eye(4), None, grid, grid, moving), image, image, grid)
    assert found["common_view_percent"] == pytest.approx(100 * 22 / 24, abs=0.5)
