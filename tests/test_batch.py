"""A long list of pairs by the command, in one process and in two: resumed, and what fails is skipped."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from bundle.batch import BatchRegistration
from bundle.failures import PairsFailedError
from bundle.io.files import fingerprint, is_unchanged
from bundle.results import as_thresholds, bounds_of
from bundle.weights import WeightsChoice
from monai.engines import Evaluator
from torch import nn

FILES = ["--config_file", "['configs/inference.json','configs/batch_inference.json']"]


def run(cwd, *arguments, launcher=(), code=0):
    line = [sys.executable, *launcher, "-m", "monai.bundle", "run", "inferring", *FILES, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-5000:]
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
    log = run(bundle_root, *options, launcher=launcher, code=1)
    assert "error: 1 of 4 pairs failed, missing first" in log
    assert "ERROR" not in log  # of ignite's engine, once for every pair
    assert "Failed to evaluate" not in log  # MONAI's traceback, which helps nobody here
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

    write_pairs(pairs, [rows[-1]])
    options += ["--thresholds#failed#folding_percent", "[None,-1]"]
    for state in ("0 of 1", "1 of 1"):
        assert f"{state} pairs are done" in run(bundle_root, *options)
    assert json.loads((out / "last/registration.json").read_text())["judgement"]["level"] == "failed"


# --- what counts as done, and what a failure costs ---


class Registration(Evaluator):
    """Write what a ``RegistrationSaver`` writes of a pair, as far as a batch reads it; fail where told to."""

    def __init__(self, output_dir, weights, settings):
        super().__init__(torch.device("cpu"), [None], epoch_length=1)
        self.output_dir, self.weights, self.settings = output_dir, weights, settings
        self.done, self.failing, self.weights_choice, self.thresholds, self.report = [], {}, None, {}, False

    def _iteration(self, engine, batch):
        item = {key: value[0] for key, value in batch.items()}
        name = item["name"]
        if name in self.failing:
            raise RuntimeError("wrapped") from self.failing[name]
        self.done.append(name)
        folder = self.output_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        outputs = ["jacobian.nii.gz", "registration.json", "warped.nii.gz"]
        outputs += ["report.html", "thumbnail.png"] if self.report else []
        for file in outputs:
            (folder / file).touch()
        noted = {"inputs": {k: fingerprint(v) for k, v in item.items() if k != "name"}, "settings": self.settings}
        weights, correlation = self.weights, {"first": 0.9}.get(item["name"], 0.1)
        if self.weights_choice is not None:
            weights = Path(self.weights_choice.weights_for({"tissue_correlation": correlation}))
        noted |= {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "dice_after": 0.5}
        noted |= {"tissue_correlation": correlation, "outputs": outputs}
        noted["thresholds"] = as_thresholds(bounds_of(str(weights), self.thresholds, self.weights_choice))
        (folder / "registration.json").write_text(json.dumps(noted))
        return {}


@pytest.fixture
def batch(tmp_path):
    """Three pairs, and what registers those that are not done: a call returns the names of these."""
    for name in ("a.nii", "b.nii", "c.nii", "initial.tfm"):
        (tmp_path / name).write_text(f"content of {name}")
    (tmp_path / "weights.pt").write_text("weights")
    pairs = [
        {"name": name, "moving": str(tmp_path / moving), "fixed": str(tmp_path / "c.nii")}
        for name, moving in (("first", "a.nii"), ("sub/second", "b.nii"), ("sub/third", "a.nii"))
    ]
    pairs[2]["initial_transform"] = str(tmp_path / "initial.tfm")

    def run(failing=(), settings=(("affine", "rigid"),), weights_choice=None, thresholds=None, report=False):
        weights, out = tmp_path / "weights.pt", tmp_path / "out"
        evaluator = Registration(out, weights, dict(settings))
        evaluator.weights_choice = weights_choice
        evaluator.failing, evaluator.thresholds, evaluator.report = dict(failing), thresholds or {}, report
        run.failed = ""
        try:
            noted = dict(settings), weights_choice, thresholds, report
            BatchRegistration(pairs, dict, evaluator, str(out), str(weights), *noted).run()
        except PairsFailedError as error:
            run.failed = str(error)
        return evaluator.done

    run.pairs = pairs
    return run


EVERYTHING = ["first", "sub/second", "sub/third"]


def test_a_pair_whose_files_hold_the_same_content_is_done_wherever_the_list_is_read(batch, tmp_path):
    assert batch() == EVERYTHING
    assert batch() == []
    os.utime(tmp_path / "a.nii", ns=(1, 1))  # copied again, say
    (tmp_path / "elsewhere").mkdir()
    for pair in batch.pairs:
        pair["fixed"] = shutil.copy(tmp_path / "c.nii", tmp_path / "elsewhere/c.nii")
    assert batch() == []


@pytest.mark.parametrize(
    ("file", "affected"),
    [
        ("a.nii", ["first", "sub/third"]),
        ("b.nii", ["sub/second"]),
        ("c.nii", EVERYTHING),
        ("initial.tfm", ["sub/third"]),
        ("weights.pt", EVERYTHING),
    ],
)
def test_a_pair_is_registered_again_when_the_content_of_one_of_its_files_changes(batch, tmp_path, file, affected):
    batch()
    before = (tmp_path / file).stat()
    (tmp_path / file).write_text((tmp_path / file).read_text()[::-1])  # of the same length
    os.utime(tmp_path / file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert batch() == affected
    assert batch() == []


def test_a_pair_is_registered_again_with_other_settings_another_file_or_a_broken_record(batch, tmp_path):
    batch()
    assert batch(settings=[("affine", "none")]) == EVERYTHING
    batch.pairs[0]["moving_mask"] = str(tmp_path / "b.nii")
    (tmp_path / "out/sub/second/registration.json").write_text('{"inputs": ')
    (tmp_path / "out/sub/third/registration.json").write_text("[]")
    assert batch(settings=[("affine", "none")]) == EVERYTHING


@pytest.mark.parametrize("level", ["failed", "look_here"])
def test_a_pair_is_registered_again_with_other_thresholds(batch, level):
    batch()
    thresholds = {level: {"folding_percent": [None, -1]}}
    assert batch(thresholds=thresholds) == EVERYTHING
    assert batch(thresholds=thresholds) == []
    assert batch() == EVERYTHING


def test_a_pair_is_registered_again_with_other_bounds_beside_the_weights(batch, tmp_path):
    batch()
    (tmp_path / "weights.json").write_text(json.dumps({"look_here": {"aligned_share": [None, 0.5]}}))
    assert batch() == EVERYTHING
    assert batch() == []


def test_a_pair_without_the_page_that_is_asked_for_is_registered_again(batch, tmp_path):
    batch()
    assert batch(report=True) == EVERYTHING
    assert batch(report=True) == []
    assert batch() == []
    (tmp_path / "out/first/thumbnail.png").unlink()
    assert batch(report=True) == ["first"]


def test_a_pair_is_registered_again_when_one_of_its_files_is_gone(batch, tmp_path):
    batch()
    (tmp_path / "out/first/jacobian.nii.gz").unlink()
    record = tmp_path / "out/sub/second/registration.json"
    noted = json.loads(record.read_text())
    del noted["outputs"]  # as an earlier version left it
    record.write_text(json.dumps(noted))
    assert batch() == ["first", "sub/second"]


def test_a_pair_that_other_weights_registered_is_done_as_long_as_those_stay(batch, tmp_path):
    (tmp_path / "other.pt").write_text("other weights")
    described = {"across_contrasts": "other.pt", "one_contrast": 0.5, "look_here": {"aligned_share": [None, 0.5]}}
    (tmp_path / "weights.json").write_text(json.dumps(described))
    across = WeightsChoice(nn.Identity(), str(tmp_path / "weights.pt"))
    assert batch(weights_choice=across) == EVERYTHING
    assert "to do" not in (tmp_path / "out" / "batch.csv").read_text()
    assert batch(weights_choice=across) == []
    (tmp_path / "other.pt").write_text("other weights still")
    assert batch(weights_choice=across) == EVERYTHING[1:]


def test_one_bad_pair_never_ends_a_batch_whatever_is_wrong_with_it(batch, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").write_text("a file where two pairs want their folder")
    assert batch(failing={"first": ValueError("The moving holds NaN values.")}) == ["sub/second", "sub/third"]
    rows = table(tmp_path / "out")
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(EVERYTHING, "failed")
    assert rows["first"]["error"] == (tmp_path / "out/first.error.txt").read_text().strip()
    assert rows["first"]["error"] == "The moving holds NaN values."
    assert batch.failed.startswith("3 of 3 pairs failed, first first")
    index = (tmp_path / "out/index.html").read_text()
    assert "3 not registered" in index
    assert "The moving holds NaN values." in index
    assert re.search(r"sub.* is a file|sub.* exists already, and is a file", rows["sub/second"]["error"])
    (tmp_path / "out/sub").unlink()
    assert batch() == EVERYTHING
    assert not batch.failed
    rows = table(tmp_path / "out")
    assert {name: (row["state"], row["error"]) for name, row in rows.items()} == dict.fromkeys(
        EVERYTHING, ("registered", "")
    )
    assert not list((tmp_path / "out").rglob("*.error.txt"))


def test_what_is_no_bad_input_leaves_where_it_happened_below_its_reason(batch, tmp_path):
    batch(failing={"first": KeyError("image")})
    reason, *trace = (tmp_path / "out/first.error.txt").read_text().splitlines()
    assert reason == table(tmp_path / "out")["first"]["error"]
    assert "KeyError: 'image'" in trace
    assert any(line.startswith("  File ") and "test_batch.py" in line for line in trace)
    assert batch(failing={"first": ValueError("bad")}) == []
    assert (tmp_path / "out/first.error.txt").read_text() == "bad\n"


def test_a_pair_that_would_overwrite_its_own_image_is_its_own_failure(batch, tmp_path):
    image = tmp_path / "out" / "first" / "warped.nii.gz"
    image.parent.mkdir(parents=True)
    image.write_text("an image")
    batch.pairs[0]["moving"] = str(image)
    assert batch() == ["sub/second", "sub/third"]
    said = table(tmp_path / "out")["first"]["error"]
    assert said == f"The moving ({image}) would be overwritten by the output ({image}): name another place for it."
    assert image.read_text() == "an image"


def replace(path):
    """Put something else into a file."""
    path.write_text("rubbish")
    return path


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda pair, folder: replace(folder / "a.nii"), False),
        (lambda pair, folder: pair.update(moving=str(folder / "b.nii")), False),
        (lambda pair, folder: pair.update(moving_mask=str(folder / "b.nii")), False),
        (lambda pair, folder: (folder / "a.nii").unlink(), True),  # out of reach, perhaps
        (lambda pair, folder: pair.update(moving="nowhere.nii"), True),
        (lambda pair, folder: None, True),
        (lambda pair, folder: pair.update(moving=str(replace(folder / "out/first/warped.nii.gz"))), True),
    ],
)
def test_a_failed_pair_keeps_no_registration_of_other_content(batch, tmp_path, change, kept):
    batch()
    written = sorted(path.name for path in (tmp_path / "out/first").iterdir())
    (tmp_path / "out/first/notes.txt").write_text("a user's own")
    change(batch.pairs[0], tmp_path)
    batch(failing={"first": ValueError("no image")}, settings=[("affine", "none")])
    assert "pairs failed, first first" in batch.failed
    left = sorted(path.name for path in (tmp_path / "out/first").iterdir())
    assert left == (sorted([*written, "notes.txt"]) if kept else ["notes.txt"])
    assert table(tmp_path / "out")["first"]["state"] == "failed"


def test_a_failed_pair_leaves_its_reason_in_a_folder_of_its_own_name(batch, tmp_path):
    batch(failing={"sub/third": OSError("gone")})
    assert (tmp_path / "out/sub/third.error.txt").read_text() == "gone\n"
    assert {name: row["state"] for name, row in table(tmp_path / "out").items()}["sub/third"] == "failed"


def test_a_reason_with_a_name_that_is_not_in_utf8_is_left_and_the_table_written(batch, tmp_path):
    batch(failing={"first": OSError(2, "No such file", "/d/\udcff.nii.gz")})
    assert "\\udcff" in (tmp_path / "out/first.error.txt").read_text("utf-8")
    assert "\\udcff" in table(tmp_path / "out")["first"]["error"]


@pytest.fixture
def torchrun(monkeypatch):
    """The store and the environment that torchrun gives to each of two processes, anew at each call."""
    stores = []

    def start():
        stores.append(dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        launch = {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in (launch | {"MASTER_PORT": str(stores[-1].port)}).items():
            monkeypatch.setenv(name, value)

    return start


@pytest.mark.parametrize("order", [("0", "1"), ("1", "0")])
@pytest.mark.parametrize("written", [1, 2**31])
def test_under_torchrun_the_last_process_to_finish_alone_fails_for_all(
    batch, torchrun, tmp_path, monkeypatch, order, written
):
    """torchrun ends every process of a run when one of them fails; when the failure was written must not matter."""
    torchrun()
    for rank, failed in zip(order, ("", "1 of 3 pairs failed, first first"), strict=True):
        monkeypatch.setenv("RANK", rank)
        batch(failing={"first": OSError("gone")})
        assert batch.failed.startswith(failed)
        assert bool(batch.failed) is bool(failed)
        if (tmp_path / "out/first.error.txt").exists():
            os.utime(tmp_path / "out/first.error.txt", (written, written))
    torchrun()  # and nothing of that run fails the next one, which repairs it
    for rank, done in (("1", []), ("0", ["first"])):
        monkeypatch.setenv("RANK", rank)
        assert batch() == done
        assert not batch.failed


def test_on_its_own_each_process_fails_for_its_share(batch, monkeypatch):
    for rank, failed in (("0", "1 of 3 pairs failed, first first"), ("1", "")):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        batch(failing={"first": OSError("gone")})
        assert batch.failed.startswith(failed)
        assert bool(batch.failed) is bool(failed)


def test_missing_weights_end_a_batch_before_it_begins(batch, tmp_path):
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"The weights \(.*weights\.pt\) do not exist"):
        batch()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("header", "data"), [("m.mhd", "m.raw"), ("m.nhdr", "m.raw"), ("m.hdr", "m.img")])
def test_a_header_counts_together_with_the_voxels_that_lie_apart(tmp_path, header, data):
    texts = {"m.mhd": "NDims = 3\nElementDataFile = m.raw\n", "m.nhdr": "NRRD0005\ndata file: m.raw\n\n", "m.hdr": ""}
    (tmp_path / header).write_text(texts[header])
    (tmp_path / data).write_bytes(b"voxels")
    noted = fingerprint(tmp_path / header)
    assert is_unchanged(noted, tmp_path / header)
    (tmp_path / data).write_bytes(b"slexov")
    assert not is_unchanged(noted, tmp_path / header)
    (tmp_path / header).unlink()
    assert not is_unchanged(noted, tmp_path / header)
