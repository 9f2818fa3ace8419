"""Measures in an engine, over pairs and processes."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import monai
import numpy as np
import pytest
import torch
from bundle.fields import warp
from bundle.metrics import (
    DiceHandler,
    FoldingHandler,
    RegistrationDice,
    RegistrationFolding,
    RegistrationSimilarity,
    dice_per_label,
    folding_percent,
    key_metric,
    log_jacobian_sd,
    mean_dice,
    surface_distances,
)
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import MetricsSaver, from_engine
from tests.configs import load
from tests.devices import CPU, GPU, PretendedDevices, placed
from tests.measured import SHAPE, blobs, boxed, random_field


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


def test_pairs_count_alike_however_many_of_the_labels_they_hold():
    metric = RegistrationDice([1, 2])
    one, both = (torch.tensor(values).view(1, 1, 1, 4) for values in ([1, 1, 1, 0], [1, 1, 2, 2]))
    metric([one, both], [one, torch.where(both == 2, 0, both)])  # 1 and none; 1 and 0
    assert metric.aggregate().item() == pytest.approx((1 + 1 / 2) / 2)


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


ON_ONE_DEVICE = {
    "Dice": lambda warped, fixed: RegistrationDice()(warped, fixed),
    "Dice of labels": lambda warped, fixed: RegistrationDice([1, 2])(warped, fixed),
    "similarity": lambda warped, fixed: RegistrationSimilarity()(warped / 9, fixed / 9),
    "Dice of one pair": lambda warped, fixed: dice_per_label(warped[0], fixed[0]),
    "large labels": lambda warped, fixed: dice_per_label(warped[0].long() << 22, fixed[0].long() << 22),
    "surfaces": lambda warped, fixed: surface_distances(warped[0], fixed[0], (1.0, 2.0, 3.0)),
    "folding": lambda warped, mask: folding_percent(warped.expand(1, 3, *SHAPE), mask),
    "log Jacobian": lambda warped, mask: log_jacobian_sd(warped.expand(1, 3, *SHAPE), mask),
}


@pytest.mark.parametrize("measured", ON_ONE_DEVICE)
@pytest.mark.parametrize("places", [(GPU, CPU), (CPU, GPU)])
def test_what_lies_on_two_devices_is_measured_as_on_one(measured, places):
    measure = ON_ONE_DEVICE[measured]
    expected = measure(blobs(0).float(), blobs(1).float())
    with PretendedDevices():
        found = measure(*(placed(blobs(i).float(), place) for i, place in enumerate(places)))
        where = found.device if isinstance(found, torch.Tensor) else None
    assert where in (None, places[0])
    assert torch.equal(found, expected) if where else found == expected


class Found(torch.nn.Module):
    """A network that finds the same field, of some device, for every pair."""

    def forward(self, image):
        ddf = placed(random_field(0, SHAPE).float(), GPU)
        return torch.cat([image[:, :1], ddf], 1)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_training_on_a_gpu_validates(bundle_root, labelled):
    """MONAI's evaluator moves image and label alone to the device."""
    moving, fixed = blobs(0)[0], blobs(1)[0]
    image = torch.cat([moving, fixed]) / 3
    item = {"image": image, "label": image[1:], "moving": image[:1], "fixed": image[1:]}
    item |= {"moving_label": moving, "fixed_label": fixed} if labelled else {}
    with PretendedDevices():
        evaluator = SupervisedEvaluator(
            device=GPU,
            val_data_loader=torch.utils.data.DataLoader([item], batch_size=1),
            network=Found(),
            postprocessing=load(bundle_root, ["train"]).get_parsed_content("validate#postprocessing"),
            key_val_metric=key_metric([item]),
            additional_metrics={"val_folding_percent": FoldingHandler(from_engine(["ddf"]))},
        )
        evaluator.run()
    assert evaluator.state.output[0]["ddf"]._place == GPU
    assert set(evaluator.state.metrics) == {"val_mean_dice" if labelled else "val_local_ncc", "val_folding_percent"}


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
