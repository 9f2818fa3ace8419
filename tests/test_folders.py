"""Folders of images without a list: what is taken for an image, what for its label map, what is said of the rest."""

from pathlib import Path

import pytest
from bundle.folders import sort_folder
from bundle.transforms import read_volume


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder, pattern=None):
    """Each image's place in the folder, and its label map's."""
    return {
        str(Path(item["image"]).relative_to(folder)): item.get("label") and str(Path(item["label"]).relative_to(folder))
        for item in sort_folder(folder, pattern)
    }


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/c{}.nii.gz", "labels/c{}.nii.gz"),
        ("imagesTr/c{}_0000.nii.gz", "masksTr/c{}.nii.gz"),
        ("images/{:04d}.nii.gz", "labels/{:04d}.nii.gz"),
        ("c{}.nii.gz", "c{}_seg.nii.gz"),
        ("image{}.nii", "label{}.nii"),
        ("c{}/img.nrrd", "c{}/segmentation.nrrd"),
        ("c{}/T1.nii.gz", "c{}/labels.nii.gz"),
        ("site/images/c-{}.mha", "site/Labels/c-{}.mha"),
        ("sub-0{0}/anat/sub-0{0}_T1w.nii.gz", "sub-0{0}/anat/sub-0{0}_dseg.nii.gz"),
        ("BraTS_00{}_t1.nii.gz", "BraTS_00{}_seg.nii.gz"),
        ("OASIS_{}/aligned_norm.nii.gz", "OASIS_{}/aligned_seg35.nii.gz"),
        ("T1/s{}.nii", "Segs/s{}_GT.nii"),
        ("T1/c{}.nii", "labels/c{}.nii"),
        ("patient{}_frame01.nii.gz", "patient{}_frame01_gt.nii.gz"),
        ("s{}/mri/orig.nii", "s{}/mri/aparc+aseg.nii"),
    ],
)
def test_label_maps_go_with_the_images_of_their_names(tmp_path, capsys, image, label):
    pairs = {image.format(i): label.format(i) for i in range(4)}
    touch(tmp_path, *pairs, *pairs.values(), f"._{next(iter(pairs))}")
    assert found(tmp_path) == pairs
    first = ", ".join(sorted(pairs)[:3])
    one = min(pairs)
    said = f"{tmp_path}: 4 images ({first}, …), 4 with a label map ({pairs[one]} of {one})\n"
    assert capsys.readouterr().out == said


def test_names_that_only_sound_alike_are_those_of_images(tmp_path):
    names = ["a_masked.nii.gz", "b_labelled.nii.gz", "c_unsegmented.nii.gz", "derivative.nii.gz"]
    touch(tmp_path, *names)
    assert found(tmp_path) == dict.fromkeys(names)


def test_derivatives_and_masks_of_a_bids_folder_are_left_out_and_told(tmp_path, capsys):
    scans = [f"sub-0{i}/anat/sub-0{i}_T1w.nii.gz" for i in range(3)]
    made = [f"derivatives/sub-0{i}/anat/sub-0{i}_desc-brain_mask.nii.gz" for i in range(3)]
    masks = ["sub-00/anat/sub-00_desc-brain_mask.nii.gz"]
    touch(tmp_path, *scans, *made, *masks, "sub-00/anat/sub-00_T1w.json")
    assert found(tmp_path) == dict.fromkeys(scans)
    said = capsys.readouterr().out
    assert f"left out: 3 derivatives ({', '.join(made)}); 1 label maps or masks of no image that is taken (" in said
    assert "several kinds" not in said
    assert found(tmp_path, "derivatives/*_mask.nii.gz") == dict.fromkeys(made)


def test_several_kinds_of_images_are_told_and_a_pattern_takes_one(tmp_path, capsys):
    kinds = {"T1w": "anat", "T2w": "anat", "bold": "func"}
    touch(tmp_path, *(f"sub-{i}/{folder}/sub-{i}_{kind}.nii.gz" for i in (1, 2) for kind, folder in kinds.items()))
    assert len(found(tmp_path)) == 6
    said = capsys.readouterr().out
    assert "holds several kinds of images (2 T1w, 2 T2w, 2 bold), all of which are taken: --pattern '*_T1w.*'" in said
    assert [*found(tmp_path, "*_T1w.*")] == [f"sub-{i}/anat/sub-{i}_T1w.nii.gz" for i in (1, 2)]
    said = capsys.readouterr().out
    assert "4 not of the pattern" in said
    assert "several kinds" not in said
    assert len(found(tmp_path, "sub-1/*")) == 3


def test_a_pattern_of_all_files_does_not_make_images_of_label_maps(tmp_path):
    touch(tmp_path, *(f"{kind}/{i}.nii.gz" for kind in ("images", "labels") for i in range(3)))
    assert [*found(tmp_path, "*.nii.gz").values()] == [f"labels/{i}.nii.gz" for i in range(3)]
    assert found(tmp_path, "labels/*") == {f"labels/{i}.nii.gz": None for i in range(3)}


def test_names_without_kinds_are_told_of_none(tmp_path, capsys):
    touch(tmp_path, *(f"scan_{letter}.nii.gz" for letter in "abcd"))
    assert len(found(tmp_path)) == 4
    assert "several kinds" not in capsys.readouterr().out


def test_formats_that_are_passed_over_are_told(tmp_path, capsys):
    touch(tmp_path, "a.nii.gz", "b.nii", "c.mgz", "d.img", "d.hdr", "notes.txt")
    assert len(found(tmp_path)) == 2
    assert "left out: 2 formats that are not read here (c.mgz, d.img)" in capsys.readouterr().out
    (tmp_path / "b.nii").unlink()
    with pytest.raises(ValueError, match=r"holds 1 images .*Left out: 2 formats that are not read here \(c"):
        sort_folder(tmp_path)


@pytest.mark.parametrize("name", ["MR/1.DCM", "MR/1.dcm", "MR/IM0001", "MR/1.2.840.7"])
def test_what_to_do_with_dicom_is_told_as_register_tells_it(tmp_path, capsys, name):
    touch(tmp_path, "a.nii.gz", "b.nii", "README", name)
    (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    assert len(found(tmp_path)) == 2
    said = capsys.readouterr().out
    assert (
        f"left out: 1 formats that are not read here ({name}). DICOM series are registered by the application" in said
    )
    (tmp_path / "b.nii").unlink()
    with pytest.raises(ValueError, match=r"holds 1 images .* as dcm2niix makes them of series\.") as refusal:
        sort_folder(tmp_path)
    with pytest.raises(ValueError, match="is a folder or a DICOM file") as others:
        read_volume(tmp_path, "moving_image", is_label=False)
    assert str(refusal.value).endswith(str(others.value).partition("file: ")[2])


def test_a_segmentation_goes_before_a_mask(tmp_path, capsys):
    touch(tmp_path, *(f"{i}{kind}.nii.gz" for i in range(2) for kind in ("", "_mask", "_seg")))
    assert found(tmp_path) == {f"{i}.nii.gz": f"{i}_seg.nii.gz" for i in range(2)}
    assert "left out: 2 label maps or masks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("image", "label", "mask"),
    [
        ("sub-{}_T1w.nii", "sub-{}_dseg.nii", "sub-{}_T1w_brainmask.nii"),
        ("{}/mri/orig.nii", "{}/mri/aparc+aseg.nii", "{}/mri/brainmask.nii"),
    ],
)
def test_a_segmentation_of_the_subject_goes_before_a_mask_of_the_image(tmp_path, capsys, image, label, mask):
    touch(tmp_path, *(name.format(i) for i in range(3) for name in (image, label, mask)))
    assert found(tmp_path) == {image.format(i): label.format(i) for i in range(3)}
    assert f"left out: 3 label maps or masks that others go before ({mask.format(0)}" in capsys.readouterr().out


def test_of_two_segmentations_none_is_taken_until_one_is_named_as_the_image(tmp_path, capsys):
    touch(tmp_path, *(f"O{i}/aligned_{kind}.nii" for i in range(2) for kind in ("norm", "seg35", "seg4")))
    images = [f"O{i}/aligned_norm.nii" for i in range(2)]
    assert found(tmp_path) == dict.fromkeys(images)
    assert "left out: 4 label maps that are not the only ones of an image" in capsys.readouterr().out
    for i in range(2):
        (tmp_path / f"O{i}/aligned_seg35.nii").rename(tmp_path / f"O{i}/aligned_norm_seg.nii")
    assert found(tmp_path) == {image: image.replace(".nii", "_seg.nii") for image in images}


def test_a_segmentation_of_several_images_is_that_of_the_one_that_a_pattern_takes(tmp_path, capsys):
    touch(tmp_path, *(f"B_{i}_{kind}.nii" for i in range(2) for kind in ("t1", "t2", "seg")))
    assert {*found(tmp_path).values()} == {None}
    assert "--pattern takes one kind of images" in capsys.readouterr().out
    assert found(tmp_path, "*_t1.nii") == {f"B_{i}_t1.nii": f"B_{i}_seg.nii" for i in range(2)}


@pytest.mark.parametrize("label", ["sub-1_dseg.nii", "c_seg.nii", "sub-01_ses-1_dseg.nii"])
def test_a_segmentation_is_not_taken_for_that_of_another_subject_or_session(tmp_path, label):
    names = ["sub-1b_T1w.nii", "sub-01_ses-2_T1w.nii", "sub-2_T1w.nii", "c_1.nii"]
    touch(tmp_path, *names, label)
    assert found(tmp_path) == dict.fromkeys(sorted(names))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a.nii", "b.nii", "a_seg.nii", "labels/a.nii"], r"a\.nii may have several label maps \(a_seg\.nii, labels/a"),
        (["a.nii", "a.nrrd", "labels/a.nii"], r"labels/a\.nii may be the label map of a\.nii, a\.nrrd: name one"),
        (["a_seg.nii", "b_seg.nii"], r"holds 0 images .* Left out: 2 label maps .* --pattern says which files are"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_in_a_sentence(tmp_path, names, sentence):
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=sentence):
        sort_folder(tmp_path)
