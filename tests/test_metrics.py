import math
import time

import numpy as np
import pytest
import torch
from bundle.metrics import dice_per_label, mean_dice, surface_distances
from monai.data import MetaTensor
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDistanceMetric
from scipy.spatial.distance import cdist
from tests.measured import SHAPE, blobs, boxed

SPACING = (1.2, 0.9, 2.5)


def surface_points(mask, spacing):
    """List the voxels with a face neighbour outside, in mm, by shifting the mask rather than by erosion."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(padded)
    for axis in range(3):
        inside &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return np.argwhere((padded & ~inside)[1:-1, 1:-1, 1:-1]) * np.array(spacing)


# --- Dice ---


def test_dice_of_shifted_boxes_is_their_overlap():
    warped = boxed((2, 3, 4), (4, 5, 6)) + boxed((8, 0, 0), (2, 2, 2), 7)
    fixed = boxed((3, 3, 2), (4, 5, 6)) + boxed((8, 1, 0), (2, 2, 2), 7)
    assert dice_per_label(warped, fixed) == {1: pytest.approx(3 / 4 * 4 / 6), 7: pytest.approx(1 / 2)}


def test_dice_equals_monai_where_both_maps_hold_the_label():
    warped, fixed = blobs(0), blobs(1)
    monai_dice = DiceMetric(include_background=False, num_classes=4, reduction="none")(warped, fixed)[0]
    assert list(dice_per_label(warped, fixed).values()) == pytest.approx(monai_dice.tolist(), abs=1e-6)


@pytest.mark.parametrize("absent_from", ["warped", "fixed"])
def test_a_label_absent_from_one_map_scores_zero_and_counts_in_the_mean(absent_from):
    both, one = boxed((1, 1, 1), (3, 3, 3), 2), boxed((1, 1, 1), (3, 3, 3), 2) + boxed((6, 6, 6), (2, 2, 2), 5)
    warped, fixed = (both, one) if absent_from == "warped" else (one, both)
    assert dice_per_label(warped, fixed) == {2: 1.0, 5: 0.0}
    assert mean_dice(warped, fixed) == 0.5


def test_monai_dice_drops_a_label_absent_from_the_fixed_map():
    # why DiceMetric is not used: its mean is 1 for a pair whose mean over labels in either map is 0.5
    warped = (boxed((1, 1, 1), (3, 3, 3), 1) + boxed((6, 6, 6), (2, 2, 2), 2))[None, None]
    fixed = boxed((1, 1, 1), (3, 3, 3), 1)[None, None]
    assert torch.isnan(DiceMetric(include_background=False, num_classes=3, reduction="none")(warped, fixed)[0, 1])
    assert mean_dice(warped, fixed) == 0.5


def test_named_labels_give_exactly_those_and_nan_where_both_maps_lack_one():
    warped, fixed = boxed((1, 1, 1), (3, 3, 3), 2), boxed((1, 1, 1), (3, 3, 3), 2) + boxed((6, 6, 6), (2, 2, 2), 5)
    scores = dice_per_label(warped, fixed, [900, 2])
    assert list(scores) == [900, 2]
    assert math.isnan(scores[900])
    assert scores[2] == 1.0
    assert mean_dice(warped, fixed, [900, 2]) == 1.0


def test_mean_dice_without_any_label_is_nan():
    assert math.isnan(mean_dice(torch.zeros(SHAPE), torch.zeros(SHAPE)))


def test_dice_does_not_depend_on_dtype_rank_or_metadata():
    warped, fixed = blobs(0), blobs(1)
    expected = dice_per_label(warped, fixed)
    assert dice_per_label(warped[0, 0].to(torch.uint8), fixed[0].float()) == expected
    assert dice_per_label(MetaTensor(warped.float()), MetaTensor(fixed)) == expected


@pytest.mark.parametrize("bad", [torch.full(SHAPE, 1.5), torch.full(SHAPE, -1), torch.full(SHAPE, math.nan)])
def test_a_map_that_is_not_of_whole_numbers_is_refused(bad):
    with pytest.raises(ValueError, match="whole numbers"):
        dice_per_label(bad, torch.ones(SHAPE))


@pytest.mark.parametrize("measure", [dice_per_label, lambda w, f: surface_distances(w, f, SPACING)])
def test_maps_of_different_grids_or_of_several_images_are_refused(measure):
    with pytest.raises(ValueError, match="share a grid"):
        measure(torch.ones(2, 3, 4), torch.ones(3, 2, 4))
    with pytest.raises(ValueError, match="one image"):
        measure(torch.ones(2, 1, 2, 3, 4), torch.ones(2, 1, 2, 3, 4))


def test_the_background_cannot_be_scored():
    with pytest.raises(ValueError, match="1 or more"):
        dice_per_label(torch.ones(SHAPE), torch.ones(SHAPE), [0, 1])


# --- surfaces ---


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_shifted_by_a_voxel_has_its_closed_form_distances_in_mm(axis):
    start = [3, 3, 3]
    fixed = boxed(start, (4, 4, 4), 6)
    start[axis] += 1
    measured = surface_distances(boxed(start, (4, 4, 4), 6), fixed, SPACING)[6]
    # one face is a voxel away; behind the other face 2 x 2 voxels lie inside, a voxel from the nearest wall
    step, wall = SPACING[axis], min(SPACING)
    assert measured.assd_mm == pytest.approx((16 * step + 4 * wall) / (4**3 - 2**3), rel=1e-6)
    assert measured.hd95_mm == pytest.approx(step, rel=1e-6)


def test_surface_distances_equal_brute_force_over_all_surface_voxels():
    warped, fixed = blobs(0), blobs(1)
    measured = surface_distances(warped, fixed, SPACING)
    assert list(measured) == [1, 2, 3]
    for label, (assd_mm, hd95_mm) in measured.items():
        w, f = (surface_points((m[0, 0] == label).numpy(), SPACING) for m in (warped, fixed))
        between = cdist(w, f)
        there, back = between.min(1), between.min(0)
        assert assd_mm == pytest.approx((there.mean() + back.mean()) / 2, rel=1e-6)
        assert hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-6)


def test_surface_distances_equal_monai_on_whole_images():
    one_hot = [torch.nn.functional.one_hot(blobs(seed)[0, 0], 4).permute(3, 0, 1, 2)[None].float() for seed in (0, 1)]
    directed = SurfaceDistanceMetric()
    there, back = directed(*one_hot, spacing=SPACING), directed(*one_hot[::-1], spacing=SPACING)
    hd95 = HausdorffDistanceMetric(percentile=95)(*one_hot, spacing=SPACING)
    measured = surface_distances(blobs(0), blobs(1), SPACING).values()
    assert [m.assd_mm for m in measured] == pytest.approx(((there + back) / 2)[0].tolist(), rel=1e-5)
    assert [m.hd95_mm for m in measured] == pytest.approx(hd95[0].tolist(), rel=1e-5)


def test_surface_distances_of_a_label_absent_from_one_map_are_nan():
    both, one = boxed((1, 1, 1), (3, 3, 3), 2), boxed((1, 1, 1), (3, 3, 3), 2) + boxed((6, 6, 6), (2, 2, 2), 5)
    for pair in [(both, one), (one, both)]:
        measured = surface_distances(*pair, SPACING, [5, 2, 9])
        assert list(measured) == [5, 2, 9]
        assert measured[2] == (0.0, 0.0)
        assert all(math.isnan(d) for label in (5, 9) for d in measured[label])
        assert list(surface_distances(*pair, SPACING)) == [2, 5]


def test_spacing_may_mix_whole_numbers_and_floats():
    assert surface_distances(blobs(0), blobs(1), (1, 0.5, 2)) == surface_distances(blobs(0), blobs(1), (1.0, 0.5, 2.0))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_a_spacing_that_is_not_three_positive_numbers_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing"):
        surface_distances(blobs(0), blobs(1), spacing)


# --- labels of any size ---


def test_labels_of_any_size_are_measured_as_small_ones_are():
    warped, fixed = blobs(0)[0, 0].long(), blobs(1)[0, 0].long()
    ids = torch.tensor([0, 40000, 614454277, 2**53 + 1])
    scores, distances = dice_per_label(warped, fixed), surface_distances(warped, fixed, SPACING)
    large = (ids[warped], ids[fixed])
    assert dice_per_label(*large) == {int(ids[label]): dsc for label, dsc in scores.items()}
    assert surface_distances(*large, SPACING) == {int(ids[label]): d for label, d in distances.items()}
    assert mean_dice(*large) == mean_dice(warped, fixed)
    assert dice_per_label(*large, [40000, 7])[40000] == scores[1]


def test_the_mean_over_a_label_at_every_voxel_takes_no_longer_than_a_few_labels():
    warped = torch.arange(100**3).view(100, 100, 100) * 1_000_003
    start = time.process_time()
    assert mean_dice(warped, warped.roll(1, 0)) == 0
    assert mean_dice(warped, warped) == 1
    assert time.process_time() - start < 20  # half a second; without renumbering a histogram of terabytes
