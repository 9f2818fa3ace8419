"""The configs: every one is listed, resolves, checks its options, and fits the metadata."""

import json
import re
import subprocess
import sys
from importlib.metadata import requires
from importlib.util import find_spec

import bundle
import jsonschema
import pytest
import torch
from bundle.failures import bad_input
from bundle.networks import PAN
from bundle.overrides import NOTES
from monai.bundle import ConfigWorkflow
from monai.bundle.scripts import verify_metadata, verify_net_in_out
from tests.configs import load

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
    "evaluate": {"pretrained", "resume", "trained_with", "val_pairs"},
    "batch_inference": {"dataset_dir", "split", "pairs"},
    "imitation": {"alpha", "beta", "label_weight", "synthetic_alpha", "known_weight", "moved_weight"},
}


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


@pytest.mark.parametrize("name", MERGED)
def test_intensities_are_scaled_by_one_implementation_alone(bundle_root, name):
    targets = [node for path, node in walk(load(bundle_root, MERGED[name]).config) if path.endswith("_target_")]
    assert not [target for target in targets if "ScaleIntensity" in target]  # MONAI's leaves sparse images unscaled


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


@pytest.mark.parametrize("name", MERGED)
def test_the_progress_of_an_engine_hears_of_a_failure_before_what_raises_it(bundle_root, name):
    config = load(bundle_root, MERGED[name]).config
    for handlers in (config.get("train", {}).get("handlers"), config.get("validate", config).get("handlers")):
        names = [handler["_target_"] if isinstance(handler, dict) else handler for handler in handlers or ()]
        if {"bundle.stages.EngineProgress", "StatsHandler"} <= {*names}:
            assert names.index("bundle.stages.EngineProgress") < names.index("StatsHandler")


BUFFERED = """
import os, sys, torch
from monai.bundle import ConfigParser
from torch import distributed as dist

class Buffered(torch.nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
        self.register_buffer("index", torch.zeros(3))

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
parser = ConfigParser({"device": torch.device("cpu"), "cascade_def": Buffered()})
parser["network"] = ConfigParser.load_config_file(sys.argv[1])["network"]
network = parser.get_parsed_content("network").eval()
print(len(network.modules_buffers), network.will_sync_module_buffers(), flush=True)
os._exit(0)  # the threads of the group may outlive it
"""


@pytest.mark.slow
def test_validation_by_several_processes_sends_no_buffers(bundle_root):
    """As TransMorph has them: with unequal shares of the pairs, what one sends would be met by something else."""
    config = bundle_root / "configs" / "multi_gpu_train.json"
    run = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", BUFFERED, str(config)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["1", "False"]


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


@pytest.mark.parametrize("name", ["inference", "evaluate", "multi_gpu_evaluate"])
def test_bfloat16_on_a_gpu_ends_a_workflow_before_any_work(bundle_root, monkeypatch, name):
    monkeypatch.setenv("LOCAL_RANK", "0")
    parser = load(bundle_root, MERGED[name])
    parser["bfloat16"], parser["device"] = True, torch.device("cuda:0")
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("initialize")
    assert bad_input(caught.value).startswith("--bfloat16 is for CPUs, and the network runs on cuda: ")


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
