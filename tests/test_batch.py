"""A long list of pairs by the command, in one process and in two: resumed, and what fails is skipped."""

import csv
import json
import os
import subprocess
import sys

import pytest
from bundle.data import read_pairs

FILES = ["--config_file", "['configs/inference.json','configs/batch_inference.json']"]


def run(cwd, *arguments, launcher=()):
    line = [sys.executable, *launcher, "-m", "monai.bundle", "run", "inferring", *FILES, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


def table(folder):
    return {row["pair"]: row for row in csv.DictReader((folder / "batch.csv").open())}


def write_pairs(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "moving", "fixed", "moving_label"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def rows(small_dataset):
    images = [str(small_dataset / f"images/phantom_00{i}.nii.gz") for i in range(3)]
    label = str(small_dataset / "labels/phantom_000.nii.gz")
    return [
        {"moving": images[0], "fixed": images[1], "moving_label": label},
        {"moving": images[1], "fixed": images[2]},
        {"name": "missing", "moving": "nowhere.nii.gz", "fixed": images[2]},
        {"name": "last", "moving": images[2], "fixed": images[0]},
    ]


@pytest.mark.slow
def test_two_processes_share_a_list_and_a_later_run_does_only_what_is_left(bundle_root, rows, fresh_weights, tmp_path):
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out"
    write_pairs(pairs, rows)
    options = ["--pairs_file", pairs, "--output_dir", out, "--ckpt", fresh_weights, "--affine", "center"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    log = run(bundle_root, *options, launcher=launcher)
    states = {name: row["state"] for name, row in table(out).items()}
    first, second = "phantom_000_to_phantom_001", "phantom_001_to_phantom_002"
    assert states == {first: "registered", second: "registered", "last": "registered", "missing": "failed"}
    assert "nowhere.nii.gz) does not exist" in table(out)["missing"]["error"]
    assert "skipped missing: The moving" in log
    assert (out / first / "warped_label.nii.gz").is_file()

    kept = (out / "last/registration.json").stat().st_mtime_ns
    (out / second / "warped.nii.gz").unlink()  # as if the run had been stopped there
    write_pairs(pairs, [row | {"moving": rows[0]["moving"]} if row.get("name") == "missing" else row for row in rows])
    log = run(bundle_root, *options)
    assert "2 of 4 pairs are done already" in log
    assert {row["state"] for row in table(out).values()} == {"registered"}
    assert not (out / "missing.error.txt").exists()
    assert (out / "last/registration.json").stat().st_mtime_ns == kept


def test_a_list_is_csv_or_json_with_paths_relative_to_it(tmp_path):
    (tmp_path / "pairs.json").write_text(json.dumps([{"moving": "a.nii.gz", "fixed": "b/c.nii.gz", "name": "mine"}]))
    (tmp_path / "pairs.csv").write_text("moving,fixed,moving_label\na.nii.gz,b/c.nii.gz,\n")
    (pair,) = read_pairs(str(tmp_path / "pairs.json"))
    assert pair == {"moving": str(tmp_path / "a.nii.gz"), "fixed": str(tmp_path / "b/c.nii.gz"), "name": "mine"}
    assert read_pairs(str(tmp_path / "pairs.csv")) == [pair | {"name": "a_to_c"}]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("moving,target\na,b\n", "Row 1 of .* needs a moving and a fixed image"),
        ("moving,fixed,name\na,b,one\na,c,one\n", "Two pairs of .* are called 'one'"),
        ("", "A pair takes two images"),
    ],
)
def test_a_list_of_another_form_is_refused_in_one_sentence(tmp_path, text, sentence):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_pairs(str(tmp_path / "pairs.csv"))
