"""Small animals, and small parts of people at fine voxels: as large as a head once magnified."""

import numpy as np
import pytest
import torch
from bundle.affine import align
from bundle.magnification import magnification, magnified
from bundle.phantom import centred_affine, random_anatomy, sample
from bundle.plausibility import measure
from bundle.spatial import Grid, SpatialTransform, ras_from_lps
from bundle.transforms import MatchPaird
from monai.data import MetaTensor

SHAPE = (40, 48, 44)  # of a head in voxels of 5 mm; called 0.2 mm it is as long as a mouse's, and 2 mm make it 96 mm
AFFINE = centred_affine(SHAPE, (5.0, 5.0, 5.0), degrees=(4, -3, 5))
SHIFT_VOXELS = np.array([4.0, -2.0, 3.0])


@pytest.fixture(scope="module")
def head():
    return sample(random_anatomy(3), SHAPE, AFFINE)


@pytest.fixture(scope="module")
def moved():
    """The same head, elsewhere on the same grid."""
    motion = np.eye(4)
    motion[:3, 3] = AFFINE[:3, :3] @ SHIFT_VOXELS
    return sample(random_anatomy(3), SHAPE, np.linalg.inv(motion) @ AFFINE)


def grid_of_voxels(spacing_mm):
    return magnified(Grid.from_ras(SHAPE, AFFINE), spacing_mm / 5)


@pytest.mark.parametrize("spacing_mm", [0.4, 0.2, 0.025])
@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_small_bodies_are_aligned_as_large_ones(head, moved, spacing_mm, kind):
    grid = grid_of_voxels(spacing_mm)
    found = align(moved[0], grid, head[0], grid, kind)
    index = np.argwhere(head[1] > 0)[::10]
    there = grid.to_index(grid.to_points(index) @ found[:3, :3].T + found[:3, 3])
    assert np.linalg.norm(there - index - SHIFT_VOXELS, axis=1).max() < 0.3
    assert np.linalg.norm(SHIFT_VOXELS) > 5


def test_a_slab_across_a_small_body_and_masks_are_aligned_too(head, moved):
    grid = grid_of_voxels(0.2)
    slab = grid.crop((0, 0, 14), (39, 47, 33))
    masks = {"moving_mask": moved[1] > 0, "fixed_mask": head[1][:, :, 14:34] > 0}
    masks = {name: mask.astype(np.float32) for name, mask in masks.items()}
    found = align(moved[0], grid, head[0][:, :, 14:34], slab, "affine", **masks)
    index = np.argwhere(head[1] > 0)[::10]
    there = grid.to_index(grid.to_points(index) @ found[:3, :3].T + found[:3, 3])
    assert np.linalg.norm(there - index - SHIFT_VOXELS, axis=1).mean() < 0.5


def test_what_is_human_sized_is_left_as_it_is(head):
    image, crop = np.asarray(head[0]), np.ones((35, 50, 35), np.float32)
    crop[0] = 0
    fine = Grid((35, 50, 35), np.diag([0.2, 0.3, 0.6, 1.0]))
    assert magnification([(image, grid_of_voxels(5.0))] * 2) == 1
    assert magnification([(crop, Grid((35, 50, 35), np.eye(4)))] * 2) == 1  # around a hippocampus
    assert magnification([(crop, magnified(fine, 2.5))] * 2) == 1  # by its voxels
    assert magnification([(crop, fine), (image, grid_of_voxels(5.0))]) == 1  # by the other image
    assert magnification([(image, grid_of_voxels(0.2))] * 2) == pytest.approx(10)  # up to voxels of 2 mm
    assert magnification([(crop, fine)] * 2) == pytest.approx(200 / 21)  # up to the length of a head
    grid = grid_of_voxels(0.2)
    assert magnified(grid, 1.0) is grid


def test_air_around_a_small_body_does_not_make_it_large(head):
    image = np.pad(head[0], 110)
    grid = Grid(image.shape, np.diag([0.2, 0.2, 0.2, 1.0]))
    assert grid.shape[0] * 0.2 > 50
    assert magnification([(image, grid)]) == pytest.approx(10)


def pair(head, moved, grid):
    affine = ras_from_lps(grid.affine)
    images = (("moving", moved[0]), ("fixed", head[0]))
    return {role: MetaTensor(torch.from_numpy(image)[None], affine=affine) for role, image in images}


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_network_gets_the_same_grid_of_a_small_body_whatever_suits_heads(head, moved, symmetric):
    """The margin is as many voxels, and the 160 mm of weights for heads leave all of it."""
    large, small = (
        MatchPaird("rigid", symmetric=symmetric, **top)(pair(head, moved, grid_of_voxels(spacing_mm)))
        for spacing_mm, top in ((2.0, {}), (0.2, {"align_top_mm": 160}))
    )
    assert small["image"].shape == large["image"].shape
    assert np.allclose(small["image"].affine[:3] * 10, large["image"].affine[:3], atol=0.2)
    assert small["alike"]["similarity_aligned"] == pytest.approx(large["alike"]["similarity_aligned"], abs=0.01)


def test_a_registration_of_small_bodies_is_measured_as_one_of_large_ones(head, moved):
    images = [torch.from_numpy(image[0] / image[0].max())[None] for image in (head, moved)]
    large, small = (
        measure(SpatialTransform(np.eye(4), None, grid, grid, grid), *images, grid)
        for grid in (grid_of_voxels(2.0), grid_of_voxels(0.2))
    )
    assert 0.1 < large["foreground_similarity"] < 0.9
    assert small == pytest.approx(large, abs=1e-5)
