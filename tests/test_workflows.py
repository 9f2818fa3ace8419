"""The commands every MONAI user knows, in processes of their own; the last test starts an interpreter, as users do."""

import csv
import json
import os
import re
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from bundle.networks import PAN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.forked import run_module


def run(command, cwd, *arguments, processes=0):
    if processes:
        done = launched(processes, command, cwd, *arguments)
    else:
        done = run_module("monai.bundle", "run", *command, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout


def launched(processes, command, cwd, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    line += ["-m", "monai.bundle", "run", *command, *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, env=environment, timeout=400)


def config(*names):
    files = [f"configs/{name}.json" for name in names]
    return ["--config_file", files[0] if len(files) == 1 else str(files)]


@pytest.fixture(scope="module")
def trained(bundle_root, small_dataset, tmp_path_factory):
    """One epoch of training by the command, as it stands."""
    output = tmp_path_factory.mktemp("trained")
    options = ["--dataset_dir", small_dataset, "--output_dir", output, "--epochs", 1, "--val_pairs", 2]
    log = run(["training"], bundle_root, *config("train"), *options)
    return output, options, log


def test_training_writes_the_weights_of_the_network_and_validates_by_dice(trained):
    output, _, log = trained
    state = torch.load(output / "models/model.pt", weights_only=True)
    assert sum(tensor.numel() for tensor in state.values()) == 3_567_759
    assert "val_mean_dice" in log


@pytest.mark.slow
def test_training_keeps_the_best_weights_by_validation_dice(bundle_root, small_dataset, fresh_weights, tmp_path):
    """The first epoch leaves the weights as they were, the second spoils them."""
    rate = {
        "_target_": "torch.optim.lr_scheduler.LambdaLR",
        "optimizer": "@optimizer",
        "lr_lambda": "$lambda epoch: float(epoch > 0)",
    }
    (tmp_path / "rate.json").write_text(json.dumps({"lr_scheduler": rate}))
    files = ["--config_file", str(["configs/train.json", str(tmp_path / "rate.json")])]
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path, "--pretrained", fresh_weights]
    run(["training"], bundle_root, *files, *options, "--epochs", 2, "--val_pairs", 1, "--learning_rate", 0.02)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    first, second = (scalar.value for scalar in events.Scalars("val_mean_dice"))
    assert second < first
    start, best = (torch.load(path, weights_only=True) for path in (fresh_weights, tmp_path / "models/model.pt"))
    last = torch.load(tmp_path / "models/resume_checkpoint_epoch=2.pt", weights_only=True)["network"]
    assert best.keys() == start.keys()
    assert all(torch.equal(best[name], start[name]) for name in start)
    assert any(not torch.equal(last[name], start[name]) for name in start)


def test_training_leaves_scalars_and_pictures_for_tensorboard(trained):
    events = EventAccumulator(str(trained[0] / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    scalars = {"train_loss", "train_mean_loss", "learning_rate", "val_mean_dice", "val_folding_percent"}
    assert scalars <= set(tags["scalars"])
    assert tags["images"]
    losses = [scalar.value for scalar in events.Scalars("train_loss")]
    assert [scalar.value for scalar in events.Scalars("train_mean_loss")] == [pytest.approx(np.mean(losses))]
    assert [scalar.value for scalar in events.Scalars("learning_rate")] == [pytest.approx(1e-4)]


def test_a_plateau_of_the_mean_training_loss_lowers_the_rate(bundle_root, small_dataset, tmp_path):
    plateau = "{'_target_': 'torch.optim.lr_scheduler.ReduceLROnPlateau', 'optimizer': '@optimizer', "
    plateau += "'patience': 0, 'threshold': 10.0, 'threshold_mode': 'abs'}"  # no epoch is so much better
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path, "--val_pairs", 1, "--lr_scheduler", plateau]
    for epochs in (2, 3):  # the second call goes on where the first one was
        run(["training"], bundle_root, *config("train"), *options, "--epochs", epochs)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rates = [scalar.value for scalar in events.Scalars("learning_rate")]
    assert rates == [pytest.approx(rate) for rate in (1e-4, 1e-4, 1e-5)]
    kept = torch.load(tmp_path / "models/resume_checkpoint_epoch=3.pt", weights_only=True)["lr_scheduler"]
    losses = [scalar.value for scalar in events.Scalars("train_mean_loss")]
    assert kept["best"] == pytest.approx(losses[0])


@pytest.mark.slow
def test_training_goes_on_where_it_stopped_and_ends_as_one_without_a_break(bundle_root, trained, tmp_path):
    output, options, _ = trained
    best = (output / "models/model.pt").read_bytes()
    before = torch.load(output / "models/resume_checkpoint_epoch=1.pt", weights_only=True)
    # three steps from the identity change no label, and an equal score is no better one
    log = run(["training"], bundle_root, *config("train"), *options, "--epochs", 2)
    assert "resuming from iteration 0, epoch 1 until 2 epochs" in log
    assert [path.name for path in (output / "models").glob("*=*")] == ["resume_checkpoint_epoch=2.pt"]
    assert (output / "models/model.pt").read_bytes() == best
    after = torch.load(output / "models/resume_checkpoint_epoch=2.pt", weights_only=True)
    assert (after["early_stopping"]["counter"], after["early_stopping"]["best_metric_epoch"]) == (1, 1)
    changed = [name for name in after["network"] if not torch.equal(after["network"][name], before["network"][name])]
    assert len(changed) > 10
    run(["training"], bundle_root, *config("train"), *options, "--epochs", 2, "--output_dir", tmp_path)
    whole = torch.load(tmp_path / "models/resume_checkpoint_epoch=2.pt", weights_only=True)
    for name, weights in whole["network"].items():
        torch.testing.assert_close(after["network"][name], weights, rtol=0, atol=0)


@pytest.mark.slow
def test_training_goes_on_with_the_settings_it_began_with_alone(bundle_root, trained, tmp_path):
    output, options, _ = trained
    files = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    line = ["run", "training", *config("train"), *options, "--epochs", 3, "--learning_rate", 1e-3, "--seed", 5]
    done = run_module("monai.bundle", *line, cwd=bundle_root)
    assert done.returncode != 0
    sentence = done.stderr.strip().splitlines()[-1]
    assert "another learning_rate (was 0.0001, now 0.001), seed (was 0, now 5)" in sentence
    assert "another --output_dir" in sentence
    assert files == {path: path.stat().st_mtime_ns for path in output.rglob("*")}


@pytest.mark.slow
def test_another_network_trains_and_evaluates_by_the_same_configs(bundle_root, small_dataset, tmp_path):
    own = {
        "network_def": {
            "_target_": "bundle.networks.peers.VoxelMorph",
            "channels": [4, 4, 4, 4],
            "unet_out_channels": 4,
            "final_conv_channels": [4],
        }
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path / "out"]
    run(["training"], bundle_root, *config("train", "peers/voxelmorph"), *options, "--epochs", 1, "--val_pairs", 1)
    weights = tmp_path / "out/models/model.pt"
    assert "network.backbone" in next(iter(torch.load(weights, weights_only=True)))
    files = config("train", "evaluate", "peers/voxelmorph")
    run(["evaluating"], bundle_root, *files, *options, "--ckpt", weights, "--affine", "center", "--pairs", 1)
    row = next(csv.DictReader((tmp_path / "out/pairs.csv").open()))
    assert float(row["folding_percent"]) < 1
    files = ["--config_file", str(["configs/train.json", str(tmp_path / "own.json")])]
    run(["training"], bundle_root, *files, *options, "--output_dir", tmp_path / "own", "--epochs", 1, "--val_pairs", 1)
    assert len(torch.load(tmp_path / "own/models/model.pt", weights_only=True)) > 0


@pytest.mark.slow
def test_any_contrast_trains_two_steps_and_keeps_the_average_of_the_weights(
    bundle_root, small_dataset, shifting_weights, tmp_path
):
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path, "--pretrained", shifting_weights]
    options += [
        "--epochs",
        1,
        "--steps_per_epoch",
        2,
        "--val_interval",
        1,
        "--val_pairs",
        1,
        "--average_momentum",
        0.25,
    ]
    options += ["--rescan_share", 0.5]
    run(["training"], bundle_root, *config("train", "any_contrast"), *options)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [scalar.value for scalar in events.Scalars("train_loss")]
    assert len(losses) == 2
    assert all(abs(loss) < 10 for loss in losses)
    files = {"average": "average_model_epoch=1.pt", "best": "model.pt", "resume": "resume_checkpoint_epoch=1.pt"}
    found = {k: torch.load(tmp_path / "models" / name, weights_only=k != "resume") for k, name in files.items()}
    start, last = torch.load(shifting_weights, weights_only=True), found["resume"]["network"]
    name = next(name for name in start if not torch.equal(start[name], last[name]))
    drift = {k: (found[k][name] - start[name]).norm() for k in ("average", "best")}
    assert 0 < drift["average"] < (last[name] - start[name]).norm()  # between the first weights and the last
    assert drift["average"] == drift["best"]
    log = run(["training"], bundle_root, *config("train", "any_contrast"), *options, "--epochs", 2)
    assert "resuming from iteration 0, epoch 1 until 2 epochs" in log
    left = sorted(path.name for path in (tmp_path / "models").glob("*=*"))
    assert left == ["average_model_epoch=2.pt", "resume_checkpoint_epoch=2.pt"]
    whole = tmp_path / "whole"
    run(["training"], bundle_root, *config("train", "any_contrast"), *options, "--epochs", 2, "--output_dir", whole)
    one, other = (
        torch.load(folder / "models/average_model_epoch=2.pt", weights_only=True) for folder in (tmp_path, whole)
    )
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


@pytest.mark.slow
def test_training_runs_from_another_folder(bundle_root, small_dataset, tmp_path):
    file = bundle_root / "configs/train.json"
    options = ["--bundle_root", bundle_root, "--dataset_dir", small_dataset, "--output_dir", tmp_path / "out"]
    run(["--config_file", file], tmp_path, *options, "--epochs", 1, "--val_pairs", 1)
    assert (tmp_path / "out/models/model.pt").is_file()


@pytest.mark.slow
def test_two_processes_train_and_evaluate_together(bundle_root, small_dataset, tmp_path):
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path]
    files = config("train", "multi_gpu_train")
    run(["training"], bundle_root, *files, *options, "--epochs", 1, "--val_pairs", 2, processes=2)
    weights = tmp_path / "models/model.pt"
    assert all(not name.startswith("module.") for name in torch.load(weights, weights_only=True))
    files = config("train", "evaluate", "multi_gpu_evaluate")
    options += ["--ckpt", weights, "--affine", "none", "--surfaces", False]
    run(["evaluating"], bundle_root, *files, *options, processes=2)
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert len({row["pair"] for row in rows}) == len(rows) == 2
    assert not list(tmp_path.glob("pairs.*.csv"))


@pytest.mark.slow
def test_more_processes_than_pairs_train_and_evaluate_together(bundle_root, small_dataset, tmp_path):
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path]
    files = config("train", "multi_gpu_train")
    run(["training"], bundle_root, *files, *options, "--epochs", 1, "--val_pairs", 1, processes=2)
    files = config("train", "evaluate", "multi_gpu_evaluate")
    options += ["--ckpt", tmp_path / "models/model.pt", "--affine", "none", "--surfaces", False, "--pairs", 1]
    run(["evaluating"], bundle_root, *files, *options, processes=2)
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert len(rows) == 1
    assert float(rows[0]["dice_after"]) > 0


@pytest.mark.slow
def test_several_processes_train_as_the_other_configs_say(bundle_root, small_dataset, shifting_weights, tmp_path):
    options = ["--dataset_dir", small_dataset, "--pretrained", shifting_weights, "--epochs", 1, "--val_pairs", 2]
    start = torch.load(shifting_weights, weights_only=True)
    files = config("train", "any_contrast", "multi_gpu_train")
    steps = ["--steps_per_epoch", 2, "--val_interval", 1, "--average_momentum", 0.25]
    run(["training"], bundle_root, *files, *options, *steps, "--output_dir", tmp_path / "any", processes=2)
    average = torch.load(tmp_path / "any/models/model.pt", weights_only=True)
    assert any(not torch.equal(average[name], start[name]) for name in start)
    files = config("train", "finetune", "multi_gpu_train")
    run(["training"], bundle_root, *files, *options, "--output_dir", tmp_path / "finetuned", processes=1)
    events = EventAccumulator(str(tmp_path / "finetuned/tensorboard"))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("val_mean_dice")] == [0, 1]  # the start, too
    assert [picture.step for picture in events.Images(events.Tags()["images"][0])] == [0, 1]
    files = config("train", "equal_terms", "multi_gpu_train")
    run(["training"], bundle_root, *files, *options, "--output_dir", tmp_path / "equal", processes=2)
    assert len(list(csv.DictReader((tmp_path / "equal/epochs.csv").open()))) == 1


@pytest.mark.slow
def test_imitation_of_several_networks_or_processes_is_refused(bundle_root, small_dataset, shifting_weights, tmp_path):
    options = ["--dataset_dir", small_dataset, "--pretrained", shifting_weights, "--output_dir", tmp_path]
    sentence = "the encoder of one PAN in one process: leave out --cascades"
    files = "train", "any_contrast", "imitation"
    done = run_module("monai.bundle", "run", "training", *config(*files), *options, "--cascades", 2, cwd=bundle_root)
    assert done.returncode != 0
    assert sentence in done.stderr.strip().splitlines()[-1]
    done = launched(2, ["training"], bundle_root, *config(*files, "multi_gpu_train"), *options)
    assert done.returncode != 0
    assert f"error: Imitation trains {sentence}" in done.stderr


def test_evaluating_tabulates_pairs_and_summary(bundle_root, small_dataset, fresh_weights, tmp_path):
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path, "--ckpt", fresh_weights, "--affine", "center"]
    log = run(["evaluating"], bundle_root, *config("train", "evaluate"), *options)
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert [row["pair"] for row in rows] == ["phantom_005_to_phantom_006", "phantom_006_to_phantom_005"]
    summary = {row["measure"]: float(row["mean"]) for row in csv.DictReader((tmp_path / "summary.csv").open())}
    assert summary["dice_after"] == pytest.approx(sum(float(row["dice_after"]) for row in rows) / 2, abs=1e-5)
    assert summary["dice_after"] == pytest.approx(summary["dice_aligned"], abs=1e-3)  # a fresh network is the identity
    assert {"assd_mm", "hd95_mm", "folding_percent", "log_jacobian_sd"} <= summary.keys()
    assert "dice_after" in log


def test_evaluating_passes_over_a_pair_that_cannot_be_read_and_says_so_in_the_end(
    bundle_root, small_dataset, fresh_weights, tmp_path
):
    listing = json.loads((small_dataset / "dataset.json").read_text())
    one, other = (str(small_dataset / item["image"]) for item in listing["test"])
    (tmp_path / "damaged.nii.gz").write_bytes(b"no image")
    damaged, again = ({"moving": image, "fixed": str(tmp_path / "damaged.nii.gz")} for image in (one, other))
    whole = [{"moving": one, "fixed": other}, {"moving": other, "fixed": one}]
    options = ["--dataset_dir", tmp_path, "--ckpt", fresh_weights, "--affine", "center", "--surfaces", False]
    options += ["--output_dir", tmp_path / "out"]
    for listed, measured in (([*whole[:1], damaged, *whole[1:], again], 2), ([damaged], 0)):
        (tmp_path / "dataset.json").write_text(json.dumps({"test": listed}))
        done = run_module("monai.bundle", "run", "evaluating", *config("train", "evaluate"), *options, cwd=bundle_root)
        failed = len(listed) - measured
        assert done.returncode != 0
        last = done.stderr.strip().splitlines()[-1]
        count = f"{failed} of {len(listed)} pairs failed" if measured else "All 1 pairs failed"
        assert last.startswith(f"error: {count}, phantom_005_to_damaged first (The fixed (")
        assert "Traceback" not in done.stderr + done.stdout
        rows = list(csv.DictReader((tmp_path / "out/pairs.csv").open()))
        assert [bool(row["error"]) for row in rows] == [False] * measured + [True] * failed
        assert (tmp_path / "out/summary.csv").is_file() == (tmp_path / "out/metrics.csv").is_file() == bool(measured)


def test_evaluating_needs_no_labels_and_heeds_the_masks_of_listed_pairs(
    bundle_root, small_dataset, shifting_weights, tmp_path
):
    listing = json.loads((small_dataset / "dataset.json").read_text())
    one, other = ({k: str(small_dataset / v) for k, v in item.items()} for item in listing["test"])
    plain = {"moving": one["image"], "fixed": other["image"]}
    labelled = plain | {"moving_label": one["label"], "fixed_label": other["label"]}
    lesion = nibabel.load(other["label"])
    mask = np.zeros(lesion.shape, np.uint8)
    mask[14:20, 16:24, 12:18] = 1
    nibabel.save(nibabel.Nifti1Image(mask, lesion.affine), tmp_path / "lesion.nii.gz")
    masked = labelled | {"fixed_cost_mask": str(tmp_path / "lesion.nii.gz")}
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [plain, labelled, masked]}))
    options = ["--dataset_dir", tmp_path, "--output_dir", tmp_path / "out", "--ckpt", shifting_weights]
    log = run(["evaluating"], bundle_root, *config("train", "evaluate"), *options, "--affine", "none")
    assert "validation goes by similarity (val_local_ncc), since some images have no labels" in log
    rows = list(csv.DictReader((tmp_path / "out/pairs.csv").open()))
    assert [bool(row["dice_after"]) for row in rows] == [False, True, True]
    assert rows[0]["similarity_after"] == rows[1]["similarity_after"] != rows[2]["similarity_after"]
    summary = {row["measure"]: row for row in csv.DictReader((tmp_path / "out/summary.csv").open())}
    assert [summary[k]["pairs"] for k in ("similarity_after", "dice_after", "hd95_mm")] == ["3", "2", "2"]


def test_inferring_registers_every_pair_of_a_list(bundle_root, small_dataset, fresh_weights, tmp_path):
    listing = json.loads((small_dataset / "dataset.json").read_text())
    absolute = {k: str(small_dataset / v) for k, v in listing["training"][0].items()}
    other = {k: str(small_dataset / v) for k, v in listing["training"][1].items()}
    pairs = [
        {"moving": absolute["image"], "fixed": other["image"], "moving_label": absolute["label"]},
        {"moving": other["image"], "fixed": absolute["image"]},
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": pairs}))
    options = [
        "--dataset_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "out",
        "--ckpt",
        fresh_weights,
        "--affine",
        "center",
    ]
    run(["inferring"], bundle_root, *config("inference"), *options)
    first, second = tmp_path / "out/phantom_000_to_phantom_001", tmp_path / "out/phantom_001_to_phantom_000"
    written = {"warped.nii.gz", "displacement.nii.gz", "transform.h5", "registration.json", "overview.png"}
    written |= {"report.html", "thumbnail.png"}
    assert {path.name for path in first.iterdir()} == written | {"warped_label.nii.gz"}
    assert {path.name for path in second.iterdir()} == written


def test_a_training_that_diverges_ends_at_its_first_validation(bundle_root, small_dataset, tmp_path):
    weights = tmp_path / "diverged.pt"
    torch.save({name: torch.full_like(value, torch.nan) for name, value in PAN().state_dict().items()}, weights)
    line = ["monai.bundle", "run", "training", *config("train"), "--dataset_dir", small_dataset]
    line += ["--output_dir", tmp_path / "out", "--pretrained", weights, "--epochs", 1, "--val_pairs", 2]
    done = run_module(*line, cwd=bundle_root)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith("Train anew with a lower --learning_rate, or with --amp False.")
    assert not (tmp_path / "out" / "models" / "model.pt").exists()


def test_a_training_whose_numbers_stay_finite_as_it_diverges_ends_so_and_keeps_no_weights(
    bundle_root, small_dataset, tmp_path
):
    line = ["monai.bundle", "run", "training", *config("train"), "--dataset_dir", small_dataset, "--repeats", 3]
    line += ["--output_dir", tmp_path / "out", "--learning_rate", 1e6, "--epochs", 1, "--val_pairs", 2]
    done = run_module(*line, cwd=bundle_root)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: The training has diverged: the fields that it finds move 100% of each image")
    assert last.endswith("Begin anew with a lower --learning_rate and another --output_dir.")
    assert "Traceback" not in done.stderr
    assert "best metric" not in done.stdout + done.stderr
    assert not [*(tmp_path / "out" / "models").iterdir()]


@pytest.mark.parametrize(
    ("command", "names", "options", "sentence"),
    [
        ("training", ["train"], ["--dataset_dir", "/nowhere"], "There is no /nowhere/dataset.json"),
        ("training", ["train"], ["--pretrained", "/nowhere.pt"], "The weights (/nowhere.pt) do not exist"),
        ("evaluating", ["train", "evaluate"], ["--dataset_dir", "/nowhere"], "There is no /nowhere/dataset.json"),
        ("evaluating", ["train", "evaluate"], ["--ckpt", "/nowhere.pt"], "The weights (/nowhere.pt) do not exist"),
        ("inferring", ["inference"], ["--ckpt", "/nowhere.pt"], "The weights (/nowhere.pt) do not exist"),
        ("inferring", ["inference", "batch_inference"], ["--pairs_file", "/nowhere.csv"], "/nowhere.csv"),
        ("infering", ["inference"], [], "did you mean inferring?"),
    ],
)
def test_what_cannot_be_used_ends_a_command_in_one_sentence(
    bundle_root, small_dataset, tmp_path, command, names, options, sentence
):
    if {"--dataset_dir", "--pairs_file"}.isdisjoint(options):
        options = ["--dataset_dir", small_dataset, *options]
    options = [*config(*names), *options, "--output_dir", tmp_path / "out"]
    done = run_module("monai.bundle", "run", command, *options, cwd=bundle_root)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    assert re.findall("^error: .*", done.stderr, re.M) == [done.stderr.splitlines()[-1]]
    assert sentence in done.stderr.splitlines()[-1]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("command", "names"), [("inferring", ["inference"]), ("training", ["train", "finetune"])], ids=["infer", "finetune"]
)
def test_a_config_that_is_run_from_elsewhere_says_how_to_name_the_bundle(
    bundle_root, small_dataset, tmp_path, command, names
):
    files = str([str(bundle_root / "configs" / f"{name}.json") for name in names])
    options = ["--config_file", files, "--dataset_dir", small_dataset]
    done = run_module("monai.bundle", "run", command, *options, cwd=tmp_path)
    assert done.returncode != 0
    said = f"error: The weights (./models/model.pt) do not exist, as this is no bundle: add --bundle_root {bundle_root}"
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_another_networks_weights_are_refused_in_one_sentence(bundle_root, small_dataset, tmp_path):
    weights = tmp_path / "other.pt"
    torch.save({"layer.weight": torch.zeros(2, 2)}, weights)
    line = [sys.executable, "-m", "monai.bundle", "run", "inferring", *config("inference")]
    line += ["--dataset_dir", str(small_dataset), "--output_dir", str(tmp_path / "out"), "--ckpt", str(weights)]
    done = subprocess.run(line, cwd=bundle_root, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "belong to another network" in done.stderr
    assert not list((tmp_path / "out").glob("*"))
