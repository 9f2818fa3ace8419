import json
import re
from importlib.metadata import requires
from importlib.util import find_spec

import bundle
import jsonschema
import nibabel
import numpy as np
import pytest
import torch
from bundle.failures import bad_input
from bundle.networks import PAN
from bundle.overrides import NOTES
from bundle.supervision import prepare_batch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.scripts import verify_metadata, verify_net_in_out

CONFIGS = [
    "abdomenmrct",
    "any_contrast",
    "batch_inference",
    "equal_terms",
    "evaluate",
    "finetune",
    "imitation",
    "inference",
    "ixi",
    "lpba40",
    "metadata",
    "multi_gpu_evaluate",
    "multi_gpu_train",
    "one_person",
    "train",
]
PEERS = ["dual_prnet", "transmorph", "vit_vnet", "voxelmorph"]
MERGED = {
    "train": ["train"],
    "evaluate": ["train", "evaluate"],
    "inference": ["inference"],
    "batch_inference": ["inference", "batch_inference"],
    "finetune": ["train", "finetune"],
    "equal_terms": ["train", "equal_terms"],
    "any_contrast": ["train", "any_contrast"],
    "imitation": ["train", "any_contrast", "imitation"],
    "one_person": ["train", "any_contrast", "one_person"],
    **{f"peers/{name}": ["train", f"peers/{name}"] for name in PEERS},
    "ixi": ["train", "ixi", "evaluate"],
    "lpba40": ["train", "lpba40", "evaluate"],
    "abdomenmrct": ["train", "abdomenmrct", "evaluate"],
    "multi_gpu_train": ["train", "multi_gpu_train"],
    "multi_gpu_evaluate": ["train", "evaluate", "multi_gpu_evaluate"],
}

NOT_REFERRED_TO = {"_meta_", "imports", "initialize", "finalize", "training", "evaluating", "inferring"}  # but run
REPLACED = {  # with what took them; ``bundle.overrides`` refuses them as options
    "evaluate": {"pretrained", "resume", "val_pairs"},
    "batch_inference": {"dataset_dir", "split", "pairs"},
    "imitation": {"alpha", "beta", "label_weight", "synthetic_alpha", "known_weight", "moved_weight"},
}


def load(bundle_root, names):
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / f"{name}.json") for name in names])
    return parser


def walk(node, path=""):
    yield path, node
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from walk(value, f"{path}::{key}" if path else str(key))


def test_every_config_is_listed_and_is_json_with_four_spaces(bundle_root):
    paths = sorted((bundle_root / "configs").glob("*.json"))
    assert [path.stem for path in paths] == CONFIGS
    peers = sorted((bundle_root / "configs/peers").glob("*.json"))
    assert [path.stem for path in peers] == PEERS
    for path in paths + peers:
        text = path.read_text()
        assert text == json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n", path.name


@pytest.mark.parametrize("name", MERGED)
def test_every_target_and_reference_of_a_config_resolves(bundle_root, name):
    parser = load(bundle_root, MERGED[name])
    ids = set()
    for path, node in walk(parser.config):
        ids.add(path)
        if path.endswith("_target_"):
            component = parser.get_parsed_content if "." not in node else None
            if component is None:
                module, attribute = node.rsplit(".", 1)
                assert find_spec(module), node
                assert hasattr(__import__(module, fromlist=[attribute]), attribute), node
    for path, node in walk(parser.config):
        if isinstance(node, str):
            for reference in re.findall(r"[@%]([A-Za-z_]\w*(?:(?:#|::)\w+)*)", node):
                assert reference.replace("#", "::") in ids, f"{path} refers to {reference}"


@pytest.mark.parametrize("name", MERGED)
def test_every_option_of_a_config_is_referred_to(bundle_root, name):
    config = load(bundle_root, MERGED[name]).config
    config.pop(NOTES, None)
    text = json.dumps([{key: value} for key, value in config.items()])
    taken = {*re.findall(r"[@%](\w+)", text), *NOT_REFERRED_TO}
    assert {*config} - taken == REPLACED.get(name, REPLACED["evaluate"] if "evaluate" in MERGED[name] else set())


@pytest.mark.parametrize("name", MERGED)
def test_no_expression_of_a_config_is_longer_than_a_line(bundle_root, name):
    for path, node in walk(load(bundle_root, MERGED[name]).config):
        if isinstance(node, str) and node.startswith("$"):
            assert len(node) <= 160, f"{path}: {node}"


@pytest.mark.parametrize("name", MERGED)
def test_own_code_is_reached_through_targets_only(bundle_root, name):
    config = load(bundle_root, MERGED[name]).config
    for expression in [*config["imports"], *config["initialize"]]:
        if isinstance(expression, dict):
            assert expression["_target_"].startswith("bundle.")
            continue
        assert "bundle." not in expression.replace("monai.bundle.", "").replace("@bundle", ""), expression


def test_the_metadata_fits_its_schema(bundle_root):
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())
    schema = json.loads((bundle_root / "tests/data/meta_schema_20240725.json").read_text())
    jsonschema.validate(metadata, schema)


def test_monai_verifies_the_metadata_offline(bundle_root, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text((bundle_root / "tests/data/meta_schema_20240725.json").read_text())
    verify_metadata(meta_file=str(bundle_root / "configs/metadata.json"), filepath=str(schema))


def test_the_network_takes_and_gives_what_the_metadata_says(bundle_root):
    verify_net_in_out(
        net_id="network_def",
        config_file=str(bundle_root / "configs/inference.json"),
        meta_file=str(bundle_root / "configs/metadata.json"),
        device="cpu",
    )


def test_one_version_stands_everywhere(bundle_root):
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())
    changelog = (bundle_root / "CHANGELOG.md").read_text()
    assert metadata["version"] == bundle.__version__
    assert bundle.__version__ in metadata["changelog"]
    assert re.search(r"^## (\S+)", changelog, re.M).group(1) == bundle.__version__


def test_the_metadata_pins_what_the_constraints_pin(bundle_root):
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (bundle_root / "constraints.txt").read_text(), re.M))
    named = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    named |= {"numpy": metadata["numpy_version"]} | metadata["required_packages_version"]
    assert {name: pins.get(name) for name in named} == named


def test_every_requirement_is_pinned(bundle_root):
    pins = {name.lower() for name in re.findall(r"^([\w.-]+)==", (bundle_root / "constraints.txt").read_text(), re.M)}
    needed = {re.match(r"[\w.-]+", line).group(0).lower() for line in requires("pan-registration")}
    assert needed <= pins


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["train"], "train"),
        (["train", "evaluate"], "train"),
        (["train", "finetune"], "train"),
        (["train", "any_contrast"], "train"),
        (["inference"], "inference"),
    ],
)
def test_monai_finds_every_property_it_asks_for(bundle_root, small_dataset, fresh_weights, tmp_path, names, kind):
    workflow = ConfigWorkflow(
        [str(bundle_root / "configs" / f"{name}.json") for name in names],
        meta_file=str(bundle_root / "configs/metadata.json"),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(bundle_root),
        dataset_dir=str(small_dataset),
        output_dir=str(tmp_path),
        ckpt=str(fresh_weights),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("name", ["multi_gpu_train", "multi_gpu_evaluate"])
def test_several_processes_check_what_one_checks_before_any_work(bundle_root, name):
    *one, last = MERGED[name]
    replaced = load(bundle_root, one).config["initialize"]
    own = json.loads((bundle_root / f"configs/{last}.json").read_text())["initialize"]
    checks = [step for step in replaced if isinstance(step, dict) or step.startswith("@")]
    assert "@flags" in checks
    assert [step for step in own if step in checks] == checks


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("train", "amp"),
        ("multi_gpu_train", "amp"),
        *[(n, f) for n in ("evaluate", "multi_gpu_evaluate") for f in ("amp", "bfloat16", "same_person")],
        ("inference", "same_person"),
    ],
)
def test_a_flag_that_is_neither_true_nor_false_ends_a_workflow_before_any_work(bundle_root, monkeypatch, name, flag):
    monkeypatch.setenv("LOCAL_RANK", "0")
    parser = load(bundle_root, MERGED[name])
    parser[flag] = "no"
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("initialize")
    assert bad_input(caught.value) == f"{flag} takes True or False, spelt like that, not 'no'."


MAY_CHANGE = {  # where and how a training runs and what it tells, but not what it learns
    *("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "device", "resume", "amp", "bfloat16", "num_workers"),
    *("cache_rate", "epochs", "val_interval", "patience"),
}


@pytest.mark.parametrize("name", [n for n in MERGED if MERGED[n][0] == "train" and "evaluate" not in MERGED[n]])
def test_every_option_of_a_training_is_noted_for_one_that_goes_on_or_may_change(bundle_root, name):
    config = load(bundle_root, MERGED[name]).config
    options = {key for key, value in config.items() if not isinstance(value, dict)}
    options -= {"imports", "initialize", "run", "finalize", "training", "network"}
    of_data = {"spatial_size", "gamma", "images"}  # found out, the first two unless given
    assert options - MAY_CHANGE == config["resumption"]["settings"].keys() - of_data


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


def test_training_starts_from_given_weights(bundle_root, small_dataset, tmp_path):
    parser = load(bundle_root, ["train"])
    weights = {name: torch.full_like(value, 0.25) for name, value in PAN().state_dict().items()}
    torch.save(weights, tmp_path / "weights.pt")
    changes = {
        "dataset_dir": str(small_dataset),
        "output_dir": str(tmp_path),
        "pretrained": str(tmp_path / "weights.pt"),
    }
    for key, value in changes.items():
        parser[key] = value
    parser.get_parsed_content("initialize")
    network = parser.get_parsed_content("network")
    assert all((value == 0.25).all() for value in network.state_dict().values())


def test_weights_of_another_network_are_refused_before_anything_is_written(bundle_root, small_dataset, tmp_path):
    parser = load(bundle_root, ["train"])
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    changes = {"dataset_dir": str(small_dataset), "output_dir": str(tmp_path / "out")}
    for key, value in (changes | {"pretrained": str(tmp_path / "other.pt")}).items():
        parser[key] = value
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("initialize")
    assert "belong to another network" in bad_input(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compiled", [False, True])
def test_inference_compiles_the_network_where_asked_for(bundle_root, fresh_weights, compiled):
    workflow = ConfigWorkflow(
        str(bundle_root / "configs/inference.json"),
        meta_file=str(bundle_root / "configs/metadata.json"),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(bundle_root),
        ckpt=str(fresh_weights),
        compiled=compiled,
        **{"dataset#data": []},
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("evaluator").network
    assert (network._compiled_call_impl is not None) == compiled
    assert set(network.state_dict()) == set(torch.load(fresh_weights, weights_only=True))


@pytest.mark.parametrize("asked", [{}, {"passes": 1}, {"gamma": 1.4, "sharpening": 0.0}, {"passes": 3, "gamma": 0.7}])
def test_what_is_asked_of_the_network_stays_whichever_weights_are_taken(bundle_root, asked):
    parser = load(bundle_root, ["inference"])
    options = {"bundle_root": str(bundle_root), "device": "$torch.device('cpu')", "same_person": True, **asked}
    parser.update(options)
    choice, settings = (parser.get_parsed_content(name) for name in ("weights_choice", "settings"))
    usual = {"passes": 1, "gamma": 1.4, "sharpening": 0.0} | asked  # by models/model.json
    inferer = parser.get_parsed_content("inferer")
    assert {name: settings[name] for name in usual} == {name: getattr(inferer, name) for name in usual} == usual
    alike = {"contrast_correlation": 0.99, "tissue_correlation": 0.99}
    found = choice.settings_for(alike, settings)
    assert choice.weights_for(alike).endswith("one_person.pt")
    assert {name: found[name] for name in usual} == {"passes": 2, "gamma": 1.0, "sharpening": 0.0} | asked
