"""Images and label maps read from files of every format, or refused in one sentence."""

import nibabel
import numpy as np
import pytest
import torch
from bundle.io.images import write_image
from bundle.transforms import MatchPaird, ReadVolumed, grid_of
from tests.pictures import SHAPE, oblique, picture, regions


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_every_format_reads_as_the_same_values_in_the_same_place(tmp_path, ending):
    image, path = picture(), tmp_path / f"image{ending}"
    write_image(image.as_tensor(), oblique(), path)
    read = ReadVolumed(keys=["moving"])({"moving": str(path)})
    assert torch.equal(read["moving"].as_tensor(), image.as_tensor())
    assert read["moving"].dtype == torch.float32
    assert np.allclose(read["moving"].affine, image.affine, atol=2e-5)
    assert grid_of(read["moving"]).is_close(oblique())
    assert read["seconds"]["read"] > 0


def test_tensors_pass_through_and_missing_keys_are_passed_over():
    image, label = picture(), regions()
    read = ReadVolumed(keys=["moving", "moving_label", "fixed"], labels=["moving_label"])(
        {"moving": image, "moving_label": label, "name": "pair"}
    )
    assert read["moving"] is image
    assert read["moving_label"] is label
    assert read["name"] == "pair"
    assert "fixed" not in read


@pytest.mark.parametrize(
    ("given", "kind"), [(torch.rand(1, *SHAPE), "Tensor"), (np.ones((1, *SHAPE), np.float32), "ndarray"), (7, "int")]
)
def test_what_does_not_say_where_its_voxels_lie_is_refused_in_a_sentence(given, kind):
    with pytest.raises(ValueError, match=rf"^The moving mask is of type {kind}, .*: give the path of a file"):
        ReadVolumed(keys=["moving_mask"], labels=["moving_mask"])({"moving_mask": given})
    with pytest.raises(ValueError, match=f"^A volume is of type {kind}, which does not say where its voxels lie"):
        MatchPaird(affine="none")({"moving": given, "fixed": picture()})


def save(array, path, affine=None):
    nibabel.save(nibabel.Nifti1Image(np.asarray(array, np.float32), np.eye(4) if affine is None else affine), path)
    return path


def truncated(folder):
    path = save(np.random.default_rng(0).random(SHAPE), folder / "cut.nii.gz")
    path.write_bytes(path.read_bytes()[:2000])
    return path


def named(content, name):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def dicom_folder(folder):
    (folder / "series").mkdir()
    (folder / "series" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    return folder / "series"


def with_value(value):
    image = np.random.default_rng(0).random(SHAPE)
    image[3, 4, 5] = value
    return image


def precise(path, value=-1e200):
    nibabel.save(nibabel.Nifti1Image(with_value(value), np.eye(4)), path)  # float64
    return path


BAD = {
    "missing": (lambda d: d / "none.nii.gz", FileNotFoundError, "does not exist"),
    "truncated": (truncated, ValueError, "cannot be used: it is cut off or damaged"),
    "empty file": (named(b"", "empty.nii.gz"), ValueError, "cannot be read as"),
    "text": (named(b"not an image", "text.nrrd"), ValueError, "cannot be read as"),
    "DICOM folder": (dicom_folder, ValueError, "application in deploy_app"),
    "DICOM file": (named(b"\0" * 128 + b"DICM", "slice.dcm"), ValueError, "application in deploy_app"),
    "2-D": (
        lambda d: save(np.ones((9, 8)), d / "plane.nii.gz"),
        ValueError,
        r"single slice \(9×8×1 voxels\).* several",
    ),
    "one slice": (lambda d: save(np.ones((9, 8, 1)), d / "slice.nii.gz"), ValueError, r"single slice \(9×8×1 voxels\)"),
    "4-D": (lambda d: save(np.ones((9, 8, 7, 5)), d / "series.nii.gz"), ValueError, "is no single 3-D volume"),
    "NaN": (lambda d: save(with_value(np.nan), d / "nan.nii.gz"), ValueError, "holds NaN or infinite values"),
    "infinite": (lambda d: save(with_value(np.inf), d / "inf.nii.gz"), ValueError, "holds NaN or infinite values"),
    "beyond float32": (
        lambda d: precise(d / "large.nii.gz"),
        ValueError,
        "holds values beyond 3.4e38, the range of 32",
    ),
    "constant": (lambda d: save(np.full(SHAPE, 7), d / "flat.nii.gz"), ValueError, "same value everywhere"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_image_that_cannot_be_registered_is_refused_in_one_sentence_with_its_path(tmp_path, kind):
    make, error, words = BAD[kind]
    path = make(tmp_path)
    with pytest.raises(error, match=words) as caught:
        ReadVolumed(keys=["moving"])({"moving": str(path)})
    sentence = str(caught.value)
    assert str(path) in sentence
    assert sentence.startswith("The moving (")
    assert "\n" not in sentence


def test_an_infinite_value_of_64_bits_is_no_value_beyond_32(tmp_path):
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        ReadVolumed(keys=["moving"])({"moving": str(precise(tmp_path / "inf.nii.gz", np.inf))})


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_a_label_map_of_fractions_or_negative_numbers_is_refused(tmp_path, value):
    labels = np.ones(SHAPE)
    labels[1, 2, 3] = value
    path = save(labels, tmp_path / "label.nii.gz")
    with pytest.raises(ValueError, match=r"The fixed label \(.*label\.nii\.gz\) is no label map: .* whole numbers"):
        ReadVolumed(keys=["fixed_label"], labels=["fixed_label"])({"fixed_label": str(path)})


def test_a_volume_with_a_trailing_axis_of_one_is_read_as_one_volume(tmp_path):
    path = save(np.random.default_rng(0).random((9, 8, 7, 1)), tmp_path / "single.nii.gz")
    assert ReadVolumed(keys=["moving"])({"moving": str(path)})["moving"].shape == (1, 9, 8, 7)


def test_a_label_map_may_be_constant(tmp_path):
    path = save(np.ones(SHAPE), tmp_path / "mask.nii.gz")
    read = ReadVolumed(keys=["fixed_mask"], labels=["fixed_mask"])({"fixed_mask": str(path)})
    assert (read["fixed_mask"] == 1).all()


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("number", [40000, 614454277, 3_000_000_000, 2**53 + 1, 2**63 - 1])
def test_labels_of_any_size_are_read_exactly(tmp_path, ending, number):
    labels = torch.zeros(1, *SHAPE, dtype=torch.int64)
    labels[0, 3, 4, 5] = number
    write_image(labels, oblique(), tmp_path / f"label{ending}")
    read = ReadVolumed(keys=["label"], labels=["label"])({"label": str(tmp_path / f"label{ending}")})["label"]
    assert not read.is_floating_point()
    assert torch.equal(read.as_tensor().long(), labels)
    assert grid_of(read).is_close(oblique())


@pytest.mark.parametrize("extra", ["label", "moving_label", "fixed_mask"])
def test_a_label_map_stored_along_other_axes_is_brought_to_the_order_of_its_image(tmp_path, extra):
    image = "image" if extra == "label" else extra.split("_")[0]
    nibabel.save(nibabel.Nifti1Image(picture()[0].numpy(), picture().affine.numpy()), tmp_path / "image.nii.gz")
    label = nibabel.Nifti1Image(regions()[0].numpy().astype(np.uint8), regions().affine.numpy())
    axes = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(label.affine), nibabel.orientations.axcodes2ornt("PSR")
    )
    nibabel.save(label.as_reoriented(axes), tmp_path / "label.nii.gz")
    assert nibabel.load(tmp_path / "label.nii.gz").shape != SHAPE
    item = {image: str(tmp_path / "image.nii.gz"), extra: str(tmp_path / "label.nii.gz")}
    read = ReadVolumed(keys=[image, extra], labels=[extra])(item)
    assert torch.equal(read[extra].as_tensor().long(), regions().as_tensor().long())
    assert np.array_equal(read[extra].affine, read[image].affine)


def test_a_label_map_on_another_grid_is_refused_where_it_is_read_for_training_too(tmp_path):
    nibabel.save(nibabel.Nifti1Image(picture()[0].numpy(), picture().affine.numpy()), tmp_path / "image.nii.gz")
    moved = regions().affine.numpy().copy()
    moved[:3, 3] += 1
    save(regions()[0].numpy(), tmp_path / "label.nii.gz", moved)  # of the same shape
    item = {"image": str(tmp_path / "image.nii.gz"), "label": str(tmp_path / "label.nii.gz")}
    with pytest.raises(ValueError, match=r"The label \(.*label\.nii\.gz\) has .* voxels and its own position"):
        ReadVolumed(keys=["image", "label"], labels=["label"])(item)


def test_a_label_map_elsewhere_is_refused_with_what_its_header_leaves_open(tmp_path):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    image = save(np.random.default_rng(0).random((8, 9, 7)), tmp_path / "image.nii.gz", affine)
    label = nibabel.Nifti1Image(np.ones((8, 9, 7), np.uint8), affine)
    affine[:3, 3] = 30
    label.header.set_qform(affine, 1)  # as of a tool that moves one of the two forms alone
    nibabel.save(label, tmp_path / "label.nii.gz")
    read = ReadVolumed(keys=["moving", "moving_label"], labels=["moving_label"])
    with pytest.raises(ValueError, match="copy its image's header if it was drawn on that, else resample") as told:
        read({"moving": str(image), "moving_label": str(tmp_path / "label.nii.gz")})
    assert "first. Of it: its qform (code 1), sform (code 2) and voxel size disagree, by up to 52 mm" in str(told.value)
    assert "Of its image" not in str(told.value)
