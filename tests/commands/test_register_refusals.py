"""Bad input of register and apply: one sentence, an exit code, and nothing left behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.__main__ import bad_input, main
from bundle.commands.apply import apply
from bundle.commands.register import register
from bundle.networks import PAN
from bundle.phantom import centred_affine

ROOT = Path(__file__).parents[2]


def save(array, affine, path):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return str(path)


def sentence_of(call):
    """Run what must fail as the command line does, and return its sentence."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 MONAI wraps what a transform raises
        call()
    sentence = bad_input(caught.value)
    assert sentence
    assert "\n" not in sentence
    return sentence


def other_network(folder):
    torch.save(PAN(channels=(8, 16, 32, 64, 128)).state_dict(), folder / "other.pt")
    return str(folder / "other.pt")


def text(folder, name):
    (folder / name).write_text("nothing of the kind")
    return str(folder / name)


def on_other_grid(folder):
    shape, affine = (20, 24, 18), centred_affine((20, 24, 18), 8.0)
    return save(np.ones(shape, np.uint8), affine, folder / "label.nii.gz")


def far_away(folder):
    affine = centred_affine((20, 24, 18), 8.0)
    affine[:3, 3] += 5000
    return save(np.random.default_rng(0).random((20, 24, 18), np.float32), affine, folder / "far.nii.gz")


BAD = {
    "missing image": (lambda d: {"moving": str(d / "none.nii.gz")}, r"The moving \(.*\) does not exist"),
    "broken image": (lambda d: {"fixed": text(d, "t.nii.gz")}, "The fixed .* cannot be read as a NIfTI"),
    "missing label": (lambda d: {"fixed_label": str(d / "none.nii.gz")}, r"The fixed label \(.*\) does not exist"),
    "label elsewhere": (lambda d: {"moving_label": on_other_grid(d)}, "resample one to the other's grid"),
    "no overlap": (lambda d: {"moving": far_away(d)}, "share no physical space"),
    "missing weights": (lambda d: {"weights": str(d / "none.pt")}, r"The weights \(.*\) do not exist"),
    "broken weights": (lambda d: {"weights": text(d, "t.pt")}, "cannot be read as a PyTorch state dict"),
    "other weights": (lambda d: {"weights": other_network(d)}, r"belong to another network: \d+ parameters differ"),
    "missing initial": (lambda d: {"initial_transform": str(d / "none.h5")}, "The transform .* does not exist"),
    "affine": (lambda d: {"affine": "bspline"}, "--affine is one of none, center, rigid, affine"),
    "device": (lambda d: {"device": "tpu"}, "--device is one of auto, cpu, cuda"),
    "spacing": (lambda d: {"spacing_mm": -2}, "--spacing_mm must be above 0 mm, not -2"),
    "beyond float32": (lambda d: {"fill": -1e39}, r"--fill must lie within ±3\.4e38, .* not -1e\+39"),
    "no spacing": (lambda d: {"spacing_mm": 0}, "--spacing_mm must be above 0 mm, not 0"),
    "far too fine": (lambda d: {"spacing_mm": 0.1}, r"A grid of 1680×1920×1584 voxels \(5109 million\).* 613 GB"),
    "finer than numbers": (lambda d: {"spacing_mm": 1e-320}, "A grid of inf.* give a larger spacing_mm"),
    "no number of steps": (lambda d: {"optimise": "many"}, "--optimise takes a whole number of steps from 0 up"),
    "similarity of no optimisation": (lambda d: {"similarity": "mind"}, "goes by: give --optimise, 25 say, too"),
    "similarity": (lambda d: {"similarity": "mi"}, "--similarity is one of ncc, mind, not 'mi'"),
    "no number": (lambda d: {"spacing_mm": "fine"}, "--spacing_mm takes millimetres, not 'fine'"),
    "output is a file": (lambda d: {"output_dir": text(d, "out")}, r"The output \(.*out\) is a file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_input_is_a_sentence_and_leaves_nothing_behind(pair, weights, tmp_path, kind):
    change, words = BAD[kind]
    inputs = {"moving": pair["moving"], "fixed": pair["fixed"], "weights": weights, "affine": "none", "device": "cpu"}
    inputs |= {"output_dir": str(tmp_path / "results" / "out")} | change(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert re.search(words, sentence_of(lambda: register(**inputs)))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not (tmp_path / "results").exists()


def test_a_disk_that_fills_up_leaves_no_half_written_result(pair, weights, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundle.results.write_transform", full)  # the images are written by then
    inputs = {"moving": pair["moving"], "fixed": pair["fixed"], "weights": weights, "affine": "none", "device": "cpu"}
    said = sentence_of(lambda: register(**inputs, output_dir=str(tmp_path / "out"), spacing_mm=9))
    assert said.startswith(f"The file or folder ({tmp_path / 'out'}) could not be written, as the disk")
    assert "is full: free some of it, or write elsewhere" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [1, 4])
def test_a_summary_is_there_only_where_all_that_it_names_is_of_its_run(pair, weights, tmp_path, monkeypatch, left):
    inputs = {"moving": pair["moving"], "fixed": pair["fixed"], "weights": weights, "affine": "none", "device": "cpu"}
    register(**inputs, output_dir=str(tmp_path / "out"), spacing_mm=9)
    assert (tmp_path / "out" / "registration.json").is_file()
    moved, before = [], len(list((tmp_path / "out").iterdir())) - left

    def pull_the_plug(source, target):
        if len(moved) == before:
            raise OSError(5, "Input/output error")
        moved.append(Path(target).name)
        replace(source, target)

    replace = os.replace
    monkeypatch.setattr("bundle.results.os.replace", pull_the_plug)
    sentence_of(lambda: register(**inputs, output_dir=str(tmp_path / "out"), spacing_mm=9))
    assert len(moved) == before
    assert not (tmp_path / "out" / "registration.json").exists()


@pytest.fixture
def transform(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("transform") / "t.h5")
    sitk.WriteTransform(sitk.AffineTransform(3), path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: {"transform": str(d / "none.h5")}, "The transform .* does not exist"),
        (lambda d: {"moving": str(d / "none.nii.gz")}, "The moving image .* does not exist"),
        (lambda d: {"fill": 1e39}, r"--fill must lie within ±3\.4e38"),
        (lambda d: {"output": str(d / "new" / "warped.png")}, r"must end in \.nii\.gz"),
        (
            lambda d: {"interpolation": "cubic"},
            "--interpolation is one of linear, bspline, nearest, label_gaussian, not 'cubic'",
        ),
    ],
)
def test_a_bad_input_of_apply_is_a_sentence_and_writes_nothing(transform, pair, tmp_path, change, words):
    inputs = {"transform": transform, "moving": pair["moving"], "fixed": pair["fixed"]}
    inputs |= {"output": str(tmp_path / "new" / "warped.nii.gz")} | change(tmp_path)
    assert re.search(words, sentence_of(lambda: apply(**inputs)))
    assert list(tmp_path.iterdir()) == []


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "bundle", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_ends_a_missing_file_in_one_line(pair, weights, tmp_path):
    done = command(
        *("register", "--moving", "missing.nii.gz", "--fixed", pair["fixed"], "--weights", weights),
        *("--output_dir", "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: The moving (")
    assert done.stderr.count("\n") == 1
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_ends_weights_of_another_network_in_one_line(pair, tmp_path, monkeypatch, capsys):
    arguments = ["register", "--moving", pair["moving"], "--fixed", pair["fixed"], "--output_dir", tmp_path / "out"]
    arguments += ["--weights", other_network(tmp_path), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["bundle", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    stderr = capsys.readouterr().err
    assert caught.value.code == 2
    assert stderr.startswith("error: The weights (")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_command_prints_the_commands_there_are(tmp_path):
    done = command("regsiter", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m bundle {register,apply,")
    assert done.stderr.count("\n") == 1


def test_weights_that_diverged_are_named_and_nothing_is_written(pair, tmp_path):
    weights = tmp_path / "diverged.pt"
    torch.save({name: torch.full_like(value, torch.nan) for name, value in PAN().state_dict().items()}, weights)
    out = tmp_path / "out"
    options = {"weights": str(weights), "affine": "none", "device": "cpu"}
    sentence = sentence_of(lambda: register(pair["moving"], pair["fixed"], str(out), **options))
    assert f"its weights ({weights}) have diverged" in sentence
    assert not out.exists() or not list(out.iterdir())


def test_an_alignment_that_an_initial_transform_takes_the_place_of_is_refused(tmp_path):
    sitk.WriteTransform(sitk.Euler3DTransform(), str(tmp_path / "t.tfm"))
    call = dict(moving="m", fixed="f", output_dir=str(tmp_path / "out"), affine="rigid")
    call["initial_transform"] = str(tmp_path / "t.tfm")
    assert "takes the place of the pre-alignment: leave --affine out" in sentence_of(lambda: register(**call))
    assert not (tmp_path / "out").exists()
