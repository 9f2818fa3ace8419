import math

import numpy as np
import pytest
import torch
from bundle.phantom import make_head
from bundle.plausibility import LIMITS, linear_part, measure, rigid_part, verdict
from bundle.spatial import Grid, SpatialTransform
from scipy.spatial.transform import Rotation
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
