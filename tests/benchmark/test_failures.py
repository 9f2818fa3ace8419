"""What fails in a comparison is one row, and what cannot be compared is refused before any work."""

import json
import multiprocessing
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from bundle.__main__ import main
from bundle.benchmark import worker
from bundle.benchmark.accuracy import compare
from bundle.benchmark.curve import CURVES
from bundle.benchmark.measure import Common
from bundle.benchmark.methods import Linear
from bundle.benchmark.tables import markdown, summarise
from bundle.commands.benchmark import accuracy as run
from bundle.commands.benchmark import benchmark as commands
from bundle.failures import PairsFailedError
from bundle.io.tables import read_csv
from tests import forked

COMMON = Common(affine="center", spacing_mm=5.0)


class Failing(Linear):
    """A method that cannot do one of the pairs."""

    def load(self):
        def register(image, grid):
            raise RuntimeError("no field was found")

        return register


class Crashing(Linear):
    """A method that takes its process with it."""

    def load(self):
        import os

        os._exit(9)


@pytest.mark.slow
def test_a_method_that_fails_is_a_row_and_left_out_of_the_means(pairs, tmp_path, monkeypatch):
    contexts = iter([multiprocessing.get_context("spawn"), forked.context(), forked.context()])
    monkeypatch.setattr(worker, "get_context", lambda _: next(contexts))  # the first process as users have it
    methods = {"affine": Linear(), "demons": Failing(), "bombs": Crashing()}
    rows = compare(pairs[:1], methods, Common("center", spacing_mm=5.0), tmp_path)
    assert [row.get("error", "") for row in rows] == [
        "",
        "RuntimeError: no field was found",
        "the process ended with exit code 9: out of memory, perhaps",
    ]
    summary = summarise(rows)
    assert [(line["pairs"], line["failed"]) for line in summary] == [(1, 0), (0, 1), (0, 1)]
    assert np.isnan(summary[1]["dsc_mean"])
    assert "left out of the means: demons on 1, bombs on 1 pairs" in markdown(summary)
    assert not list(tmp_path.glob("*.demons.*"))  # tried again by the next run


def test_a_pair_that_cannot_be_aligned_fails_for_all_methods(pairs, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no overlap")

    monkeypatch.setattr(Common, "read", refuse)
    rows = compare(pairs[:1], {"identity": Linear(False), "affine": Linear()}, COMMON, tmp_path)
    assert [row["error"] for row in rows] == ["ValueError: no overlap"] * 2


@pytest.mark.parametrize("command", ["accuracy", "curve"])
def test_a_comparison_of_which_every_pair_fails_ends_in_a_sentence_and_leaves_nothing_of_an_earlier_one(
    command, options, small_dataset, tmp_path
):
    stale = "regions.csv", "boxplot.png", "dsc_against_time.png", "examples.png"
    for name in stale:
        (tmp_path / name).touch()
    (tmp_path / "damaged.nii.gz").write_bytes(b"no image")
    item = json.loads((small_dataset / "dataset.json").read_text())["test"][0]
    whole = {key: str(small_dataset / path) for key, path in item.items()}
    listed = [whole, whole | {"image": str(tmp_path / "damaged.nii.gz")}]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": listed}))
    chosen = {key: options[key] for key in ("affine", "weights", "threads")} | {"methods": "pan"}
    kinds = 1 if command == "accuracy" else len(CURVES["pan"][0])
    sentence = rf"{2 * kinds} of {2 * kinds} registrations failed, pan.* first \(.*damaged\.nii\.gz"
    with pytest.raises(PairsFailedError, match=sentence) as failure:
        commands[command](str(tmp_path), str(tmp_path), split="test", pairs=None, **chosen)
    assert str(failure.value).endswith("); none is left to compare. The next call tries them again.")
    if command == "accuracy":
        assert len(read_csv(tmp_path / "pairs.csv")) == 2
        assert not any((tmp_path / name).exists() for name in stale)


def test_masking_by_a_label_map_without_labels_is_refused_in_a_sentence(pairs, tmp_path):
    label = nibabel.load(pairs[0]["fixed_label"])
    nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), tmp_path / "empty.nii.gz")
    pair = pairs[0] | {"fixed_label": str(tmp_path / "empty.nii.gz")}
    with pytest.raises(ValueError, match=r"The fixed label \(.*empty\.nii\.gz\) holds no label, zeros alone"):
        replace(COMMON, masked=True).read(pair)


@pytest.mark.parametrize("command", ["curve", "verdicts", "expected_error"])
def test_voxels_of_no_size_are_refused_by_every_benchmark(command, small_dataset, tmp_path):
    foreign = {"foreign": str(small_dataset)} if command == "verdicts" else {}
    with pytest.raises(ValueError, match="--spacing_mm must be above 0 mm, not 0"):
        commands[command](str(small_dataset), output_dir=str(tmp_path / "out"), spacing_mm=0, **foreign)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"methods": "pan,demons"}, "--methods takes some of identity,"),
        ({"pairs": 0}, "--pairs takes a whole number from 1 up, not '0'"),
        ({"optimise": 0}, "--optimise takes"),
        ({"affine": "similarity"}, "--affine is one of"),
        ({"device": "tpu"}, "--device is one of"),
        ({"label_interpolation": "linear"}, "--label_interpolation is one of nearest,"),
        ({"syn_iterations": 40}, "--syn_iterations takes three"),
        ({"methods": "voxelmorph"}, "needs --voxelmorph_weights"),
        ({"weights": "missing.pt"}, "missing.pt.* do not exist"),
        ({"dataset": "missing"}, "There is no missing/dataset.json"),
        ({"spacing_mm": 0}, "--spacing_mm must be above 0 mm, not 0"),
        ({"spacing_mm": -1}, "--spacing_mm must be above 0 mm, not -1"),
        ({"spacing_mm": "thin"}, "spacing_mm takes a number, not 'thin'"),
    ],
)
def test_bad_input_is_refused_before_any_work(options, tmp_path, wrong, sentence):
    with pytest.raises((ValueError, OSError), match=sentence):
        run(**(options | wrong), output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["accuracy", "lesions", "verdicts"])
@pytest.mark.parametrize("key", ["moving_mask", "fixed_cost_mask", "initial_transform"])
def test_pairs_with_what_benchmarks_do_not_read_are_refused(command, key, small_dataset, tmp_path):
    pair = {"moving": "images/phantom_000.nii.gz", "fixed": "images/phantom_001.nii.gz", key: "extra.nii.gz"}
    listed = {k: str(small_dataset / v) if k in ("moving", "fixed") else v for k, v in pair.items()}
    (tmp_path / "extra.nii.gz").touch()
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [listed]}))
    foreign = {"foreign": str(small_dataset)} if command == "verdicts" else {}
    with pytest.raises(ValueError, match=rf"reads images, labels and landmarks alone, .* has '{key}': list it without"):
        commands[command](str(tmp_path), output_dir=str(tmp_path / "out"), split="test", **foreign)


def test_images_without_labels_are_refused(options, small_dataset, tmp_path):
    listing = json.loads((small_dataset / "dataset.json").read_text())
    bare = [{"image": str(small_dataset / item["image"])} for item in listing["test"]]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": bare}))
    with pytest.raises(ValueError, match="needs a label map for every image"):
        run(**(options | {"dataset": str(tmp_path)}), output_dir=str(tmp_path / "out"))


def test_the_accuracy_command_says_in_one_sentence_what_is_wrong(monkeypatch, capsys, small_dataset, tmp_path):
    words = ["bundle", "benchmark", "accuracy", "--dataset", str(small_dataset), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*words, "--methods", "pan-optimised,demons"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: --methods takes some of ")
