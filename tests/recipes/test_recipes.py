"""Tiny folders in the layouts of the published data sets, through the commands."""

import codecs
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bundle.__main__ import bad_input
from bundle.commands.prepare import prepare
from bundle.data import open_dataset, region_names
from bundle.recipes import RECIPES
from bundle.recipes.pickles import load_arrays
from monai.bundle import ConfigParser

SPLITS = ("training", "validation", "test")


def volumes(folder, split):
    """Images and label maps of a split, with the affine."""
    for item in open_dataset(str(folder), split):
        image, label = nibabel.load(item["image"]), nibabel.load(item["label"])
        yield Path(item["image"]).name.split(".")[0], image.get_fdata(), np.asarray(label.dataobj), image.affine


def names_by_split(folder):
    return {split: [name for name, *_ in volumes(folder, split)] for split in SPLITS}


def centre(label, number):
    return np.argwhere(label == number).mean(0)


def test_ixi_comes_out_of_its_pickles_as_it_went_in_turned_to_ras(distributed, heads, tmp_path):
    prepare(str(distributed("ixi")), str(tmp_path / "out"), recipe="ixi")
    assert names_by_split(tmp_path / "out") == {
        "training": ["subject_0", "subject_1"],
        "validation": ["subject_2", "subject_3"],
        "test": ["subject_4", "subject_5"],
    }
    for split in SPLITS:
        for name, image, label, affine in volumes(tmp_path / "out", split):
            original, regions = heads[int(name[-1])]
            assert np.allclose(image, original / original.max(), atol=1e-5)
            assert np.allclose(affine[:3, :3], np.eye(3))
            assert set(np.unique(label)) == {0, 2, 4, 8, 10, 12, 16, 26, 41, 43, 47, 49, 51, 58}
            assert np.array_equal(label == 12, regions == 17)


def test_lpba40_finds_left_front_and_top_where_the_header_does_not_say(distributed, heads, tmp_path):
    folder = distributed("lpba40")
    prepare(str(folder), str(tmp_path / "out"), 5, (32, 48, 32), affine="center", recipe="lpba40")
    expected = {"training": ["S16", "S17"], "validation": ["S11", "S12"], "test": ["S01", "S02"]}
    assert names_by_split(tmp_path / "out") == expected
    for split in SPLITS:
        for _, image, label, affine in volumes(tmp_path / "out", split):
            assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
            assert centre(label, 22)[0] > centre(label, 21)[0] + 4  # right of left
            assert centre(label, 22)[1] > centre(label, 62)[1] + 4  # frontal before occipital
            assert centre(label, 44)[2] > centre(label, 181)[2] + 4  # parietal above the cerebellum
            assert image[label > 0].mean() > 2 * image[label == 0].mean()


def test_lpba40_is_aligned_affinely_on_the_grid_of_the_paper(distributed, tmp_path):
    folder = distributed("lpba40")
    for number in ("02", "11", "12", "17"):
        for path in folder.rglob(f"S{number}.*"):
            path.unlink()
    prepare(str(folder), str(tmp_path / "out"), recipe="lpba40")
    assert "affine" in json.loads((tmp_path / "out/dataset.json").read_text())["description"]
    for split in ("training", "test"):
        for _, image, _, affine in volumes(tmp_path / "out", split):
            assert image.shape == (160, 192, 160)
            assert np.allclose(affine[:3, :3], np.eye(3))


def test_abdomenmrct_takes_the_mr_scans_voxel_by_voxel(distributed, heads, tmp_path):
    prepare(str(distributed("abdomenmrct")), str(tmp_path / "out"), recipe="abdomenmrct")
    numbers = {split: [int(n[12:16]) for n in names] for split, names in names_by_split(tmp_path / "out").items()}
    assert numbers == {"training": [3, 4, 5], "validation": [2, 7], "test": [1, 6]}
    for split in SPLITS:
        for name, image, label, affine in volumes(tmp_path / "out", split):
            assert name.endswith("_0000")
            assert np.allclose(image, heads[(int(name[12:16]) - 1) % 6][0], rtol=1e-4, atol=1e-2)
            assert np.allclose(np.diag(affine)[:3], 2)
            assert set(np.unique(label)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("ixi", "570 of the 576: 401 of 403 for training, 56 of 58 for validation, 113 of 115 for test"),
        ("lpba40", "34 of the 40: 23 of 25 for training, 3 of 5 for validation, 8 of 10 for test"),
        ("abdomenmrct", "41 of the 48: 31 of 34 for training, 2 of 4 for validation, 8 of 10 for test"),
    ],
)
def test_a_part_of_a_data_set_is_told(distributed, capsys, name, lacking):
    folder = distributed(name)
    RECIPES[name].find(folder)
    assert capsys.readouterr().out.replace(" subjects published", "") == f"{folder} lacks {lacking}.\n"


def test_the_splits_of_the_whole_abdomenmrct_are_the_papers_in_size(tmp_path, capsys):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        for i in range(48):
            (tmp_path / folder / f"AbdomenMRCT_{i:04d}_0000.nii.gz").touch()
    splits = RECIPES["abdomenmrct"].find(tmp_path)
    assert {split: len(items) for split, items in splits.items()} == {"training": 34, "validation": 4, "test": 10}
    assert len({item["image"] for items in splits.values() for item in items}) == 48
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("name", "count"), [("ixi", 45), ("lpba40", 56), ("abdomenmrct", 4)])
def test_the_label_table_goes_along_and_has_as_many_regions_as_the_paper(distributed, tmp_path, name, count):
    options = {"spacing_mm": 5, "size": (32, 48, 32)} if name == "lpba40" else {}
    prepare(str(distributed(name)), str(tmp_path / "out"), affine="center", recipe=name, **options)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["labels"]["0"] == "background"
    regions = region_names(str(tmp_path / "out"))
    assert len(set(regions.values())) == count
    found = {n for split in SPLITS for *_, label, _ in volumes(tmp_path / "out", split) for n in np.unique(label)}
    assert found - {0} <= regions.keys()
    prepare(str(tmp_path / "out"), str(tmp_path / "again"), affine="none")  # as any other data set
    assert region_names(str(tmp_path / "again")) == regions


def command(root, module, *arguments):
    line = [sys.executable, "-m", module, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_command_takes_a_recipe(bundle_root, distributed, tmp_path):
    source = distributed("abdomenmrct") / "AbdomenMRCT"
    log = command(
        bundle_root,
        "bundle",
        "prepare",
        "--source",
        source,
        "--recipe",
        "abdomenmrct",
        "--output_dir",
        tmp_path / "out",
    )
    assert "7 images (3 training, 2 validation, 2 test) on a grid of (32, 48, 32) voxels" in log


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_prepares_trains_by_its_config(bundle_root, distributed, tmp_path, name):
    grid = {"spacing_mm": 5, "size": (32, 48, 32)} if name == "lpba40" else {}
    prepare(str(distributed(name)), str(tmp_path / "data"), affine="center", recipe=name, **grid)
    files = f"['configs/train.json','configs/{name}.json']"
    options = ["--dataset_dir", tmp_path / "data", "--output_dir", tmp_path / "out", "--epochs", 1, "--val_pairs", 1]
    command(bundle_root, "monai.bundle", "run", "training", "--config_file", files, *options)
    assert (tmp_path / "out/models/model.pt").is_file()


@pytest.mark.parametrize(("name", "alpha"), [("ixi", 1), ("lpba40", 1), ("abdomenmrct", 0.5)])
def test_the_configs_weigh_smoothness_as_the_paper_does(bundle_root, name, alpha):
    parser = ConfigParser()
    parser.read_config([str(bundle_root / f"configs/{file}.json") for file in ("train", name)])
    loss = parser.get_parsed_content("loss")
    assert (loss.alpha, loss.beta) == (alpha, 1)


# --- bad input ---


def sentence_of(call):
    with pytest.raises((ValueError, OSError)) as caught:
        call()
    sentence = bad_input(caught.value)
    assert "\n" not in sentence
    return sentence


class Malice:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_in_it_is_refused_and_its_code_not_run(distributed, tmp_path):
    folder = distributed("ixi")
    pickled = pickle.dumps((np.zeros(1), Malice(tmp_path / "run")))
    (folder / "IXI_data/Val/subject_2.pkl").write_bytes(pickled)
    sentence = sentence_of(lambda: prepare(str(folder), str(tmp_path / "out"), recipe="ixi"))
    assert "subject_2.pkl: Only pickled numpy arrays are read" in sentence
    assert "mkdir" in sentence
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out/dataset.json").exists()
    with pytest.raises(FileExistsError):  # it does run where anything may be unpickled
        [pickle.loads(pickled) for _ in range(2)]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_read_from_every_protocol(tmp_path, protocol):
    arrays = [np.arange(24, dtype=dtype).reshape(2, 3, 4) for dtype in (np.float32, ">i2")]
    for order in "CF":
        stored = tuple(np.asarray(array, order=order) for array in arrays)
        (tmp_path / "pair.pkl").write_bytes(pickle.dumps(stored, protocol=protocol))
        assert all(np.array_equal(a, b) for a, b in zip(arrays, load_arrays(tmp_path / "pair.pkl", 2)))


class Encoded:
    """A pickle of this has something encoded in some way when it is loaded."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return codecs.encode, self.arguments


@pytest.mark.parametrize("arguments", [(b"text", "base64"), ("text", "rot13"), ("text", "utf-8"), ("text",)])
def test_a_pickle_that_would_encode_in_another_way_is_refused(tmp_path, arguments):
    (tmp_path / "pair.pkl").write_bytes(pickle.dumps((np.zeros(1), Encoded(*arguments)), protocol=2))
    with pytest.raises(ValueError, match="Only pickled numpy arrays are read: "):
        load_arrays(tmp_path / "pair.pkl", 2)


PICKLES = {
    "no pickle": (b"hello", "Only pickled numpy arrays are read"),
    "empty": (b"", "Only pickled numpy arrays are read"),
    "torn": (pickle.dumps((np.zeros((9, 9)), np.zeros((9, 9))))[:-100], "Only pickled numpy arrays are read"),
    "one array": (pickle.dumps(np.zeros(4)), "does not hold 2 arrays"),
    "two shapes": (pickle.dumps((np.zeros(4), np.zeros(5))), "does not hold 2 arrays"),
    "objects": (pickle.dumps((np.array([None]), np.array([None]))), "does not hold 2 arrays"),
    "no anatomy": (pickle.dumps((np.zeros((4, 5, 6)), np.zeros((4, 5, 6)))), "does not tell left from right"),
    "a slice": (pickle.dumps((np.zeros((4, 5)), np.full((4, 5), 2))), "has 2 axes, not 3"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_is_no_labelled_brain_is_a_sentence(distributed, tmp_path, kind):
    content, words = PICKLES[kind]
    folder = distributed("ixi")
    (folder / "IXI_data/Train/subject_0.pkl").write_bytes(content)
    sentence = sentence_of(lambda: prepare(str(folder), str(tmp_path / "out"), recipe="ixi"))
    assert words in sentence
    assert "subject_0.pkl" in sentence


def without(pattern):
    return lambda folder: [path.unlink() for path in folder.rglob(pattern)]


def cut(pattern):
    return lambda folder: [path.write_bytes(path.read_bytes()[:2000]) for path in folder.rglob(pattern)]


BAD = {
    "ixi without its splits": ("ixi", without("Val/*"), {}, "IXI_data"),
    "lpba40 elsewhere": ("lpba40", without("*.hdr"), {}, "delineation_space"),
    "lpba40 without a label map": ("lpba40", without("S11*label.hdr"), {}, "There is no S11"),
    "lpba40 without training": ("lpba40", without("S1[67].*"), {}, "none of the subjects S16 to S40.* complete"),
    "lpba40 without voxels": ("lpba40", without("S16*stripped.img.gz"), {}, "No such file.*S16"),
    "lpba40 with torn voxels": ("lpba40", cut("S16*stripped.img.gz"), {}, "S16.* cannot be read as an Analyze"),
    "abdomen elsewhere": ("abdomenmrct", without("imagesTr/*"), {}, "holds 0 scans"),
    "abdomen without a label map": ("abdomenmrct", without("labelsTr/*_0003_*"), {}, "0003_0000"),
    "foreign reference": ("ixi", lambda _: None, {"reference": "head.nii.gz"}, "none of the data set's images"),
    "recipe": ("ixi", lambda _: None, {"recipe": "oasis"}, "one of ixi, lpba40, abdomenmrct, not 'oasis'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_folder_that_is_not_as_distributed_is_a_sentence(distributed, tmp_path, kind):
    name, spoil, options, words = BAD[kind]
    folder = distributed(name)
    spoil(folder)
    sentence = sentence_of(lambda: prepare(str(folder), str(tmp_path / "out"), **{"recipe": name} | options))
    assert re.search(words, sentence), sentence
    assert not (tmp_path / "out" / "dataset.json").exists()
