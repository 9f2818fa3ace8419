"""Training on equal terms: what is the same for all, what is chosen, what an interrupted call does over again."""

import fcntl
import json
import shutil
import subprocess
import sys

import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.benchmark import equal_terms
from bundle.benchmark.equal_terms import NETWORKS, Terms, equal_terms_markdown, train_all
from bundle.commands.equal_terms import networks as command
from bundle.handlers import EpochTable
from bundle.io.tables import read_csv, write_csv
from ignite.engine import Engine, Events
from tests.forked import run_module

VALIDATION = {"pan_0.0001": [0.4, 0.7, 0.6], "pan_0.0004": [0.5, 0.6, 0.65]}
VALIDATION |= {"voxelmorph_0.0001": [0.3, 0.2, 0.1], "voxelmorph_0.0004": [0.1, 0.1, 0.1]}


@pytest.fixture
def trainings(monkeypatch):
    """In place of trainings: their command lines; each writes what a training leaves."""
    lines = []

    def train(line, **_):
        words = line[line.index("training") + 1 :]
        options = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2])}
        lines.append(options)
        run = equal_terms.Path(options["output_dir"])
        (run / "models").mkdir(parents=True)
        (run / "models/model.pt").write_bytes(run.name.encode())
        values = VALIDATION.get(run.name, [0.1])
        rows = [
            {"epoch": i, "steps": 10 * i, "seconds": 5.0, "validation": v, "peak_memory_mb": 900.0 + i, "parameters": 7}
            for i, v in enumerate(values, 1)
        ]
        write_csv(run / "epochs.csv", rows)
        return subprocess.CompletedProcess(line, 0)

    monkeypatch.setattr(equal_terms.subprocess, "run", train)
    return lines


def test_the_rate_that_validates_best_is_chosen_for_each_network(trainings, tmp_path):
    terms = Terms("DATA/hippocampus", epochs=3, spacing_mm=1.0, cascades=2)
    rows = train_all(terms, ["pan", "voxelmorph"], [1e-4, 4e-4], tmp_path)
    assert [(r["network"], r["learning_rate"], r["chosen"]) for r in rows] == [
        ("pan", "0.0001", "yes"),
        ("pan", "0.0004", "no"),
        ("voxelmorph", "0.0001", "yes"),
        ("voxelmorph", "0.0004", "no"),
    ]
    assert rows[0] | {"chosen": ""} == {
        "network": "pan",
        "learning_rate": "0.0001",
        "parameters": 7,
        "steps": 30,
        "seconds": 15.0,
        "seconds_a_step": 0.5,
        "peak_memory_mb": 903.0,
        "validation": 0.7,
        "best_epoch": 2,
        "chosen": "",
    }
    assert (tmp_path / "chosen/pan.pt").read_bytes() == b"pan_0.0001"
    settings = json.loads((tmp_path / "chosen/voxelmorph.json").read_text())
    assert settings["network"] == "peers/voxelmorph"
    assert (settings["spacing_mm"], settings["cascades"]) == (1.0, 2)
    assert "network" not in json.loads((tmp_path / "chosen/pan.json").read_text())
    assert (tmp_path / "equal_terms.md").read_text() == equal_terms_markdown(rows)
    assert "| pan | 0.0001 | 7 | 30 | 15 | 0.50 | 903 | 0.700 | 2 | yes |" in equal_terms_markdown(rows)
    assert [row["chosen"] for row in read_csv(tmp_path / "equal_terms.csv")] == ["yes", "no", "yes", "no"]


def test_all_networks_are_trained_by_the_same_options(trainings, tmp_path):
    terms = Terms("DATA/hippocampus", epochs=1, spatial_size=(32, 48, 32), seed=3)
    train_all(terms, list(NETWORKS), [1e-4], tmp_path)
    own = [{k: v for k, v in line.items() if k not in ("config_file", "output_dir")} for line in trainings]
    assert len(own) == len(NETWORKS)
    assert all(options == own[0] for options in own)
    assert own[0]["spatial_size"] == "[32, 48, 32]"
    assert own[0]["patience"] == own[0]["epochs"] == "1"  # nobody ends early
    assert "roi_size" not in own[0]
    assert len({line["config_file"] for line in trainings}) == len(NETWORKS)


def test_a_training_is_told_its_folders_so_that_monai_reads_them_as_they_stand(trainings, tmp_path):
    train_all(Terms("DATA/a#1", epochs=1), ["pan"], [1e-4], tmp_path)
    assert trainings[0]["dataset_dir"] == "$'DATA/a\\x231'"


def test_finished_runs_are_looked_up_and_others_go_on(trainings, tmp_path):
    terms = Terms("DATA/hippocampus", epochs=3)
    train_all(terms, ["pan"], [1e-4, 4e-4], tmp_path)
    assert len(trainings) == 2
    rows = train_all(terms, ["pan"], [1e-4, 4e-4], tmp_path)
    assert len(trainings) == 2
    assert [row["chosen"] for row in rows] == ["yes", "no"]


def test_runs_of_an_earlier_call_are_chosen_among_too(trainings, tmp_path):
    terms = Terms("DATA/hippocampus", epochs=3)
    train_all(terms, ["pan", "voxelmorph"], [1e-4], tmp_path)
    for other in ("pan_old", "pan_0.0004 copy", "pan_4e-4", "pan_nan"):
        shutil.copytree(tmp_path / "pan_0.0001", tmp_path / other)
    rows = train_all(terms, ["pan"], [4e-4], tmp_path)
    found = [("pan", "0.0001", "yes"), ("pan", "0.0004", "no"), ("voxelmorph", "0.0001", "yes")]
    assert [(row["network"], row["learning_rate"], row["chosen"]) for row in rows] == found
    assert [row["chosen"] for row in read_csv(tmp_path / "equal_terms.csv")] == ["yes", "no", "yes"]
    assert (tmp_path / "chosen/pan.pt").read_bytes() == b"pan_0.0001"


def test_a_run_that_is_still_being_trained_is_left_alone(tmp_path):
    run = tmp_path / "pan_0.0001"
    run.mkdir()
    with (run / "log.txt").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        training = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log)
    with training, pytest.raises(ValueError, match=r"Another process trains in .*pan_0.0001: wait for it"):
        train_all(Terms("DATA"), ["pan"], [1e-4], tmp_path)  # what started that training is gone


def test_runs_on_other_terms_are_not_mixed(trainings, tmp_path):
    train_all(Terms("DATA/hippocampus", epochs=3), ["pan"], [1e-4], tmp_path)
    with pytest.raises(ValueError, match=r"holds runs on other terms, seed \(was 0, now 1\): choose"):
        train_all(Terms("DATA/hippocampus", epochs=3, seed=1), ["pan"], [1e-4], tmp_path)
    train_all(Terms("DATA/hippocampus", epochs=3, threads=2), ["pan"], [1e-4], tmp_path)  # changes no result


def test_runs_of_other_images_or_of_another_version_are_not_mixed(trainings, small_dataset, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(small_dataset, data)
    options = {"dataset": str(data), "networks": "pan", "learning_rates": [1e-4], "epochs": 3, "threads": 1}
    command(**options, output_dir=str(out))
    command(**options, output_dir=str(out))
    chosen = (out / "chosen/pan.json").read_text()
    listing = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(listing | {"training": listing["training"][:2]}))
    with pytest.raises(ValueError, match=r"other terms, images \(was 3 and 2 whose .*, now 2 and 2 whose .*: choose"):
        command(**options, output_dir=str(out))
    (data / "dataset.json").write_text(json.dumps(listing | {"validation": []}))  # training images are held out
    with pytest.raises(ValueError, match=r"other terms, images \(was 3 and 2 whose .*, now 3 and 0 whose"):
        command(**options, output_dir=str(out))
    (data / "dataset.json").write_text(json.dumps(listing))
    terms = json.loads((out / "terms.json").read_text())
    (out / "terms.json").write_text(json.dumps(terms | {"version": "0.0.1"}))
    with pytest.raises(ValueError, match=r"other terms, version \(was 0.0.1, now \d"):
        command(**options, output_dir=str(out))
    assert len(trainings) == 1
    assert (out / "chosen/pan.json").read_text() == chosen


def test_runs_whose_terms_name_no_images_are_taken_with_a_sentence(trainings, tmp_path, capsys):
    train_all(Terms("DATA", epochs=3), ["pan"], [1e-4], tmp_path)
    before = json.loads((tmp_path / "terms.json").read_text())
    early = {key: value for key, value in before.items() if key not in ("images", "version")}
    (tmp_path / "terms.json").write_text(json.dumps(early))
    for said in (True, False):
        train_all(Terms("DATA", epochs=3, images="3 images"), ["pan"], [1e-4], tmp_path)
        sentence = "terms.json does not say images, version: its runs count as runs on those of now."
        assert (sentence in capsys.readouterr().out) == said
    assert len(trainings) == 1


def voxels(path, sides):
    image = sitk.ReadImage(str(path))
    image.SetSpacing(sides)
    sitk.WriteImage(image, str(path))


def test_images_without_voxels_of_one_side_are_refused_before_any_training(trainings, small_dataset, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small_dataset, data)
    options = {"dataset": str(data), "networks": "pan", "learning_rates": [1e-4], "epochs": 3}
    for sides, shown in (((2.0, 2.0, 2.0), "2×2×2"), ((1.0, 1.0, 3.0), "1×1×3")):
        voxels(data / "images/phantom_001.nii.gz", sides)
        with pytest.raises(ValueError, match=rf"phantom_001.nii.gz has voxels of {shown} mm, .* prepare --spacing_mm"):
            command(**options, output_dir=str(tmp_path / "out"))
    assert not trainings


def test_networks_are_trained_on_explicit_pairs(trainings, small_dataset, tmp_path):
    images = [str(small_dataset / f"images/phantom_00{i}.nii.gz") for i in range(3)]
    pairs = [{"moving": images[0], "fixed": images[1]}, {"moving": images[1], "fixed": images[2]}]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": pairs[:1], "validation": pairs[1:]}))
    command(str(tmp_path), str(tmp_path / "out"), "pan", [1e-4], epochs=3)
    assert json.loads((tmp_path / "out/chosen/pan.json").read_text())["spacing_mm"] == 5.0


def test_a_training_that_fails_is_named_with_its_last_words(monkeypatch, tmp_path):
    def fail(line, stdout, **_):
        stdout.write("reading\nerror: no images\n")
        return subprocess.CompletedProcess(line, 1)

    monkeypatch.setattr(equal_terms.subprocess, "run", fail)
    with pytest.raises(ValueError, match=r"The training of pan failed \(error: no images\): see .*log.txt"):
        train_all(Terms("DATA"), ["pan"], [1e-4], tmp_path)
    assert not (tmp_path / "equal_terms.csv").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"networks": "pan,unet"}, "--networks takes some of pan,voxelmorph,dual-prnet,vit-v-net,transmorph"),
        ({"networks": "pan,pan"}, "each once"),
        ({"learning_rates": [2.0]}, "--learning_rates takes numbers between 0 and 1"),
        ({"epochs": 0}, "--epochs takes a whole number"),
        ({"mask_probability": 2}, "--mask_probability is a share, from 0 to 1, not 2"),
        ({"spatial_size": [32, 48]}, "--spatial_size takes three sides"),
        ({"dataset": "missing"}, "There is no missing/dataset.json"),
    ],
)
def test_bad_input_is_refused_before_any_work(small_dataset, tmp_path, wrong, sentence):
    with pytest.raises((ValueError, OSError), match=sentence):
        command(**{"dataset": str(small_dataset), "output_dir": str(tmp_path / "out")} | wrong)
    assert not (tmp_path / "out").exists()


def test_an_epoch_is_a_row_and_one_that_is_done_again_replaces_its_own(tmp_path):
    validator = Engine(lambda *_: None)
    validator.state.metrics, validator.state.key_metric_name = {"dice": 0.5}, "dice"

    def train(epochs, interval=1):
        engine = Engine(lambda *_: None)
        engine.network, engine.state.device = torch.nn.Linear(3, 2), torch.device("cpu")
        engine.add_event_handler(
            Events.EPOCH_COMPLETED(every=interval), lambda: setattr(validator.state, "epoch", engine.state.epoch)
        )
        EpochTable(str(tmp_path), validator).attach(engine)
        engine.run([0, 1, 2], max_epochs=epochs)

    train(3)
    validator.state.metrics["dice"] = 0.75
    train(2)  # anew
    rows = read_csv(tmp_path / "epochs.csv")
    assert [(row["epoch"], row["steps"], float(row["validation"])) for row in rows] == [
        ("1", "3", 0.75),
        ("2", "6", 0.75),
    ]
    assert {row["parameters"] for row in rows} == {"8"}
    assert all(float(row["seconds"]) > 0 and float(row["peak_memory_mb"]) > 50 for row in rows)
    train(4, interval=2)
    assert [row["validation"] for row in read_csv(tmp_path / "epochs.csv")] == ["nan", "0.750000"] * 2


@pytest.mark.slow
def test_the_command_trains_goes_on_and_hands_weights_to_the_comparison(bundle_root, small_dataset, tmp_path):
    def run(*arguments):
        done = run_module("bundle", "benchmark", *arguments, cwd=bundle_root)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    options = ["--dataset", small_dataset, "--threads", 1]
    training = ["networks", *options, "--networks", "voxelmorph", "--learning_rates", "1e-3", "--val_pairs", 1]
    run(*training, "--output_dir", tmp_path / "runs", "--epochs", 1)
    with pytest.raises(AssertionError, match="other terms"):
        run(*training, "--output_dir", tmp_path / "runs", "--epochs", 1, "--seed", 1)
    comparison = ["--methods", "voxelmorph", "--peer_weights", tmp_path / "runs/chosen", "--pairs", 1]
    run("accuracy", *options, *comparison, "--affine", "center", "--output_dir", tmp_path / "out")
    (row,) = read_csv(tmp_path / "out/pairs.csv")
    assert 0 < float(row["dsc"]) < 1
    assert float(row["ndv_percent"]) >= 0
