"""Data sets as they are distributed: lists of several styles, folders without one, no validation images, no labels."""

import json
import re
from pathlib import Path

import pytest
from bundle.commands.prepare import _splits
from bundle.listing import open_dataset, region_names


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listing(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def names(items, key="image"):
    return [Path(item[key]).name if key in item else None for item in items]


# --- folders ---


def test_a_folder_with_images_and_labels_needs_no_list_and_hidden_files_are_no_images(tmp_path):
    cases = [f"case_{i:04d}.nii.gz" for i in (3, 1, 2)]
    touch(
        tmp_path,
        *(f"{folder}Tr/{hidden}{case}" for folder in ("images", "labels") for hidden in ("", "._") for case in cases),
    )
    touch(tmp_path, "imagesTs/case_0009.nii", "imagesTs/._case_0009.nii", "imagesTr/notes.txt", "imagesTr/.DS_Store")
    training = open_dataset(str(tmp_path), "training")
    assert names(training) == names(training, "label") == sorted(cases)
    assert all("imagesTr" in item["image"] and "labelsTr" in item["label"] for item in training)
    assert names(open_dataset(str(tmp_path), "test")) == ["case_0009.nii"]
    assert {split: names(items) for split, items in _splits(tmp_path, 0.1, 0.1, 0, None).items()} == {
        "training": sorted(cases),
        "validation": [],
        "test": ["case_0009.nii"],
    }


def test_images_without_labels_are_listed_without(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/b.nii.gz")
    assert names(open_dataset(str(tmp_path), "training"), "label") == [None, "b.nii.gz"]
    touch(tmp_path, "labelsTr/c.nii.gz")
    with pytest.raises(ValueError, match=r"labelsTr/c\.nii\.gz is the label map of no image in imagesTr"):
        open_dataset(str(tmp_path), "training")


def test_nnunet_names_its_images_with_a_channel_and_the_first_is_taken(tmp_path, capsys):
    touch(tmp_path, *(f"imagesTr/la_{i:03d}_000{c}.nii.gz" for i in (1, 2) for c in (0, 1)))
    touch(tmp_path, "labelsTr/la_001.nii.gz", "labelsTr/la_002.nii.gz")
    touch(tmp_path, "imagesTs/la_003_0000.nii.gz", "imagesTs/la_003_0001.nii.gz")
    listing(
        tmp_path, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0}, numTraining=2, file_ending=".nii.gz"
    )
    training = open_dataset(str(tmp_path), "training")
    assert names(training) == ["la_001_0000.nii.gz", "la_002_0000.nii.gz"]
    assert names(training, "label") == ["la_001.nii.gz", "la_002.nii.gz"]
    assert "the first (Tr, _0000) is taken" in capsys.readouterr().out
    assert names(open_dataset(str(tmp_path), "test")) == ["la_003_0000.nii.gz"]


def test_a_listed_image_without_its_channel_is_found_and_hidden_ones_are_passed_over(tmp_path):
    touch(tmp_path, "imagesTr/la_001_0000.nii.gz", "labelsTr/la_001.nii.gz", "imagesTr/._la_001_0000.nii.gz")
    entry = {"image": "./imagesTr/la_001.nii.gz", "label": "./labelsTr/la_001.nii.gz"}
    listing(tmp_path, training=[entry, {"image": "imagesTr/._la_001_0000.nii.gz"}], test=["imagesTr/._x.nii.gz"])
    (item,) = open_dataset(str(tmp_path), "training")
    assert (Path(item["image"]).name, Path(item["label"]).name) == ("la_001_0000.nii.gz", "la_001.nii.gz")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"train": []}, "has 'train', which is not read: did you mean 'training'"),
        ({"training": [], "val": []}, "has 'val', which is not read: did you mean 'validation'"),
        ({"training": [{"image": "a", "lable": "b"}]}, "has 'lable', which is not read: did you mean 'label'"),
        ({"training": [{"moving": "a", "fixed": "b", "fixed_lable": "c"}]}, "did you mean 'fixed_label'"),
        ({"numTraining": 2}, "lists no training, validation, test images, and there is no imagesTr beside it"),
    ],
)
def test_a_misspelt_list_is_refused_with_the_right_name(tmp_path, content, sentence):
    listing(tmp_path, **content)
    with pytest.raises(ValueError, match=sentence):
        open_dataset(str(tmp_path), "training")


def test_a_split_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="The split is one of training, validation, test, not 'val'"):
        open_dataset(str(tmp_path), "val")


# --- no validation images ---


def images(folder, count, **more):
    touch(folder, *(f"{i}.nii" for i in range(count)))
    listing(folder, training=[{"image": f"{i}.nii"} for i in range(count)], **more)
    return str(folder)


@pytest.mark.parametrize(("count", "val_frac", "held"), [(10, 0.2, 2), (4, 0.2, 2), (50, 0.1, 5), (20, 0.5, 10)])
def test_a_share_of_the_training_images_stands_in_for_validation(tmp_path, capsys, count, val_frac, held):
    folder = images(tmp_path, count, validation=[])
    training, validation = (names(open_dataset(folder, s, val_frac=val_frac)) for s in ("training", "validation"))
    assert len(validation) == held
    assert sorted(training + validation) == sorted(f"{i}.nii" for i in range(count))  # none is in both
    assert training == sorted(training, key=lambda name: int(name[:-4]))
    assert names(open_dataset(folder, "validation", val_frac=val_frac)) == validation  # the same in every run
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith(f"{folder} lists no validation images: {held} of its {count} for training are held out")
    assert validation[0] in said


def test_nothing_is_held_out_where_there_are_validation_images_or_it_is_not_asked_for(tmp_path, capsys):
    touch(tmp_path / "a", "6.nii")
    folder = images(tmp_path / "a", 5, validation=["6.nii"])
    assert len(open_dataset(folder, "training", val_frac=0.2)) == 5
    assert names(open_dataset(folder, "validation", val_frac=0.2)) == ["6.nii"]
    folder = images(tmp_path / "b", 5)
    assert len(open_dataset(folder, "training")) == 5
    with pytest.raises(ValueError, match=r"The split 'validation' of .* is empty"):
        open_dataset(folder, "validation")
    assert capsys.readouterr().out == ""


def test_pairs_are_held_out_as_pairs(tmp_path):
    touch(tmp_path, "m.nii", "f.nii")
    listing(tmp_path, training=[{"moving": "m.nii", "fixed": "f.nii", "name": str(i)} for i in range(5)])
    splits = [open_dataset(str(tmp_path), split, val_frac=0.2) for split in ("training", "validation")]
    assert [len(items) for items in splits] == [4, 1]


def test_an_image_that_a_split_lists_twice_is_refused(tmp_path):
    touch(tmp_path, *(f"{i}.nii.gz" for i in range(4)))
    for again in ("0.nii.gz", "./0.nii.gz", str(tmp_path / "0.nii.gz")):
        listing(tmp_path, training=[{"image": f"{i}.nii.gz"} for i in range(4)] + [{"image": again}])
        for split in ("training", "validation"):  # whichever of them is held out
            with pytest.raises(ValueError, match=r"/0\.nii\.gz is listed 2 times for training: list every image once"):
                open_dataset(str(tmp_path), split, val_frac=0.5)
    listing(tmp_path, training=["0.nii.gz", "1.nii.gz"])
    with pytest.raises(ValueError, match="is listed 2 times for training"):
        open_dataset([str(tmp_path), str(tmp_path)], "training")
    listing(tmp_path, training=[{"moving": "0.nii.gz", "fixed": f"{i}.nii.gz"} for i in (1, 2, 3)])
    assert len(open_dataset(str(tmp_path), "training")) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"training": ["0", "1", "2"], "validation": ["1", "2", "3"]},
            "trains on, .* of new ones: 2, 1.nii.gz, 2.nii.gz",
        ),
        ({"training": ["0", "1"], "validation": ["2", "3"]}, None),
        ({"training": ["0", "1", "2", "3"]}, None),
        ({"training": ["0", "1", "gone"], "validation": ["2", "3"]}, None),
        ({"training": [("0", "1"), ("1", "2"), ("2", "0")]}, r"validates on images that it trains on, .*: 2, "),
        ({"training": [("0", "1"), ("2", "3")]}, None),
    ],
)
def test_a_validation_on_what_is_trained_on_is_told(tmp_path, capsys, content, said):
    def item(entry):
        files = [f"{name}.nii.gz" for name in ([entry] if isinstance(entry, str) else entry)]
        return dict(zip(("image",) if len(files) == 1 else ("moving", "fixed"), files))

    touch(tmp_path, *(f"{i}.nii.gz" for i in range(4)))
    listing(tmp_path, **{split: [item(entry) for entry in entries] for split, entries in content.items()})
    open_dataset(str(tmp_path), "validation", val_frac=0.2)
    found = capsys.readouterr().out
    assert re.search(said, found) if said else "validates on images" not in found


def test_too_few_images_to_hold_some_out_are_refused_with_what_to_do(tmp_path):
    folder = images(tmp_path, 3)
    for split in ("training", "validation"):
        with pytest.raises(ValueError, match="3 for training, too few to hold 2 of them out: list images under 'val"):
            open_dataset(folder, split, val_frac=0.2)


@pytest.mark.parametrize("val_frac", [-0.1, 1, "half", True])
def test_a_share_that_is_none_is_refused(tmp_path, val_frac):
    with pytest.raises(ValueError, match="val_frac is a share from 0 to below 1"):
        open_dataset(images(tmp_path, 5), "training", val_frac=val_frac)


# --- what the labels are called ---


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"0": "background", "1": "hippocampus", "2": "3"}, {1: "hippocampus", 2: "3"}),
        (
            {"background": 0, "hippocampus": 1, "whole": [1, 2], "core": [2], "ignore": "3"},
            {1: "hippocampus", 2: "core", 3: "ignore"},
        ),
        (["background", "hippocampus"], {1: "hippocampus"}),
        ({"0": {"1": "anterior"}}, {1: "anterior"}),
        (
            {"0": {"0": "background", "1": "liver"}, "1": {"0": "background", "1": "liver", "2": "spleen"}},
            {1: "liver", 2: "spleen"},
        ),
        ({}, {}),
        (None, {}),
    ],
)
def test_labels_are_named_in_the_style_of_the_decathlon_of_nnunet_or_of_learn2reg(tmp_path, table, expected):
    listing(tmp_path, training=[], labels=table)
    assert region_names(str(tmp_path)) == expected
    assert all(type(label) is int for label in region_names([str(tmp_path)]))


def test_a_folder_without_a_list_names_no_labels_and_a_broken_table_is_refused(tmp_path):
    touch(tmp_path, "imagesTr/a.nii")
    assert region_names(str(tmp_path)) == {}
    listing(tmp_path, training=[], labels={"hippocampus": "left"})
    with pytest.raises(ValueError, match="names 'hippocampus' by left, which is no number"):
        region_names(str(tmp_path))
    listing(tmp_path, training=[], labels="hippocampus")
    with pytest.raises(ValueError, match="is no table of numbers and names"):
        region_names(str(tmp_path))
