"""What the training configs draw: images, labels and clean copies, and what changes a pair together or apart."""

import json

import nibabel
import numpy as np
import pytest
import torch
from bundle.supervision import prepare_batch
from bundle.transforms import DarkestToZerod, MatchPaird, ScaleToPercentilesd
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles
from tests.configs import load


def augmented(bundle_root, small_dataset, names=("train",), **probabilities):
    """A pair of equal images after the training's augmentation: moving, fixed."""
    parser = load(bundle_root, names)
    for key, value in {"dataset_dir": str(small_dataset), "flip_probability": [0, 0, 0], **probabilities}.items():
        parser[key] = value
    image = torch.rand(1, 32, 40, 32, generator=torch.Generator().manual_seed(0))
    pair = {"moving": image, "fixed": image.clone(), "moving_label": image > 0.5, "fixed_label": image > 0.5}
    return parser.get_parsed_content("train#augmentation")(pair)["image"]


def test_without_augmentation_a_pair_of_equal_images_stays_one(bundle_root, small_dataset):
    moving, fixed = augmented(bundle_root, small_dataset)
    assert torch.equal(moving, fixed)


def written_pair(folder, air):
    """A list of two images smaller than the network's grid and their labels, their air of a value."""
    random, items = np.random.default_rng(0), []
    for i, role in enumerate(("moving", "fixed")):
        tissue = np.zeros((40, 37, 35), np.int16)
        tissue[6:-6, 5:-8, 7:-4] = random.integers(700, 1400, (28, 24, 24))
        label = (tissue > 0).astype(np.uint8)
        label[20 + i :] = 0
        folder.mkdir(parents=True, exist_ok=True)
        for kind, volume in (("image", tissue + np.int16(air)), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{role}_{kind}.nii.gz")
        items.append({kind: f"{role}_{kind}.nii.gz" for kind in ("image", "label")})
    (folder / "dataset.json").write_text(json.dumps({"training": items, "validation": items}))
    return str(folder)


def first_pair(bundle_root, dataset_dir, section, **changes):
    parser = load(bundle_root, ["train"])
    for key, value in {"dataset_dir": dataset_dir, "flip_probability": [0, 0, 0], "val_pairs": 1, **changes}.items():
        parser[key] = value
    return parser.get_parsed_content(f"{section}#dataset").set_random_state(0)[0]["image"]


@pytest.mark.parametrize("masked", [0.0, 1.0])
@pytest.mark.parametrize("section", ["train", "validate"])
def test_what_is_blank_is_as_dark_as_the_air_of_a_ct(bundle_root, tmp_path, section, masked):
    seen = [
        first_pair(bundle_root, written_pair(tmp_path / str(air), air), section, mask_probability=masked)
        for air in (0, -1000, 200)
    ]
    assert seen[0].shape == (2, 48, 48, 48)
    for other in seen[1:]:
        torch.testing.assert_close(other, seen[0], rtol=0, atol=1e-6)
    border = torch.ones(48, 48, 48, dtype=torch.bool)
    border[4:-4, 5:-5, 6:-6] = False
    assert (seen[1][:, border] == 0).all()


@pytest.mark.parametrize("section", ["train", "validate"])
def test_images_whose_air_is_0_are_what_they_were_without_the_shift(bundle_root, tmp_path, section):
    dataset_dir = written_pair(tmp_path, 0)
    shifted = first_pair(bundle_root, dataset_dir, section)
    plain = first_pair(bundle_root, dataset_dir, section, **{"image_preprocessing#transforms#2#_disabled_": True})
    assert torch.equal(shifted, plain)


def test_images_that_show_something_are_scaled_as_monai_scales_them_and_stay_as_they_were():
    image = torch.rand(1, 20, 24, 22, generator=torch.Generator().manual_seed(0)).square() * 900
    before = image.clone()
    found = ScaleToPercentilesd("image")({"image": image})["image"]
    assert torch.equal(found, ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)(image.clone()))
    assert torch.equal(image, before)


@pytest.mark.parametrize("transform", [DarkestToZerod, ScaleToPercentilesd])
def test_arrays_of_numpy_are_taken_as_tensors_are(transform):
    image = np.random.default_rng(0).integers(5, 900, (1, 20, 24, 22))[:, ::-1]
    for dtype in (np.float64, np.float32, np.int16):
        found = transform("image")({"image": image.astype(dtype)})["image"]
        expected = transform("image")({"image": MetaTensor(torch.from_numpy(image.astype(dtype).copy()))})["image"]
        assert isinstance(found, MetaTensor)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


@pytest.mark.parametrize("names", [("train",), ("train", "any_contrast"), ("train", "any_contrast", "imitation")])
@pytest.mark.parametrize("section", ["train", "validate"])
def test_an_image_that_shows_next_to_nothing_is_seen_from_0_to_1_in_shades_as_at_inference(
    bundle_root, tmp_path, names, section
):
    image = np.zeros((32, 36, 32), np.float32)
    image[14:17, 16:19, 14:17] = np.linspace(1000, 1850, 27).reshape(3, 3, 3)
    for name in ("a", "b"):
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii.gz")
    listing = {split: ["a.nii.gz", "b.nii.gz"] for split in ("training", "validation")}
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    shares = dict.fromkeys(("mask_probability", "affine_probability", "misalignment_probability"), 0.0)
    parser = load(bundle_root, names)
    for key, value in {"dataset_dir": str(tmp_path), "flip_probability": [0, 0, 0], "val_pairs": 1, **shares}.items():
        parser[key] = value
    item = parser.get_parsed_content(f"{section}#dataset").set_random_state(0)[0]
    assert all(0 <= item[key].min() < item[key].max() <= 1 for key in ("image", "clean") if key in item)
    image = item.get("clean", item["image"])
    assert len(image.unique()) > 20 or "imitation" in names  # which sees synthetic contrasts alone
    if section == "validate":
        meta = MetaTensor(torch.from_numpy(np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj))[None])
        matched = MatchPaird(affine="none")({"moving": meta, "fixed": meta})["image"]
        assert matched.max() == 1
        assert len(matched.unique()) > 2


@pytest.mark.parametrize("key", ["mask_probability", "affine_probability"])
def test_what_changes_the_pair_changes_both_images_alike(bundle_root, small_dataset, key):
    moving, fixed = augmented(bundle_root, small_dataset, **{key: 1.0})
    assert torch.equal(moving, fixed)
    assert not torch.equal(fixed, augmented(bundle_root, small_dataset)[1])


def test_in_any_contrast_images_are_shaded_where_asked_for_and_nothing_else_is_drawn_otherwise(
    bundle_root, small_dataset
):
    names, plain = ["train", "any_contrast"], {"misalignment_probability": 0.0, "real_share": 1.0}
    transforms = load(bundle_root, names).config["train"]["augmentation"]["transforms"]
    unshaded = [t for t in transforms if t.get("prob") != "@bias_field_probability"]
    assert len(transforms) == len(unshaded) + 2
    for changes in ({}, plain):
        before = drawn_by(
            bundle_root, small_dataset, names, 0, **changes, **{"train#augmentation#transforms": unshaded}
        )
        now = drawn_by(bundle_root, small_dataset, names, 0, **changes)
        assert before.keys() == now.keys()
        assert all(torch.equal(before[key], now[key]) for key in before)
    clear, shaded = (
        augmented(bundle_root, small_dataset, names, **plain, bias_field_probability=p) for p in (0.0, 1.0)
    )
    assert torch.equal(*clear)
    assert not torch.allclose(*shaded, atol=0.01)


def centre(volume):
    """The centre of mass of what is above a half, voxels."""
    return torch.nonzero(volume[0] > 0.5).double().mean(0)


SPATIAL = ("affine_probability", "misalignment_probability", "zoom_probability", "flip_probability")
AUGMENTING = {
    **dict.fromkeys(("train", "finetune", "equal_terms"), SPATIAL[:2] + SPATIAL[3:]),
    **dict.fromkeys(("any_contrast", "imitation", "one_person"), SPATIAL),
}


@pytest.mark.parametrize(
    ("name", "keys"), [(name, keys) for name, every in AUGMENTING.items() for keys in (*[(k,) for k in every], every)]
)
def test_a_label_map_lies_where_its_image_does_whatever_moves_them(bundle_root, small_dataset, name, keys):
    names = list(dict.fromkeys(["train", *(["any_contrast"] if "zoom_probability" in AUGMENTING[name] else []), name]))
    changes = {key: float(key in keys) for key in AUGMENTING[name]} | {"roi_size": [32, 40, 32], "label_weight": 1.0}
    changes["flip_probability"] = [changes["flip_probability"]] * 3
    if "any_contrast" in names:  # what the network sees is the image itself
        changes |= {"real_share": 1.0, "alike_share": 0.0, "rescan_share": 0.0}
    parser = load(bundle_root, names)
    for key, value in {"dataset_dir": str(small_dataset), **changes}.items():
        parser[key] = value
    augmentation = parser.get_parsed_content("train#augmentation").set_random_state(0)
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in (32, 40, 32)], indexing="ij"), -1)
    head = (((index - torch.tensor([14, 21, 17])) / torch.tensor([7.0, 9.0, 6.0])).norm(dim=-1) < 1)[None].float()
    apart = []
    for _ in range(10):
        item = augmentation({key: head.clone() for key in ("moving", "fixed", "moving_label", "fixed_label")})
        moving = [item["image"][:1], *([item["clean_moving"]] if "clean_moving" in item else [])]
        for role, seen in (("moving", moving), ("fixed", [item["image"][1:], item["label"]])):
            apart += [centre(one) - centre(item[f"{role}_label"]) for one in seen]
    assert torch.stack(apart).mean(0).abs().max() < 0.15


@pytest.mark.parametrize("key", ["misalignment_probability", "bias_field_probability"])
def test_what_tells_the_images_apart_changes_one_of_them(bundle_root, small_dataset, key):
    moving, fixed = augmented(bundle_root, small_dataset, **{key: 1.0})
    assert not torch.allclose(moving, fixed, atol=0.01)
    if key == "misalignment_probability":
        assert torch.equal(fixed, augmented(bundle_root, small_dataset)[1])


def drawn_by(bundle_root, small_dataset, names, seed, **changes):
    """A pair of the small data set after the augmentation of some configs, cropped, turned and mirrored."""
    parser = load(bundle_root, names)
    spatial = {"affine_probability": 1.0, "misalignment_probability": 1.0, "roi_size": [16, 24, 18]}
    for key, value in {"dataset_dir": str(small_dataset), **spatial, **changes}.items():
        parser[key] = value
    pairs = parser.get_parsed_content("train#dataset")
    augmentation, pairs.pair_transform = pairs.pair_transform, None
    return augmentation.set_random_state(seed)(pairs.set_random_state(seed)[0])


def test_clean_images_and_labels_go_through_the_same_space_as_what_the_network_sees(bundle_root, small_dataset):
    names, two = ["train", "any_contrast"], {"alike_share": 0.0, "real_share": 0.0, "rescan_share": 0.0}
    for seed in range(3):
        real = drawn_by(bundle_root, small_dataset, names, seed, **two | {"real_share": 1.0})
        item = drawn_by(bundle_root, small_dataset, names, seed, **two)
        assert torch.equal(item["label"], real["image"][1:])
        assert torch.equal(item["clean_moving"], real["image"][:1])
        assert not torch.equal(item["image"], real["image"])
        for role in ("moving", "fixed"):
            labels = item[f"{role}_label"]
            assert labels.shape == (1, 16, 24, 18)
            assert torch.equal(labels, real[f"{role}_label"])
            assert torch.equal(labels, labels.round())
            assert len(labels.unique()) > 3
        blank = item["label"] == 0
        assert (item["image"][1:][blank] == 0).all()


def test_a_varied_appearance_is_seen_by_the_network_alone(bundle_root, small_dataset):
    names, real = ["train", "any_contrast"], {"real_share": 1.0, "rescan_share": 0.0}
    plain = drawn_by(bundle_root, small_dataset, names, 0, **real)
    varied = drawn_by(bundle_root, small_dataset, names, 0, appearance_probability=1.0, **real)
    for key in ("label", "clean_moving", "moving_label", "fixed_label"):
        assert torch.equal(varied[key], plain[key])
    for seen, clean in zip(varied["image"], plain["image"], strict=True):
        change = (seen - clean).abs()
        assert change.mean() > 0.01
        assert torch.corrcoef(torch.stack([seen.flatten(), clean.flatten()]))[0, 1] > 0.8  # one contrast
    again = drawn_by(bundle_root, small_dataset, names, 0, appearance_probability=1.0, **real)
    assert torch.equal(again["image"], varied["image"])


def test_training_carries_label_maps_where_their_weight_asks_for_them(bundle_root, small_dataset):
    names = ["train"]
    plain = drawn_by(bundle_root, small_dataset, names, 0)
    assert set(plain) == {"image", "label"}
    item = drawn_by(bundle_root, small_dataset, names, 0, label_weight=0.5)
    assert set(item) == {"image", "label", "moving_label", "fixed_label"}
    assert torch.equal(item["image"], plain["image"])  # which the labels do not touch
    for role in ("moving", "fixed"):
        assert torch.equal(item[f"{role}_label"], item[f"{role}_label"].round())
    # what a label covers is bright where it is bright in the image: both were moved alike
    brain = item["fixed_label"] > 0
    assert item["label"][brain].mean() > 1.5 * item["label"][~brain].mean()


def test_any_contrast_goes_without_label_maps_where_told_to_but_for_masks(bundle_root, small_dataset):
    names, shares = ["train", "any_contrast"], {"rescan_share": 0.5, "shapes_share": 0.3, "zoom_probability": 1.0}
    for seed in range(6):
        item = drawn_by(bundle_root, small_dataset, names, seed, label_keys=[], mask_probability=1.0, **shares)
        assert set(item) == {"image", "label", "clean_moving", "known", "known_ddf", "synthetic"}
        assert all(item[key].shape[1:] == (16, 24, 18) for key in ("image", "label", "clean_moving"))
        assert (item["label"] == 0).any()


@pytest.mark.parametrize("labelled", [0, 2])
@pytest.mark.parametrize("names", [["train"], ["train", "any_contrast"]])
def test_a_batch_and_the_loss_take_images_of_which_some_or_all_lack_labels(
    bundle_root, small_dataset, tmp_path, names, labelled
):
    listing = json.loads((small_dataset / "dataset.json").read_text())
    items = [{k: str(small_dataset / v) for k, v in item.items()} for item in listing["training"]]
    items = [item if i < labelled else {"image": item["image"]} for i, item in enumerate(items)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": items, "validation": items}))
    shares = {"rescan_share": 0.3, "shapes_share": 0.3} if "any_contrast" in names else {}
    masked = {"mask_probability": 0.5 if labelled else 0.0}
    options = {"dataset_dir": str(tmp_path), "label_weight": 1.0, "batch_size": 4, "repeats": 4, "val_pairs": 6}
    parser = load(bundle_root, names)
    for key, value in {**options, **shares, **masked, "num_workers": 1}.items():
        parser[key] = value
    loss = parser.get_parsed_content("loss")
    for batch in parser.get_parsed_content("train#dataloader"):
        image, supervision = prepare_batch(batch)
        assert len(image) == 4
        found = loss(torch.cat([image[:, :1], torch.zeros(4, 3, *image.shape[2:])], 1), supervision)
        assert torch.isfinite(found)
    for batch in parser.get_parsed_content("validate#dataloader"):
        assert ("moving_label" in batch) == ("fixed_label" in batch) == bool(labelled)
