import json
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.commands.prepare import prepare
from bundle.commands.splits import find_splits
from bundle.data import SPLITS, common_size, draw_pairs, open_dataset, read_split
from tests.commands.raw_heads import GRIDS, prepared, save, sentence_of


def all_of(splits):
    return [volume for split in splits.values() for item in split for volume in item.values()]


def centre_of(image):
    return image.affine[:3, :3] @ ((np.array(image.shape) - 1) / 2) + image.affine[:3, 3]


def test_every_image_and_label_comes_onto_one_ras_grid_in_its_split(source, tmp_path):
    listing = prepare(str(source), str(tmp_path / "out"), affine="center")
    assert listing == str(tmp_path / "out" / "dataset.json")
    splits = prepared(tmp_path / "out")
    assert [len(split) for split in splits.values()] == [2, 1, 1]
    volumes = all_of(splits)
    assert {v.shape for v in volumes} == {(24, 32, 24)}  # the first training image's
    assert all(np.allclose(v.affine, GRIDS[0][1], atol=1e-4) for v in volumes)
    assert {nibabel.aff2axcodes(v.affine) for v in volumes} == {("R", "A", "S")}
    assert json.loads(Path(listing).read_text())["spacing_mm"] == [6.0, 6.2, 6.4]


def test_labels_stay_whole_numbers_and_lie_on_their_images(source, heads, tmp_path):
    prepare(str(source), str(tmp_path / "out"), affine="center")
    first = prepared(tmp_path / "out")["training"][0]
    assert np.array_equal(first["label"].dataobj, heads[0][1])  # the reference comes through as it was
    assert np.allclose(first["image"].get_fdata(), heads[0][0], rtol=1e-5, atol=1e-3)
    for item in [i for split in prepared(tmp_path / "out").values() for i in split]:
        label, image = np.asarray(item["label"].dataobj), item["image"].get_fdata()
        assert label.dtype == np.uint8
        assert set(np.unique(label)) <= set(range(25))
        assert len(np.unique(label)) > 12
        assert image[label > 0].mean() > 2 * image[label == 0].mean()


def test_labels_of_any_size_and_in_any_order_of_axes_are_prepared_as_they_are(source, heads, tmp_path):
    ids = np.concatenate([[0, 614454277, 40000, 2**53 + 1], np.arange(70_000, 70_060)])
    for i, (_, label, affine) in enumerate(heads):
        image = nibabel.Nifti1Image(ids[label], affine, dtype=np.int64)
        turned = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt("PSR")
        )
        nibabel.save(image.as_reoriented(turned) if i else image, source / "labels" / f"head_{i}.nii.gz")
    prepare(str(source), str(tmp_path / "out"), affine="center")
    first, second = prepared(tmp_path / "out")["training"]
    assert np.array_equal(np.asarray(first["label"].dataobj), ids[heads[0][1]])
    assert {614454277, 40000, 2**53 + 1} <= set(np.unique(second["label"].dataobj)) <= set(ids)


def test_size_and_spacing_are_those_asked_for_about_the_labels_of_the_reference(source, heads, tmp_path):
    prepare(str(source), str(tmp_path / "out"), spacing_mm=7, size=(20, 26, 18), affine="center")
    volumes = all_of(prepared(tmp_path / "out"))
    assert {v.shape for v in volumes} == {(20, 26, 18)}
    assert all(np.allclose(nibabel.affines.voxel_sizes(v.affine), 7, atol=1e-4) for v in volumes)
    inside = np.argwhere(heads[0][1] > 0)
    middle = heads[0][2] @ [*(inside.min(0) + inside.max(0)) / 2, 1]
    assert np.allclose(centre_of(volumes[0]), middle[:3], atol=1e-3)
    items = open_dataset(str(tmp_path / "out"), "training")
    assert common_size(items, 2) == [20, 26, 18]  # what training asks of a data set
    assert len(draw_pairs(items)) == 2


def test_a_size_without_a_spacing_keeps_the_voxels_of_the_reference(source, tmp_path):
    reference = str(source / "images" / "head_3.nii.gz")  # voxels of 8, 6 and 5 mm: right, front, top
    listing = prepare(str(source), str(tmp_path / "out"), size=(12, 20, 16), affine="center", reference=reference)
    volumes = all_of(prepared(tmp_path / "out"))
    assert {v.shape for v in volumes} == {(12, 20, 16)}
    assert all(np.allclose(nibabel.affines.voxel_sizes(v.affine), (8, 6, 5), atol=1e-4) for v in volumes)
    assert json.loads(Path(listing).read_text())["spacing_mm"] == [8.0, 6.0, 5.0]


def test_a_mask_blanks_what_has_no_label_and_nothing_else(source, tmp_path):
    prepare(str(source), str(tmp_path / "out"), affine="center", mask=True)
    for item in [i for split in prepared(tmp_path / "out").values() for i in split]:
        image, label = item["image"].get_fdata(), np.asarray(item["label"].dataobj)
        assert (image[label == 0] == 0).all()
        assert (image[label > 0] > 0).mean() > 0.99


def test_a_mask_blanks_a_ct_with_its_air(source, tmp_path):
    for path in (source / "images").iterdir():
        head = nibabel.load(path)
        save(head.get_fdata(dtype=np.float32) - 1000, head.affine, path)
    prepare(str(source), str(tmp_path / "out"), affine="none", mask=True)
    for item in [i for split in prepared(tmp_path / "out").values() for i in split]:
        image, label = item["image"].get_fdata(), np.asarray(item["label"].dataobj)
        air = np.unique(image[label == 0])
        assert len(air) == 1
        assert air[0] == pytest.approx(-1000, abs=1)


def test_the_alignment_lays_each_head_over_the_reference(source, tmp_path):
    reference = str(source / "images" / "head_2.nii.gz")
    centres = {}
    for affine in ("none", "rigid"):
        prepare(str(source), str(tmp_path / affine), affine=affine, reference=reference)
        splits = prepared(tmp_path / affine)
        assert {v.shape for v in all_of(splits)} == {(26, 34, 20)}
        target = np.asarray(splits["validation"][0]["label"].dataobj) > 0
        others = [np.asarray(i["label"].dataobj) > 0 for s in ("training", "test") for i in splits[s]]
        centres[affine] = np.mean([2 * (o & target).sum() / (o.sum() + target.sum()) for o in others])
    assert centres["rigid"] > centres["none"] + 0.02
    assert centres["rigid"] > 0.85


def test_an_interrupted_run_goes_on_where_it_stopped(source, tmp_path):
    out = tmp_path / "out"
    prepare(str(source), str(out), affine="center")
    first = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    kept, lost = out / "images" / "head_1.nii.gz", out / "labels" / "head_2.nii.gz"
    os.utime(kept, (1, 1))
    lost.unlink()
    (out / "dataset.json").unlink()
    prepare(str(source), str(out), affine="center")
    assert kept.stat().st_mtime == 1
    assert {p for p in out.rglob("*") if p.is_file()} == set(first)
    assert nibabel.load(lost).get_fdata().any()


@pytest.mark.parametrize("change", [{"spacing_mm": 9}, {"size": (18, 20, 16)}])
def test_a_folder_prepared_on_another_grid_is_not_gone_on_with(source, tmp_path, change):
    prepare(str(source), str(tmp_path / "out"), affine="center")
    assert "another grid" in sentence_of(lambda: prepare(str(source), str(tmp_path / "out"), affine="center", **change))


def test_any_folder_of_images_is_split_at_random_by_its_seed_and_the_first_to_train_on_is_the_reference(
    heads, tmp_path
):
    for i, (image, _, affine) in enumerate(heads):
        path = tmp_path / "raw" / f"site_{i % 2}" / ("scan.nii.gz" if i < 2 else f"scan_{i}.nii.gz")
        save(image, affine, path)
    itk_image = sitk.ReadImage(str(tmp_path / "raw" / "site_0" / "scan_2.nii.gz"))
    sitk.WriteImage(itk_image, str(tmp_path / "raw" / "site_0" / "scan_2.mha"))
    (tmp_path / "raw" / "site_0" / "scan_2.nii.gz").unlink()
    for name in ("out", "again"):
        prepare(str(tmp_path / "raw"), str(tmp_path / name), affine="center", validation=0.25, test=0.25)
    splits = {split: items for split, items in prepared(tmp_path / "out").items() if items}
    assert {split: len(items) for split, items in splits.items()} == {"training": 2, "validation": 2}
    listings = [json.loads((tmp_path / name / "dataset.json").read_text()) for name in ("out", "again")]
    assert listings[0]["training"] == listings[1]["training"]
    assert len({i["image"] for s in splits for i in listings[0][s]}) == 4  # two files share a name
    assert len({volume.get_fdata().tobytes() for volume in all_of(splits)}) == 4
    assert all("label" not in item for split in splits.values() for item in split)
    reference = sitk.ReadImage(listings[0]["description"].split(" to ")[-1])
    first = splits["training"][0]["image"].get_fdata()
    assert np.allclose(np.sort(first, None), np.sort(sitk.GetArrayFromImage(reference), None), rtol=1e-5, atol=1e-3)


def test_label_maps_of_a_folder_without_a_list_are_prepared_as_such(source, heads, tmp_path, capsys):
    (source / "dataset.json").unlink()
    prepare(str(source), str(tmp_path / "out"), affine="center", mask=True, validation=0, test=0)
    assert "4 images (images/head_0.nii.gz, images/head_1.nii.gz, images/head_2.nii.gz, …), 4 with a label map" in (
        capsys.readouterr().out
    )
    items = prepared(tmp_path / "out")["training"]
    assert len(items) == 4
    assert np.array_equal(items[0]["label"].dataobj, heads[0][1])


def test_a_pattern_chooses_among_the_images_of_a_folder_and_is_refused_elsewhere(source, tmp_path):
    assert "--pattern names the images of a folder without a list" in sentence_of(
        lambda: prepare(str(source), str(tmp_path / "out"), pattern="head_1*")
    )
    (source / "dataset.json").unlink()
    prepare(str(source), str(tmp_path / "out"), affine="none", pattern="head_[12]*", validation=0, test=0)
    names = [Path(item["image"]).name for item in read_split(tmp_path / "out", "training")]
    assert names == ["head_1.nii.gz", "head_2.nii.gz"]


def test_files_of_one_name_stay_apart_when_the_folder_is_named_from_inside(heads, tmp_path, monkeypatch):
    for i in (0, 1):
        save(heads[i][0], heads[i][2], tmp_path / "raw" / f"subject_{i}" / "t1.nii.gz")
    monkeypatch.chdir(tmp_path / "raw")
    prepare(".", str(tmp_path / "out"), affine="center", validation=0, test=0)
    volumes = [item["image"].get_fdata() for item in prepared_training(tmp_path / "out")]
    assert len(volumes) == 2
    assert not np.array_equal(*volumes)


@pytest.mark.parametrize("listed", [None, "a/t1.nii.gz", "../site/a/t1.nii.gz"])
def test_images_of_one_name_are_told_by_their_folders_in_the_data_set_wherever_it_lies(heads, tmp_path, listed):
    names = []
    for place in ("home", "elsewhere"):
        raw = tmp_path / place / ("raw" if not listed or listed.startswith("a") else "site")
        for folder, (image, _, affine) in zip("ab", heads):
            save(image, affine, raw / folder / "t1.nii.gz")
        if listed:
            (tmp_path / place / "raw").mkdir(exist_ok=True)
            images = [listed, listed.replace("a/t1", "b/t1")]
            (tmp_path / place / "raw" / "dataset.json").write_text(json.dumps({"training": images}))
        out = tmp_path / f"out_{place}"
        prepare(str(tmp_path / place / "raw"), str(out), affine="none", validation=0, test=0)
        names.append({path.name for path in (out / "images").iterdir()})
    assert names == [{"a_t1.nii.gz", "b_t1.nii.gz"}] * 2


def prepared_training(folder):
    return [{"image": nibabel.load(i["image"])} for i in open_dataset(str(folder), "training")]


@pytest.mark.parametrize(
    "names",
    [("1.2.840.1.nii.gz", "1.2.840.2.nii.gz"), ("sub.nii.gz", "sub.nrrd"), ("a/sub.nii.gz", "a/sub.nii", "b/sub.nii")],
)
def test_every_image_has_a_name_of_its_own_whatever_its_file_is_called(heads, tmp_path, names):
    for name, (image, _, affine) in zip(names, heads):
        save(image, affine, tmp_path / "raw" / "any.nii.gz")
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "raw" / "any.nii.gz")), str(tmp_path / "raw" / name))
    (tmp_path / "raw" / "any.nii.gz").unlink()
    prepare(str(tmp_path / "raw"), str(tmp_path / "out"), affine="center", validation=0, test=0)
    volumes = [item["image"].get_fdata().tobytes() for item in prepared_training(tmp_path / "out")]
    assert len({*volumes}) == len(names)
    if names[0].startswith("1.2"):
        assert {path.name for path in (tmp_path / "out" / "images").iterdir()} == {*names}


def test_a_folder_prepared_in_another_way_is_not_gone_on_with(source, tmp_path):
    out = str(tmp_path / "out")
    prepare(str(source), out, affine="center")
    for change, sentence in (
        ({"affine": "none"}, "prepared with another affine (center, now none)"),
        ({"affine": "center", "mask": True}, "prepared with another mask (False, now True)"),
        ({"affine": "center", "reference": str(source / "images" / "head_1.nii.gz")}, "another grid"),
    ):
        before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
        assert sentence in sentence_of(lambda change=change: prepare(str(source), out, **change))
        assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    image = source / "images" / "head_0.nii.gz"  # the reference holds something else
    save(nibabel.load(image).get_fdata() * 2, nibabel.load(image).affine, image)
    assert "prepared with another reference (head_0" in sentence_of(lambda: prepare(str(source), out, affine="center"))
    (tmp_path / "out" / "prepared.json").write_text("{")
    assert "remove it" in sentence_of(lambda: prepare(str(source), out, affine="center"))


def test_an_image_that_has_changed_at_its_source_is_prepared_anew(source, tmp_path):
    out = tmp_path / "out"
    prepare(str(source), str(out), affine="center")
    first = {p.name: p.read_bytes() for p in (out / "images").iterdir()}
    image = nibabel.load(source / "images" / "head_1.nii.gz")
    save(image.get_fdata() * 3, image.affine, source / "images" / "head_1.nii.gz")
    prepare(str(source), str(out), affine="center")
    assert {p.name for p in (out / "images").iterdir() if p.read_bytes() != first[p.name]} == {"head_1.nii.gz"}


def test_a_list_with_a_byte_order_mark_is_read_as_elsewhere(source, tmp_path):
    text = (source / "dataset.json").read_text()
    (source / "dataset.json").write_text(json.dumps({**json.loads(text), "licence": "CC0"}), encoding="utf-8-sig")
    prepared_list = prepare(str(source), str(tmp_path / "out"), affine="none")
    assert json.loads(Path(prepared_list).read_text())["licence"] == "CC0"


def learn2reg(source, **more):
    """List the four heads as Learn2Reg does, the pairs beside the images."""
    items = [{"image": f"./images/head_{i}.nii.gz", "label": f"./labels/head_{i}.nii.gz"} for i in range(4)]
    (source / "dataset.json").write_text(json.dumps({"training": items, "test": [], **more}))


def pair_of(moving, fixed):
    return {"fixed": f"./images/head_{fixed}.nii.gz", "moving": f"./images/head_{moving}.nii.gz"}


@pytest.mark.parametrize("more", [{}, {"training_paired_images": [pair_of(0, 1), pair_of(1, 0), pair_of(3, 0)]}])
def test_the_pairs_of_learn2reg_are_trained_and_validated_on_as_before(source, tmp_path, capsys, more):
    learn2reg(source, registration_val=[pair_of(3, 2)], **more)
    prepare(str(source), str(tmp_path / "out"), affine="none")
    assert "the 1 pairs of 'registration_val' are listed again" in capsys.readouterr().out
    for split in ("training", "validation"):
        raw, made = ([*read_split(folder, split)] for folder in (source, tmp_path / "out"))
        assert [{k: Path(v).name for k, v in item.items() if k != "dataset"} for item in made] == [
            {k: Path(v).name for k, v in item.items() if k != "dataset"} for item in raw
        ]
        assert all(str(tmp_path / "out") in path for item in made for path in item.values())
    assert len(read_split(tmp_path / "out", "validation")) == 1
    assert len(read_split(tmp_path / "out", "training")) == 2


def test_a_pair_of_learn2reg_of_what_is_no_listed_image_is_refused_at_once(source, tmp_path):
    learn2reg(source, registration_val=[pair_of(3, 2)])
    content = json.loads((source / "dataset.json").read_text())
    del content["training"][3]
    (source / "dataset.json").write_text(json.dumps(content))
    sentence = sentence_of(lambda: prepare(str(source), str(tmp_path / "out"), affine="none"))
    assert "head_3.nii.gz in 'registration_val', but not among its images and labels" in sentence
    assert not (tmp_path / "out").exists()


# --- bad input ---


def listed(listing):
    def write(source):
        text = listing if isinstance(listing, str) else json.dumps(listing)
        (source / "dataset.json").write_text(text)

    return write


def without_labels(source):
    listing = json.loads((source / "dataset.json").read_text())
    for item in listing["test"]:
        del item["label"]
    listed(listing)(source)


def emptied_label(source):
    path = source / "labels" / "head_0.nii.gz"
    image = nibabel.load(path)
    save(np.zeros(image.shape, np.uint8), image.affine, path)


def moved_label(source):
    path = source / "labels" / "head_1.nii.gz"
    image = nibabel.load(path)
    save(np.asarray(image.dataobj), image.affine + np.eye(4, k=3) * 9, path)


def nothing(source):
    pass


BAD = {
    "no such folder": (lambda s: s.rename(s.parent / "gone"), {}, "There is no folder"),
    "no images": (lambda s: [p.unlink() for p in s.rglob("*") if p.is_file()], {}, "holds 0 images"),
    "listed twice": (
        listed({"training": [{"image": "images/head_0.nii.gz"}] * 2}),
        {},
        "is listed 2 times for training",
    ),
    "broken listing": (listed("{"), {}, "is not a data set listing"),
    "empty listing": (listed({"training": []}), {}, "is empty"),
    "listed file missing": (lambda s: (s / "images" / "head_3.nii.gz").unlink(), {}, "which does not exist"),
    "mask without labels": (without_labels, {"mask": True}, "Masking needs a label map for every image"),
    "reference without labels in it": (emptied_label, {"size": (20, 26, 18)}, "label map .* is empty"),
    "label elsewhere": (moved_label, {}, "its own position in space, its image"),
    "affine": (nothing, {"affine": "syn"}, "none, center, rigid, affine, not 'syn'"),
    "one side": (nothing, {"size": 20}, "The size takes three sides in voxels"),
    "two sides": (nothing, {"size": (20, 20)}, "The size takes three sides in voxels"),
    "no side": (nothing, {"size": (20, 20, 0)}, "The size takes three sides in voxels"),
    "words for a size": (nothing, {"size": "big"}, "The size takes three sides in voxels"),
    "spacing": (nothing, {"spacing_mm": 0}, "--spacing_mm must be above 0 mm"),
    "far too fine": (nothing, {"spacing_mm": 0.01}, "give a larger --spacing_mm"),
    "words for a spacing": (nothing, {"spacing_mm": "fine"}, "spacing must be above 0 mm"),
    "reference": (nothing, {"reference": "none.nii.gz"}, r"none\.nii\.gz\) does not exist"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_input_is_a_sentence(source, tmp_path, kind):
    spoil, options, words = BAD[kind]
    spoil(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        sentence = sentence_of(lambda: prepare(str(source), str(tmp_path / "out"), **{"affine": "center"} | options))
    assert re.search(words, sentence)
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert not any(p.name == "dataset.json" or p.name.startswith(".") for p in left)


@pytest.mark.parametrize(
    ("images", "shares", "counts"),
    [
        *[(n, (0.1, 0.1), (n, 0, 0)) for n in (2, 5)],
        *[(n, (0.1, 0.1), (n - 4, 2, 2)) for n in (6, 14, 20)],
        (30, (0.1, 0.1), (24, 3, 3)),
        (5, (0.2, 0.2), (3, 2, 0)),
        (5, (0.2, 0.4), (3, 0, 2)),
    ],
)
def test_what_is_held_out_of_a_folder_makes_pairs_and_so_does_what_is_left(tmp_path, images, shares, counts):
    for i in range(images):
        (tmp_path / f"{i}.nii.gz").touch()
    splits = find_splits(tmp_path, *shares, seed=0, recipe=None)
    assert tuple(len(splits[split]) for split in SPLITS) == counts
    assert len({item["image"] for items in splits.values() for item in items}) == images


PEOPLE = {  # names of a person's images
    "BIDS": [
        "sub-{:02d}/ses-{}/anat/sub-{:02d}_ses-{}_T1w.nii.gz".format(*([i, s] * 2)) for i in range(8) for s in "12"
    ],
    "two kinds": [f"BraTS_{i:03d}_{kind}.nii.gz" for i in range(8) for kind in ("t1", "flair")],
    "folders of kinds": [f"{kind}/s{i}.nii.gz" for i in range(8) for kind in ("T1", "T2")],
    "folders of people": [f"p{i}/{kind}.nii.gz" for i in range(8) for kind in ("pre", "post")],
    "channels": [f"LungCT_{i:04d}_000{channel}.nii.gz" for i in range(8) for channel in range(2)],
    "frames": [f"patient{i:03d}_frame{frame:02d}.nii.gz" for i in range(8) for frame in (1, 12)],
    "other words": [f"{i:03d}_{kind}.nii.gz" for i in range(8) for kind in ("left", "right")],
}


@pytest.mark.parametrize("names", PEOPLE.values(), ids=PEOPLE)
def test_the_images_of_a_person_are_all_in_one_split(tmp_path, capsys, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    splits = find_splits(tmp_path, 0.1, 0.1, seed=0, recipe=None)
    places = {s: {names.index(str(Path(i["image"]).relative_to(tmp_path))) // 2 for i in splits[s]} for s in SPLITS}
    assert {split: len(items) for split, items in splits.items()} == {"training": 8, "validation": 4, "test": 4}
    assert {split: len(people) for split, people in places.items()} == {"training": 4, "validation": 2, "test": 2}
    assert "16 images are of 8 people, as their names tell (" in capsys.readouterr().out


@pytest.mark.parametrize("shares", [(0.7, 0.5), (-0.1, 0.1), (1.0, 0.0), (0.5, 0.25)])
def test_shares_that_leave_nothing_to_train_on_are_refused(source, tmp_path, shares):
    (source / "dataset.json").unlink()
    sentence = sentence_of(
        lambda: prepare(
            str(source / "images"), str(tmp_path / "out"), affine="center", validation=shares[0], test=shares[1]
        )
    )
    assert "validation and test" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("listed", [True, False])
def test_the_data_set_itself_is_never_written_over(source, listed):
    if not listed:
        (source / "dataset.json").unlink()
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    sentence = sentence_of(lambda: prepare(str(source if listed else source / "images"), str(source), affine="center"))
    assert re.search(r"The (data set's list|image) \(.*\) would be overwritten by the output", sentence)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
