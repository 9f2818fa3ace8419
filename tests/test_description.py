"""What a training writes beside its weights, by the description of those it starts from."""

import json

import nibabel
import numpy as np
import pytest
import torch
from bundle.description import describe_as
from bundle.weights import recommended, suited
from tests.configs import load


def test_weights_trained_on_have_the_settings_of_those_they_started_from(tmp_path, capsys):
    suiting = {"network": "peers/voxelmorph", "spacing_mm": 1.5, "align_top_mm": 160, "gamma": 1.4}
    others = {"across_contrasts": "other.pt", "sha256": "0", "trained_on": "heads", "trained_at_mm": 2.0}
    (tmp_path / "start.json").write_text(json.dumps(suiting | others))
    heads = [[2.0, 2.0, 2.0], [2.05, 2.0, 2.0]]
    describe_as(str(tmp_path / "start.pt"), tmp_path / "model.pt", heads)
    written = json.loads((tmp_path / "model.json").read_text())
    assert written == suiting | {"trained_at_mm": 2.0083}
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "has network peers/voxelmorph, spacing_mm 1.5, align_top_mm 160, gamma 1.4, as the weights it st" in said
    describe_as(str(tmp_path / "start.pt"), tmp_path / "cascade.pt", heads[:1], cascades=2)
    assert json.loads((tmp_path / "cascade.json").read_text()) == suiting | {"trained_at_mm": 2.0, "cascades": 2}
    (tmp_path / "model.json").write_text('{"spacing_mm": 3.0}')  # the user's own
    capsys.readouterr()
    describe_as(str(tmp_path / "start.pt"), tmp_path / "model.pt", heads)
    assert recommended(str(tmp_path / "model.pt"), "spacing_mm") == 3.0
    for start in ("", str(tmp_path / "undescribed.pt")):
        describe_as(start, tmp_path / "another.pt", heads)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cascade.json", "model.json", "start.json"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("voxels", "own"),
    [
        ([[0.1, 0.1, 0.1]], {"spacing_mm": 0.1, "trained_at_mm": 0.1}),
        ([[1.3333, 1.3333, 1.3333]], {"spacing_mm": 1.3333, "trained_at_mm": 1.3333}),
        ([[0.5, 0.5, 3.0]], {}),
        ([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]], {}),
    ],
)
def test_weights_trained_on_with_other_voxels_have_those_and_nothing_that_suits_heads(tmp_path, capsys, voxels, own):
    known = {"spacing_mm": 1.3333, "align_top_mm": 160, "gamma": 1.4, "trained_at_mm": 2.0}
    (tmp_path / "start.json").write_text(json.dumps(known))
    describe_as(str(tmp_path / "start.pt"), tmp_path / "model.pt", voxels)
    assert json.loads((tmp_path / "model.json").read_text()) == own
    said = capsys.readouterr().out
    assert "and not the spacing_mm 1.3333, align_top_mm 160, gamma 1.4 of the weights it starts from" in said
    assert f"spacing_mm {voxels[0][0]:g} by your" in said if own else "no spacing_mm (each image's own voxels)" in said


def test_a_description_that_names_no_training_goes_by_the_voxels_that_it_suits_or_by_none(tmp_path):
    for name, known, taken in (
        ("at", {"spacing_mm": 1.0, "gamma": 0.7}, {"spacing_mm": 1.0, "gamma": 0.7, "trained_at_mm": 1.0}),
        ("not_at", {"spacing_mm": 1.5, "gamma": 0.7}, {"spacing_mm": 1.0, "trained_at_mm": 1.0}),
        ("anywhere", {"gamma": 0.7}, {"spacing_mm": 1.0, "gamma": 0.7, "trained_at_mm": 1.0}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(known))
        describe_as(str(tmp_path / f"{name}.pt"), tmp_path / f"from_{name}.pt", [[1.0, 1.0, 1.0]])
        assert json.loads((tmp_path / f"from_{name}.json").read_text()) == taken


@pytest.mark.parametrize(
    ("known", "voxel", "taken", "said"),
    [
        ({"spacing_mm": 1.5, "gamma": 1.4, "trained_at_mm": 2.0}, 2.0, {"spacing_mm": 1.5, "gamma": 0.7}, ", as the"),
        ({"spacing_mm": 1.5, "gamma": 1.4, "trained_at_mm": 2.0}, 1.0, {"spacing_mm": 1.0, "gamma": 0.7}, " of the"),
        ({}, 1.0, {"gamma": 0.7}, "see images: edit"),
    ],
)
def test_what_a_training_shows_its_weights_suits_them_whatever_the_voxels(tmp_path, capsys, known, voxel, taken, said):
    if known:
        (tmp_path / "start.json").write_text(json.dumps(known))
    path = tmp_path / "model.pt"
    describe_as(str(tmp_path / "start.pt"), path, [[voxel] * 3], trained_with={"gamma": 0.7})
    written = json.loads(path.with_suffix(".json").read_text())
    assert written == taken | ({"trained_at_mm": voxel} if known else {})
    note = capsys.readouterr().out
    assert "has gamma 0.7, by which it is trained to see images" in note
    assert said in note
    assert "1.4" not in note


def begin(bundle_root, folder, names, spacing_mm, **options):
    """Begin a training on small images as the configs do; the parser, and what is written beside the weights."""
    for i in range(4):
        path = folder / "data" / "imagesTr" / f"{i}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(i).random((16, 16, 16), np.float32)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([spacing_mm] * 3 + [1.0])), path)
    parser = load(bundle_root, names)
    for key, value in {"dataset_dir": str(folder / "data"), "output_dir": str(folder / "out"), **options}.items():
        parser[key] = value
    parser.get_parsed_content("initialize")
    return parser, json.loads((folder / "out" / "models" / "model.json").read_text())


@pytest.mark.parametrize("asked", [{}, {"gamma": 0.7}])
def test_imitated_weights_are_trained_validated_and_described_by_one_gamma(bundle_root, tmp_path, asked):
    """On voxels other than those that model.pt, whose gamma is 1.4, was trained at."""
    parser, written = begin(bundle_root, tmp_path, ["train", "any_contrast", "imitation"], 1.0, **asked)
    gamma = asked.get("gamma", 1.4)
    assert written == {"spacing_mm": 1.0, "trained_at_mm": 1.0, "gamma": gamma}
    assert suited(str(tmp_path / "out/models/model.pt"))["gamma"] == gamma
    users = [parser.get_parsed_content(name) for name in ("train#inferer", "loss", "validate#inferer")]
    assert [user.gamma for user in users] == [gamma] * 3
    validator = parser.get_parsed_content("validate#evaluator")
    found = validator.inferer(torch.rand(1, 2, 16, 16, 16), validator.network)
    assert found.shape == (1, 4, 16, 16, 16)


@pytest.mark.parametrize(("spacing_mm", "taken"), [(2.0, True), (0.2, False)])
def test_a_fine_tuning_writes_what_suits_its_images_whatever_they_show(bundle_root, tmp_path, spacing_mm, taken):
    """As the configs do it, on heads of the voxels that model.pt was trained at, and on something small."""
    _, written = begin(bundle_root, tmp_path, ["train", "finetune"], spacing_mm)
    shipped = json.loads((bundle_root / "models" / "model.json").read_text())
    if taken:
        assert written.items() <= shipped.items()
        assert {"spacing_mm", "align_top_mm", "gamma"} <= written.keys()
    else:
        assert written == {"spacing_mm": 0.2, "trained_at_mm": 0.2}
