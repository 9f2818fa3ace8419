"""Data sets without labels: what validation goes by, and how a run ends that meets a bad image."""

import os
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from bundle.correlation import local_ncc
from bundle.handlers import RegistrationSaver
from bundle.inferers import RecursiveInferer
from bundle.metrics import DiceHandler, RegistrationSimilarity, SimilarityHandler, key_metric
from bundle.postprocessing import BuildTransformd, MeasureRegistrationd, ResampleMovingd
from bundle.transforms import MatchPaird
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def train(bundle_root, *options):
    line = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", "configs/train.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*line, *map(str, options)], cwd=bundle_root, capture_output=True, text=True, env=environment, timeout=400
    )


@pytest.fixture
def unlabelled(small_dataset, tmp_path):
    """Four images without labels, list or validation split, as macOS leaves them on a stick."""
    folder = tmp_path / "data/imagesTr"
    folder.mkdir(parents=True)
    for path in sorted((small_dataset / "images").glob("*"))[:4]:
        shutil.copy(path, folder)
        (folder / f"._{path.name}").write_bytes(b"\0\5\26\7")
    return folder.parent


@pytest.mark.slow
def test_training_needs_no_labels_no_list_and_no_validation_images(bundle_root, unlabelled, tmp_path):
    out = tmp_path / "out"
    done = train(bundle_root, "--dataset_dir", unlabelled, "--output_dir", out, "--epochs", 1, "--val_pairs", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 of its 4 for training are held out for it" in done.stdout
    assert "validation goes by similarity (val_local_ncc), since the images have no labels" in done.stdout
    assert len(torch.load(out / "models/model.pt", weights_only=True)) > 0
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert {"train_loss", "val_local_ncc", "val_folding_percent"} <= {*events.Tags()["scalars"]}
    assert 0 < events.Scalars("val_local_ncc")[0].value < 1


@pytest.mark.slow
def test_a_bad_image_ends_training_with_its_sentence_last(bundle_root, unlabelled, tmp_path):
    path = sorted((unlabelled / "imagesTr").glob("phantom*"))[0]
    image = nibabel.load(path)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)
    done = train(bundle_root, "--dataset_dir", unlabelled, "--output_dir", tmp_path / "out", "--epochs", 1)
    assert done.returncode == 1  # a signal would be negative
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"error: The image ({path}) holds NaN or infinite values: replace them first."


@pytest.mark.slow
def test_the_text_false_ends_a_workflow_before_anything_is_read(bundle_root, tmp_path):
    done = train(bundle_root, "--dataset_dir", tmp_path / "none", "--output_dir", tmp_path / "out", "--amp", "false")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: amp takes True or False, spelt like that, not 'false'."
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BuildTransformd(never_worse="false"), "never_worse takes True or False"),
        (lambda: MeasureRegistrationd(surfaces="no"), "surfaces takes True or False"),
        (lambda: BuildTransformd(field_spacing_mm="2mm"), "field_spacing_mm takes a number"),
        (lambda: ResampleMovingd(label_interpolation="Nearest"), "label_interpolation is one of"),
        (lambda: RecursiveInferer(passes="2"), "The network runs a whole number of times"),
        (lambda: RecursiveInferer(passes=True), "The network runs a whole number of times"),
        (lambda: RecursiveInferer(remove_folds="false"), "remove_folds takes True or False"),
        (lambda: RecursiveInferer(gamma="dark"), "gamma takes a number"),
        (lambda: MatchPaird("Affine"), "is one of none, center, rigid, affine, not 'Affine'"),
        (lambda: MatchPaird(spacing_mm="fine"), "spacing_mm takes a number"),
        (lambda: RegistrationSaver("out", "w.pt", folder_per_pair="false"), "folder_per_pair takes True or False"),
    ],
)
def test_the_objects_of_a_workflow_refuse_what_cannot_be_meant(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_validation_goes_by_dice_where_every_pair_has_labels_else_by_similarity(capsys):
    both = {"moving": "a", "fixed": "b", "moving_label": "c", "fixed_label": "d"}
    some = {k: v for k, v in both.items() if k != "moving_label"}
    found = {words: key_metric(pairs) for words, pairs in (("", [both]), ("some", [both, some]), ("none", [{}, {}]))}
    assert [[*metric] for metric in found.values()] == [["val_mean_dice"], ["val_local_ncc"], ["val_local_ncc"]]
    assert isinstance(found[""]["val_mean_dice"], DiceHandler)
    assert isinstance(found["none"]["val_local_ncc"], SimilarityHandler)
    said = capsys.readouterr().out.splitlines()
    assert [line.split("since ")[1] for line in said] == ["some images have no labels", "the images have no labels"]


def test_similarity_is_the_mean_local_correlation_of_each_pair_then_of_the_pairs():
    random = torch.Generator().manual_seed(0)
    pred = torch.rand(3, 4, 12, 14, 10, generator=random)
    fixed = pred[:, :1] * 0.5 + 0.3 * torch.rand(3, 1, 12, 14, 10, generator=random)
    fixed[1] = pred[1, :1]
    metric = RegistrationSimilarity()
    metric(pred[:2], fixed[:2])
    metric([pred[2]], [fixed[2]])  # decollated, as engines hand them over
    expected = [local_ncc(pred[i : i + 1, :1], fixed[i : i + 1]).mean().item() for i in range(3)]
    assert expected[1] > 0.99 > 0.9 > expected[0] > 0.1
    assert metric.get_buffer()[:, 0].tolist() == pytest.approx(expected)
    assert float(metric.aggregate()) == pytest.approx(float(np.mean(expected)))
    with pytest.raises(ValueError, match="Images must agree"):
        metric(pred, fixed[..., :5])
    seen = RegistrationSimilarity()
    seen(pred, torch.cat([pred[:, 1:2], fixed], 1))  # what the network saw, the fixed image last
    assert torch.equal(seen.get_buffer(), metric.get_buffer())
