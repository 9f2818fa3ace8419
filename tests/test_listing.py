"""Data sets as they are distributed: lists of several styles, folders without one, no validation images, no labels."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from bundle.commands.splits import find_splits
from bundle.listing import open_dataset, read_split, region_names


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
    assert {split: names(items) for split, items in find_splits(tmp_path, 0.1, 0.1, 0, None).items()} == {
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


@pytest.mark.parametrize(("people", "held"), [(10, 2), (4, 2), (3, 1)])
def test_the_images_of_a_person_are_held_out_together(tmp_path, people, held):
    files = [f"sub-{i}_ses-{s}_T1w.nii" for i in range(people) for s in range(3)]
    touch(tmp_path, *files)
    listing(tmp_path, training=files)
    training, validation = (names(open_dataset(str(tmp_path), s, val_frac=0.2)) for s in ("training", "validation"))
    assert sorted(training + validation) == files
    assert len({name[:6] for name in validation}) == held
    assert not {name[:6] for name in validation} & {name[:6] for name in training}


@pytest.mark.parametrize(
    "names_of", ["scan_{}.nii", "sub-1_run-{}.nii", "session_{}.nii", "site_{}_x.nii", "AD_s{}.nii", "b20_{}.nii"]
)
def test_what_is_held_out_stays_the_same_where_names_tell_of_no_people(tmp_path, names_of):
    files = [names_of.format(i) for i in range(10)]
    touch(tmp_path, *files)
    listing(tmp_path, training=files)
    held = [int(re.findall(r"\d+", n)[-1]) for n in names(open_dataset(str(tmp_path), "validation", val_frac=0.2))]
    assert held == sorted(np.random.default_rng(0).permutation(10)[:2])


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


def paired(folder, *pairs):
    touch(folder, *(f"{i}.nii" for pair in pairs for i in pair))
    listing(folder, training=[{"moving": f"{moving}.nii", "fixed": f"{fixed}.nii"} for moving, fixed in pairs])
    splits = [open_dataset(str(folder), split, val_frac=0.2) for split in ("training", "validation")]
    return [[(int(Path(i["moving"]).stem), int(Path(i["fixed"]).stem)) for i in items] for items in splits]


def test_pairs_are_held_out_as_pairs(tmp_path, capsys):
    pairs = [(2 * i, 2 * i + 1) for i in range(10)]
    training, validation = paired(tmp_path, *pairs)
    assert sorted(training + validation) == pairs
    assert len(validation) == 2
    assert "trains on" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pairs", "counts", "said"),
    [
        ([(i, i + 1) for i in range(5)], (3, 1), "1 that share an image with them are left out"),  # a chain
        ([(i, i + 1) for i in range(15)], (11, 3), "1 that share an image with them are left out"),
        ([(2 * i + k, 2 * i + 1 - k) for i in range(5) for k in (0, 1)], (8, 2), None),  # both ways
    ],
)
def test_held_out_pairs_share_no_image_with_those_that_are_trained_on(tmp_path, capsys, pairs, counts, said):
    training, validation = paired(tmp_path, *pairs)
    assert (len(training), len(validation)) == counts
    assert not {i for pair in training for i in pair} & {i for pair in validation for i in pair}
    found = capsys.readouterr().out
    assert "trains on" not in found
    assert said in found if said else "left out" not in found


def test_where_held_out_pairs_cannot_but_share_images_all_others_are_trained_on_and_it_is_told(tmp_path, capsys):
    pairs = [(0, i) for i in range(1, 11)]  # an atlas
    training, validation = paired(tmp_path, *pairs)
    assert sorted(training + validation) == pairs
    assert "validates on images that it trains on, so that the score tells less of new ones: 1, 0.nii" in (
        capsys.readouterr().out
    )


# --- what an item may hold ---


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"image": "0.nii", "seg": "1.nii"}, "has 'seg', which is not read of a single image: image, label, landmarks"),
        ({"image": "0.nii", "moving_label": "1.nii"}, "has 'moving_label', which is not read of a single image"),
        ({"image": "0.nii", "initial_transform": "1.nii"}, "has 'initial_transform', which is not read of a single"),
        ({"image": "0.nii", "moving": "0.nii", "fixed": "1.nii"}, "has an image and a pair: list them as two"),
        ({"moving": "0.nii", "fixed": "1.nii", "label": "2.nii"}, "has 'label', which is not read of a pair: moving,"),
        ({"moving": "0.nii", "fixed": "1.nii", "mask": "2.nii"}, "has 'mask', which is not read of a pair: moving,"),
        ({"moving": "0.nii", "fixed": "./0.nii"}, r"pairs .*0\.nii with itself: list two images"),
    ],
)
def test_an_item_whose_files_would_not_be_read_is_refused(tmp_path, item, sentence):
    touch(tmp_path, "0.nii", "1.nii", "2.nii")
    listing(tmp_path, training=[item])
    with pytest.raises(ValueError, match=sentence):
        open_dataset(str(tmp_path), "training")


def test_files_of_an_image_that_nothing_reads_are_told_and_nothing_is_said_of_other_notes(tmp_path, capsys):
    touch(tmp_path, *(f"{i}.nii" for i in range(4)), "keys.csv")
    items = [{"image": f"{i}.nii", "mask": "3.nii", "keypoints": "keys.csv", "site": "A", "fold": 1} for i in (0, 1)]
    listing(tmp_path, training=items)
    assert len(open_dataset(str(tmp_path), "training")) == 2
    assert capsys.readouterr().out == f"{tmp_path}: not read of 'training': keypoints, mask\n"


@pytest.mark.parametrize("label", [None, ""])
def test_an_empty_label_is_none(tmp_path, label):
    touch(tmp_path, "0.nii", "1.nii")
    pair = {"moving": "0.nii", "fixed": "1.nii", "moving_label": label}
    listing(tmp_path, training=[{"image": "0.nii", "label": label}], validation=[pair])
    assert [{*i} for i in open_dataset(str(tmp_path), "training")] == [{"image", "dataset"}]
    assert [{*i} for i in open_dataset(str(tmp_path), "validation")] == [{"moving", "fixed", "dataset"}]


def test_a_pair_that_a_split_lists_twice_is_refused_unless_its_labels_are_others(tmp_path):
    touch(tmp_path, *(f"{i}.nii" for i in range(4)))
    pair = {"moving": "0.nii", "fixed": "1.nii"}
    listing(tmp_path, training=[pair, {"moving": "./0.nii", "fixed": "1.nii", "name": "again"}])
    with pytest.raises(ValueError, match=r"0\.nii with .*1\.nii is listed 2 times for training: list every pair once"):
        open_dataset(str(tmp_path), "training")
    labels = [{"moving_label": f"{i}.nii", "fixed_label": f"{i}.nii"} for i in (2, 3)]
    listing(tmp_path, training=[pair, {"moving": "1.nii", "fixed": "0.nii"}, *(pair | some for some in labels)])
    assert len(open_dataset(str(tmp_path), "training")) == 4


# --- Learn2Reg's lists ---


def learn2reg(folder, **more):
    touch(folder, *(f"{kind}Tr/{i}.nii.gz" for kind in ("images", "labels") for i in range(6)))
    training = [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in range(6)]
    pairs = [{"fixed": "./imagesTr/4.nii.gz", "moving": "./imagesTr/5.nii.gz"}]
    listing(folder, training=training, test=[], numRegistration_val=1, registration_val=pairs, **more)
    return str(folder)


def test_the_pairs_of_learn2reg_are_validated_on_with_their_labels_and_not_trained_on(tmp_path, capsys):
    folder = learn2reg(tmp_path, training_paired_images=[])
    (pair,) = open_dataset(folder, "validation", val_frac=0.2)
    assert [Path(pair[key]).parent.name + Path(pair[key]).name[0] for key in ("moving", "fixed", "moving_label")] == [
        "imagesTr5",
        "imagesTr4",
        "labelsTr5",
    ]
    assert names(open_dataset(folder, "training", val_frac=0.2)) == [f"{i}.nii.gz" for i in range(4)]
    assert capsys.readouterr().out == f"{folder}: 'validation' are the 1 pairs of 'registration_val'\n"
    assert len(read_split(Path(folder), "training", pairs=False)) == 6


def test_the_training_pairs_of_learn2reg_are_trained_on(tmp_path, capsys):
    pairs = [{"fixed": f"./imagesTr/{i}.nii.gz", "moving": f"./imagesTr/{i + 1}.nii.gz"} for i in range(0, 6, 2)]
    folder = learn2reg(tmp_path, training_paired_images=pairs)
    items = open_dataset(folder, "training")
    assert names(items, "fixed") == names(items, "fixed_label") == ["0.nii.gz", "2.nii.gz"]
    assert "'training' are the 2 pairs of 'training_paired_images'" in capsys.readouterr().out


def test_a_validation_of_its_own_goes_before_that_of_learn2reg(tmp_path):
    folder = learn2reg(tmp_path, validation=["imagesTr/0.nii.gz", "imagesTr/1.nii.gz"])
    assert names(open_dataset(folder, "validation")) == ["0.nii.gz", "1.nii.gz"]
    assert len(open_dataset(folder, "training")) == 6


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
