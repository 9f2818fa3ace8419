import csv
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import monai
import numpy as np
import pytest
import SimpleITK
import torch
from bundle.fields import identity_grid, warp
from bundle.metrics import (
    DiceHandler,
    FoldingHandler,
    RegistrationDice,
    RegistrationFolding,
    dice_per_label,
    folding_percent,
    log_jacobian_sd,
    mean_dice,
    surface_distances,
    tre_mm,
)
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import MetricsSaver, from_engine
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDistanceMetric
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

SHAPE = (11, 13, 9)
SPACING = (1.2, 0.9, 2.5)


def blobs(seed, sigma=1.5):
    """Labels 1 to 3 as contiguous bands of smooth noise, reaching the border of the image."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), sigma)
    return torch.from_numpy(np.digitize(noise, np.quantile(noise, [0.4, 0.6, 0.8]))).view(1, 1, *SHAPE)


def boxed(start, size, label=1, shape=(12, 10, 14)):
    """Draw one box."""
    image = torch.zeros(shape)
    image[tuple(slice(a, a + n) for a, n in zip(start, size))] = label
    return image


def surface_points(mask, spacing):
    """List the voxels with a face neighbour outside, in mm, by shifting the mask rather than by erosion."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(padded)
    for axis in range(3):
        inside &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return np.argwhere((padded & ~inside)[1:-1, 1:-1, 1:-1]) * np.array(spacing)


def random_field(seed, shape=(9, 12, 7), amplitude=1.0):
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    smooth = np.stack([gaussian_filter(c, 1.2) for c in noise])
    return torch.from_numpy(smooth / smooth.std() * amplitude).unsqueeze(0)


def line_field(values, shape=(8, 5, 6)):
    """Move along axis 0 only, by a value for each index of that axis."""
    ddf = torch.zeros(1, 3, *shape, dtype=torch.float64)
    ddf[0, 0] = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
    return ddf


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


# --- fields ---


def test_folding_counts_exactly_the_voxels_folded_by_hand():
    ddf = torch.zeros(1, 3, 8, 5, 6)
    ddf[0, 0, 4, 2, 3] = -2  # det 0 at index 3, 2 at index 5
    ddf[0, 1, 1, 3, 1] = -3  # det -0.5 at index 2 of axis 1, 2.5 beyond its end
    ddf[0, 2, 6, 1, 1] = -1  # at the border the difference is one-sided: det 0 at index 0 of axis 2
    assert folding_percent(ddf) == pytest.approx(100 * 3 / (8 * 5 * 6))


def test_folding_counts_inside_the_mask_only():
    ddf = torch.zeros(1, 3, 8, 5, 6)
    ddf[0, 0, 4, 2, 3] = -2
    mask = torch.zeros(8, 5, 6)
    mask[3, 2, :4] = 1
    assert folding_percent(ddf, mask) == 25.0
    assert folding_percent(ddf, 1 - mask[None, None]) == 0.0
    assert math.isnan(folding_percent(ddf, torch.zeros(8, 5, 6)))


def test_folding_agrees_with_itk_on_an_anisotropic_grid():
    ddf = random_field(0, amplitude=1.6)
    det = itk_determinant(ddf, SPACING)
    inside = torch.zeros(ddf.shape[2:])
    inside[1:-1, 1:-1, 1:-1] = 1
    assert 2 < folding_percent(ddf, inside) < 98
    assert folding_percent(ddf, inside) == pytest.approx(100 * (det <= 0).mean())
    assert log_jacobian_sd(ddf, inside) == pytest.approx(np.log(det[det > 0]).std(), rel=1e-6)


def itk_determinant(ddf, spacing):
    """Compute the interior determinant with ITK, from the field in mm on a grid with spacing."""
    mm = ddf[0].numpy() * np.array(spacing).reshape(3, 1, 1, 1)
    image = SimpleITK.GetImageFromArray(mm.transpose(3, 2, 1, 0), isVector=True)  # ITK's x is our axis 0
    image.SetSpacing(spacing)
    det = SimpleITK.GetArrayFromImage(SimpleITK.DisplacementFieldJacobianDeterminant(image))
    return det.transpose(2, 1, 0)[1:-1, 1:-1, 1:-1]


def test_a_field_of_nan_is_folded_everywhere():
    ddf = torch.full((1, 3, 4, 5, 6), math.nan)
    assert folding_percent(ddf) == 100.0
    assert math.isnan(log_jacobian_sd(ddf))


def test_a_half_precision_field_is_measured_in_float32():
    ddf = random_field(1).half()
    assert log_jacobian_sd(ddf) == log_jacobian_sd(ddf.float())
    assert log_jacobian_sd(ddf) != log_jacobian_sd(random_field(1))


def test_log_jacobian_sd_of_any_scaling_is_zero():
    for factor in (0.3, 1.0, 2.5):
        ddf = (factor - 1) * identity_grid(torch.zeros(1, 3, 5, 7, 4))
        assert log_jacobian_sd(ddf) == pytest.approx(0, abs=1e-6)


def test_log_jacobian_sd_of_a_stretch_beside_rest_is_its_closed_form():
    ddf = line_field([0, 0, 0, 0, 1, 2, 3, 4])  # det 1 four times, 1.5 at the kink (index 3), 2 four times
    det = np.array([1, 1, 1, 1.5, 2, 2, 2, 2])
    assert log_jacobian_sd(ddf) == pytest.approx(np.log(det).std(), rel=1e-9)


def test_log_jacobian_sd_leaves_out_folded_voxels():
    ddf = line_field([0, 0, 0, -3, 0, 0, 0, 0])  # det -0.5 at index 2, 2.5 at index 4, else 1
    assert log_jacobian_sd(ddf) == pytest.approx(np.log([1, 1, 1, 2.5, 1, 1, 1]).std(), rel=1e-9)


def test_fields_of_several_pairs_and_masks_of_other_grids_are_refused():
    with pytest.raises(ValueError, match="one pair"):
        folding_percent(torch.zeros(2, 3, 4, 5, 6))
    with pytest.raises(ValueError, match="mask"):
        log_jacobian_sd(torch.zeros(1, 3, 4, 5, 6), torch.ones(5, 4, 6))


# --- landmarks ---


def test_tre_is_the_distance_of_each_landmark_to_its_own_target():
    fixed = np.array([[10.0, -20.0, 30.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    warped = fixed + np.array([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    assert tre_mm(warped, fixed).tolist() == pytest.approx([5.0, 0.0, 3.0])
    assert tre_mm(torch.from_numpy(warped), fixed[::-1]).tolist() != pytest.approx([5.0, 0.0, 3.0])


@pytest.mark.parametrize(("warped", "fixed"), [((4, 3), (3, 3)), ((3,), (3,)), ((3, 4), (3, 4)), ((1, 3), (3,))])
def test_landmarks_of_mismatching_shapes_are_refused(warped, fixed):
    with pytest.raises(ValueError, match="Landmarks"):
        tre_mm(np.zeros(warped), np.zeros(fixed))


# --- in an engine ---


def pairs():
    """Return three pairs that fold and fit differently: image is the field, label is moving beside fixed labels."""
    items = []
    for shift, folds in [(0, 0), (1, 1), (2, 5)]:
        ddf = torch.zeros(3, 8, 9, 10)
        ddf[1] = shift  # moves the whole image along axis 1
        ddf[0, 4, :folds, 0] = -2  # a fold each
        moving, fixed = (boxed((2, 2, 2), (4, 4, 4), 3, (8, 9, 10)) for _ in range(2))
        items.append({"image": ddf, "label": torch.stack([moving, fixed])})
    return items


def warp_labels(item):
    """Split a decollated output into what the handlers take."""
    moving, fixed = item["label"][:1], item["label"][1:]
    item["ddf"] = item["pred"]
    item["warped_label"] = warp(moving[None], item["pred"][None], "nearest")[0]
    item["fixed_label"] = fixed
    return item


def evaluate(tmp_path, decollate=True, **dice):
    """Run a toy network (it hands the field through) over three pairs in batches of two and one."""
    overlap = DiceHandler(from_engine(["warped_label", "fixed_label"]), **dice)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=torch.utils.data.DataLoader(pairs(), batch_size=2),
        network=torch.nn.Identity(),
        postprocessing=warp_labels if decollate else None,
        key_val_metric={"val_folding": FoldingHandler(from_engine(["ddf" if decollate else "pred"]))},
        additional_metrics={"val_mean_dice": overlap} if decollate else None,
        val_handlers=[
            MetricsSaver(str(tmp_path), "*", "*", batch_transform=lambda b: [{"filename_or_obj": "p"} for _ in b])
        ],
        decollate=decollate,
    )
    evaluator.run()
    return evaluator.state


def expected_rows():
    outputs = [warp_labels({**item, "pred": item["image"]}) for item in pairs()]
    dice = [mean_dice(o["warped_label"], o["fixed_label"]) for o in outputs]
    return dice, [folding_percent(o["ddf"][None]) for o in outputs]


def test_handlers_report_the_mean_over_pairs_and_keep_a_row_for_each(tmp_path):
    state = evaluate(tmp_path)
    dice, folding = expected_rows()
    assert dice == pytest.approx([1, 0.75, 0.5], abs=0.1)
    assert folding == pytest.approx([0, 100 / 720, 500 / 720])
    assert state.metrics["val_mean_dice"] == pytest.approx(np.mean(dice))
    assert state.metrics["val_folding"] == pytest.approx(np.mean(folding))
    assert state.metric_details["val_mean_dice"].tolist() == [pytest.approx([d]) for d in dice]
    assert state.metric_details["val_folding"].tolist() == [pytest.approx([f]) for f in folding]


def test_metrics_saver_writes_a_row_for_each_pair(tmp_path):
    evaluate(tmp_path)
    for name, expected in zip(["val_mean_dice", "val_folding"], expected_rows(), strict=True):
        rows = list(csv.reader((tmp_path / f"{name}_raw.csv").open()))[1:]
        assert [float(row[1]) for row in rows] == pytest.approx(expected, abs=1e-4)


def test_dice_handler_with_labels_keeps_a_column_for_each(tmp_path):
    state = evaluate(tmp_path, labels=[3, 8])
    dice, _ = expected_rows()
    assert state.metrics["val_mean_dice"] == pytest.approx(np.mean(dice))
    details = state.metric_details["val_mean_dice"]
    assert details[:, 0].tolist() == pytest.approx(dice)
    assert details[:, 1].isnan().all()


def test_folding_handler_takes_batches_that_are_not_decollated(tmp_path):
    assert evaluate(tmp_path, decollate=False).metrics["val_folding"] == pytest.approx(np.mean(expected_rows()[1]))


def test_metrics_give_the_same_for_a_batch_and_a_list():
    warped, fixed = torch.cat([blobs(0), blobs(1)]), torch.cat([blobs(2), blobs(3)])
    batch, listed = RegistrationDice(), RegistrationDice()
    batch(warped, fixed)
    listed([MetaTensor(w) for w in warped], list(fixed))
    assert batch.aggregate() == listed.aggregate()
    assert batch.aggregate().item() == pytest.approx(
        (mean_dice(blobs(0), blobs(2)) + mean_dice(blobs(1), blobs(3))) / 2
    )
    fields = torch.cat([random_field(0, amplitude=2.0), random_field(1)])
    rows = RegistrationFolding()(MetaTensor(fields))
    assert rows.shape == (2, 1)
    assert rows[0] > rows[1]
    assert torch.equal(rows, RegistrationFolding()(list(fields)))


def test_a_pair_without_labels_does_not_enter_the_mean():
    metric = RegistrationDice()
    metric([blobs(0)[0], torch.zeros(1, *SHAPE)], [blobs(1)[0], torch.zeros(1, *SHAPE)])
    assert metric.aggregate().item() == pytest.approx(mean_dice(blobs(0), blobs(1)))


def test_metrics_refuse_to_aggregate_nothing_and_batches_that_disagree():
    with pytest.raises(ValueError, match="RegistrationDice has seen no pair"):
        RegistrationDice().aggregate()
    with pytest.raises(ValueError, match="agree"):
        RegistrationDice()(torch.ones(2, 1, *SHAPE), torch.ones(1, 1, *SHAPE))


def test_handlers_are_made_from_a_config():
    parser = ConfigParser(
        {
            "dice": {
                "_target_": "bundle.metrics.DiceHandler",
                "output_transform": "$monai.handlers.from_engine(['warped_label', 'fixed_label'])",
                "labels": [1, 2],
            },
            "folding": {
                "_target_": "bundle.metrics.FoldingHandler",
                "output_transform": "$monai.handlers.from_engine(['ddf'])",
            },
        },
        globals={"monai": monai},
    )
    assert isinstance(parser.get_parsed_content("dice"), DiceHandler)
    assert isinstance(parser.get_parsed_content("folding"), FoldingHandler)
    assert parser.get_parsed_content("dice").metric_fn.labels == [1, 2]


TWO_RANKS = """
import sys, torch
from bundle.metrics import RegistrationDice

def measure(rank):
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
    metric = RegistrationDice()
    for kept in [[0, 4], [2]][rank]:  # voxels of four that keep their label; the others take label 2
        warped = torch.where(torch.arange(4) < kept, 1, 2).view(1, 1, 1, 4)
        metric([warped], [torch.ones(1, 1, 1, 4)])
    print(f"{metric.aggregate():.6f} {len(metric)}\\n", end="", flush=True)
    torch.distributed.destroy_process_group()

torch.multiprocessing.start_processes(measure, nprocs=2, start_method="fork")
"""


@pytest.mark.slow
def test_two_processes_with_unequal_shares_both_report_the_mean_over_all_pairs(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", TWO_RANKS, str(tmp_path / "meet")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    # mean over labels: none kept 0, all kept 1, half kept (2/3 + 0) / 2
    assert run.stdout.split() == [f"{(0 + 1 + 1 / 3) / 3:.6f}", "3"] * 2


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
    start = time.perf_counter()
    assert mean_dice(warped, warped.roll(1, 0)) == 0
    assert mean_dice(warped, warped) == 1
    assert time.perf_counter() - start < 20  # half a second; without renumbering a histogram of terabytes
