from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle import affine
from bundle.affine import ALIGNMENTS, align
from bundle.metrics import mean_dice
from bundle.phantom import centred_affine, random_anatomy, sample
from bundle.spatial import Grid, SpatialTransform, lps_from_ras
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

FIXED_SHAPE, MOVING_SHAPE = (64, 76, 60), (60, 84, 54)
FIXED_RAS = centred_affine(FIXED_SHAPE, (2.8, 2.6, 2.9), degrees=(6, -4, 9))
MOVING_RAS = centred_affine(MOVING_SHAPE, (-3.0, 2.5, 3.2), degrees=(9, -5, 7))

TURN = Rotation.from_rotvec(np.radians(8) * np.array([2, -1, 2]) / 3).as_matrix()
SHIFT_MM = 12 * np.array([0.6, -0.64, 0.48])


def motion(linear):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, SHIFT_MM
    return matrix


MOTIONS = {  # of the fixed head into the moving one, RAS
    "rigid": motion(TURN),
    "affine": motion(TURN @ np.array([[1.06, 0.03, 0.0], [0.0, 0.95, -0.04], [0.02, 0.0, 1.03]])),
}


@pytest.fixture(scope="module")
def fixed():
    return sample(random_anatomy(3), FIXED_SHAPE, FIXED_RAS)


@pytest.fixture(scope="module")
def moving():
    """The same head, moved: a voxel at M p shows what lies at p."""
    return {
        kind: sample(random_anatomy(3), MOVING_SHAPE, np.linalg.inv(matrix) @ MOVING_RAS)
        for kind, matrix in MOTIONS.items()
    }


def aligned(moving, fixed, kind, **masks):
    return align(
        moving, Grid.from_ras(MOVING_SHAPE, MOVING_RAS), fixed, Grid.from_ras(FIXED_SHAPE, FIXED_RAS), kind, **masks
    )


@pytest.fixture(scope="module")
def rigid(moving, fixed):
    return aligned(moving["rigid"][0], fixed[0], "rigid")


def errors_mm(found, motion_ras, label):
    """How far each labelled voxel of the fixed head lands from where it belongs."""
    flip = np.diag([-1.0, -1, 1, 1])
    points = Grid.from_ras(FIXED_SHAPE, FIXED_RAS).to_points(np.argwhere(label > 0)[::50])
    difference = found - flip @ motion_ras @ flip
    return np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1)


def test_a_known_rigid_motion_is_recovered(rigid, fixed):
    assert errors_mm(np.eye(4), MOTIONS["rigid"], fixed[1]).mean() > 10
    assert errors_mm(rigid, MOTIONS["rigid"], fixed[1]).max() < 1.0
    assert np.allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rigid[:3, :3]) > 0


def test_a_known_affine_motion_is_recovered_which_a_rigid_one_could_not(moving, fixed, rigid):
    found = aligned(moving["affine"][0], fixed[0], "affine")
    assert errors_mm(rigid, MOTIONS["affine"], fixed[1]).mean() > 2
    assert errors_mm(found, MOTIONS["affine"], fixed[1]).mean() < 1.5
    assert errors_mm(found, MOTIONS["affine"], fixed[1]).max() < 2.5  # a voxel


def test_the_same_images_give_the_same_bits(rigid, moving, fixed):
    assert np.array_equal(aligned(moving["rigid"][0], fixed[0], "rigid"), rigid)


def around(label):
    return binary_dilation(label > 0, iterations=3).astype(np.float32)


def with_distractor(image, mask):
    """Add a slab far brighter than the head, at one end of the first axis: on the other side of each head."""
    image = image.copy()
    image[:12][mask[:12] == 0] = 8 * image.max()
    return image


def test_what_lies_outside_the_masks_does_not_disturb(moving, fixed):
    masks = {"moving_mask": around(moving["rigid"][1]), "fixed_mask": around(fixed[1])}
    pair = with_distractor(moving["rigid"][0], masks["moving_mask"]), with_distractor(fixed[0], masks["fixed_mask"])
    assert errors_mm(aligned(*pair, "rigid", **masks), MOTIONS["rigid"], fixed[1]).max() < 1.0
    assert errors_mm(aligned(*pair, "rigid"), MOTIONS["rigid"], fixed[1]).max() > 3.0


def test_the_outline_of_what_a_mask_leaves_brings_a_brain_into_place(moving, fixed):
    """With nothing to see within, and masks that end where the brain does."""
    pair = [np.random.default_rng(i).normal(1, 0.05, one[1].shape) for i, one in enumerate((moving["affine"], fixed))]
    masks = {"moving_mask": moving["affine"][1] > 0, "fixed_mask": fixed[1] > 0}
    masks = {name: mask.astype(np.float32) for name, mask in masks.items()}
    found = aligned(*(image.astype(np.float32) for image in pair), "affine", **masks)
    assert errors_mm(found, MOTIONS["affine"], fixed[1]).mean() < 0.6
    assert errors_mm(found, MOTIONS["affine"], fixed[1]).max() < 1.3


def test_a_mask_and_what_is_ignored_of_fine_images_leave_the_alignment_as_it_is():
    fine = 1.3, 1.2, 1.4
    grids = [Grid.from_ras(shape, centred_affine(shape, fine)) for shape in ((96, 110, 90), (92, 112, 88))]
    (fixed, label), (moving, other) = (sample(random_anatomy(3), g.shape, lps_from_ras(g.affine)) for g in grids)
    masks = {"moving_mask": other > 0, "fixed_mask": label > 0}
    masks |= {"moving_ignored": other == 1, "fixed_ignored": label == 1}
    masks = {name: mask.astype(np.float32) for name, mask in masks.items()}
    found = align(moving, grids[1], fixed, grids[0], "affine", **masks)
    points = grids[0].to_points(np.argwhere(label > 1)[::50])
    assert np.linalg.norm(points @ found[:3, :3].T + found[:3, 3] - points, axis=1).max() < 1


def small_pair():
    grids = [
        Grid(s, lps_from_ras(centred_affine(s, 4.0, d))) for s, d in (((9, 8, 7), (5, 0, 9)), ((6, 9, 8), (0, 0, 3)))
    ]
    grids[1] = grids[1].centred((6, 9, 8), 3.0, (100.0, -40.0, 7.0))
    return np.random.default_rng(0).random((9, 8, 7), np.float32), grids[0], torch.rand(6, 9, 8).numpy(), grids[1]


def test_center_lays_the_centres_of_the_grids_over_each_other():
    moving, moving_grid, fixed, fixed_grid = small_pair()
    matrix = align(moving, moving_grid, fixed, fixed_grid, "center")
    assert np.array_equal(matrix[:3, :3], np.eye(3))
    assert np.allclose(fixed_grid.centre_mm + matrix[:3, 3], moving_grid.centre_mm)


@pytest.mark.parametrize("moving_shape", [(9, 8, 7), (10, 8, 5), (6, 5, 12)])
def test_center_of_parallel_grids_moves_by_whole_voxels_at_most_half_of_one_off(moving_shape):
    fixed_grid = Grid((9, 8, 7), lps_from_ras(centred_affine((9, 8, 7), 1.5, (5, 20, 9))))
    moving_grid = replace(fixed_grid, shape=moving_shape)
    image, other = (torch.rand(shape).numpy() for shape in (moving_shape, (9, 8, 7)))
    matrix = align(image, moving_grid, other, fixed_grid, "center")
    steps = moving_grid.inverse @ matrix @ fixed_grid.affine
    assert np.allclose(steps, np.rint(steps))
    off = fixed_grid.centre_mm + matrix[:3, 3] - moving_grid.centre_mm
    assert np.abs(moving_grid.inverse[:3, :3] @ off).max() <= 0.5 + 1e-9


def restored(grid, order, flips):
    """Store the voxels of a grid in another order of the axes, some of them turned around."""
    affine, shape = grid.affine.copy(), tuple(np.array(grid.shape)[list(order)])
    affine[:3, :3] = affine[:3, :3][:, list(order)]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
        affine[:3, axis] *= -1
    return Grid(shape, affine)


@pytest.mark.parametrize("moving_shape", [(9, 8, 7), (10, 7, 6), (7, 9, 12)])
@pytest.mark.parametrize("flips", [(), (0,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_center_is_the_same_in_whatever_order_either_image_stores_its_axes(order, flips, moving_shape):
    fixed = Grid((9, 8, 7), lps_from_ras(centred_affine((9, 8, 7), (1.5, 1.2, 2.0), (5, 20, 9))))
    moving = fixed.centred(moving_shape, fixed.spacing_mm, (3.0, -8.0, 20.0))
    first = align(np.zeros(moving.shape, np.float32), moving, np.zeros(fixed.shape, np.float32), fixed, "center")
    steps = moving.inverse @ first @ fixed.affine
    assert np.allclose(steps, np.rint(steps))
    for moving_grid, fixed_grid in ((restored(moving, order, flips), fixed), (moving, restored(fixed, order, flips))):
        images = (np.zeros(grid.shape, np.float32) for grid in (moving_grid, fixed_grid))
        found = align(next(images), moving_grid, next(images), fixed_grid, "center")
        assert np.allclose(found, first, atol=1e-6)


def test_none_trusts_the_headers():
    assert np.array_equal(align(*small_pair(), "none"), np.eye(4))


def test_an_unknown_kind_is_refused_with_the_kinds_there_are():
    with pytest.raises(ValueError, match="none, center, rigid, affine, not 'deformable'"):
        align(*small_pair(), "deformable")
    assert ALIGNMENTS == ("none", "center", "rigid", "affine")


def test_masks_that_leave_nothing_are_a_sentence():
    moving, moving_grid, fixed, fixed_grid = small_pair()
    with pytest.raises(ValueError, match=r"rigid pre-alignment failed .*align the images by hand first"):
        align(moving, moving_grid, fixed, fixed_grid, "rigid", fixed_mask=np.zeros_like(fixed))


# --- what the headers know, and what images of few slices have ---


def below(image, grid_ras, rows):
    """Continue a head downwards by a broad body, as bright as the head: the centre of mass lies in the body."""
    affine = grid_ras.copy()
    affine[:3, 3] -= affine[:3, 2] * rows
    longer = np.zeros((*image.shape[:2], image.shape[2] + rows), np.float32)
    longer[:, :, rows:] = image
    longer[4:-4, 8:-8, :rows] = image.max() * (0.6 + 0.1 * np.sin(np.arange(rows) / 5))
    return longer, affine


def test_right_headers_are_a_start_where_one_image_shows_far_more_than_the_other(fixed):
    wide, wide_ras = below(sample(random_anatomy(3), FIXED_SHAPE, FIXED_RAS)[0], FIXED_RAS, 90)
    found = align(wide, Grid.from_ras(wide.shape, wide_ras), fixed[0], Grid.from_ras(FIXED_SHAPE, FIXED_RAS), "affine")
    assert errors_mm(found, np.eye(4), fixed[1]).max() < 3


@pytest.mark.parametrize("slices", [2, 3, 5])
@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_a_slab_of_a_few_thick_slices_is_aligned_in_its_plane(slices, kind):
    affine = centred_affine((72, 84, slices), (2.4, 2.3, 8.0))
    shift = np.eye(4)
    shift[:2, 3] = 7, -5
    image, label = sample(random_anatomy(3), (72, 84, slices), affine)
    moved = sample(random_anatomy(3), (72, 84, slices), np.linalg.inv(shift) @ affine)[0]
    grid = Grid.from_ras(image.shape, affine)
    found = align(moved, grid, image, grid, kind)
    points = grid.to_points(np.argwhere(label > 0)[::50])
    off = points @ found[:3, :3].T + found[:3, 3] - (points + np.array([-7, 5, 0]))
    assert np.linalg.norm(off[:, :2], axis=1).mean() < 1.5


@pytest.mark.parametrize("degrees", [(0, 0, 40), (-20, 15, 20), (-45, 0, 0), (60, 0, 0)])
def test_a_turned_head_of_somebody_else_is_aligned_as_well_as_one_that_is_not_turned(fixed, degrees):
    image, label = sample(random_anatomy(4), MOVING_SHAPE, MOVING_RAS)
    middle, turn = np.eye(4), np.eye(4)
    middle[:3, 3] = (MOVING_RAS @ [*(np.array(MOVING_SHAPE) - 1) / 2, 1])[:3]
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    fixed_grid, overlaps = Grid.from_ras(FIXED_SHAPE, FIXED_RAS), []
    for ras in (MOVING_RAS, middle @ turn @ np.linalg.inv(middle) @ MOVING_RAS):
        grid = Grid.from_ras(MOVING_SHAPE, ras)
        matrix = align(image, grid, fixed[0], fixed_grid, "affine")
        transform = SpatialTransform(matrix, None, fixed_grid, fixed_grid, grid)
        warped = transform.resample(torch.from_numpy(label.astype(np.float32))[None], mode="nearest")
        overlaps.append(float(mean_dice(warped.int(), torch.from_numpy(fixed[1].astype(np.int32))[None])))
    assert overlaps[1] > overlaps[0] - 0.02


@pytest.mark.parametrize("side", [12, 16])
def test_a_crop_of_a_few_voxels_is_not_led_astray(fixed, side):
    cut = tuple(slice(start, start + side) for start in (24, 30, 22))
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = Rotation.from_rotvec(np.radians([3, -2, 4])).as_matrix(), (3, -4, 2)
    moved = sample(random_anatomy(3), FIXED_SHAPE, np.linalg.inv(turn) @ FIXED_RAS)[0][cut]
    corner = FIXED_RAS.copy()
    corner[:3, 3] = (FIXED_RAS @ [24, 30, 22, 1])[:3]
    grid = Grid.from_ras((side,) * 3, corner)
    points = grid.to_points(np.argwhere(np.ones((side,) * 3)))
    flip = np.diag([-1.0, -1, 1, 1])
    expected = points @ (flip @ turn @ flip)[:3, :3].T + (flip @ turn @ flip)[:3, 3]
    for kind in ("rigid", "affine"):
        found = align(moved, grid, fixed[0][cut], grid, kind)
        assert np.linalg.norm(points @ found[:3, :3].T + found[:3, 3] - expected, axis=1).mean() < 1.5


def test_a_search_that_ends_mirrored_leaves_the_rigid_alignment(moving, fixed, monkeypatch):
    improve = affine._Level.improve

    def mirror(level, transform, search):
        improve(level, transform, search)
        if isinstance(transform, sitk.AffineTransform):
            transform.SetMatrix(np.diag([-1.0, 1.0, 1.0]).flatten().tolist())

    monkeypatch.setattr(affine._Level, "improve", mirror)
    found = aligned(moving["affine"][0], fixed[0], "affine")
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)
