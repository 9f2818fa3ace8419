"""Each peer, as its config has it, through what PAN goes through: train, evaluate, register, compare, export."""

import csv
import json
from pathlib import Path

import pytest
import torch
from bundle.benchmark.methods import Options, make_methods
from bundle.phantom import write_phantoms
from bundle.spatial import Grid
from monai.bundle import ckpt_export
from tests.forked import run_module

pytestmark = pytest.mark.slow
PEERS = {"dual_prnet": "dual-prnet", "transmorph": "transmorph", "vit_vnet": "vit-v-net", "voxelmorph": "voxelmorph"}
SIZE = (40, 48, 40)


def run(module, *arguments, cwd):
    done = run_module(module, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def configs(*names):
    return ["--config_file", str([f"configs/{name}.json" for name in names])]


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads") / "heads"
    write_phantoms(folder, training=2, validation=2, test=2, shape=SIZE, spacing_mm=4.0)
    return folder


@pytest.fixture(scope="module", params=PEERS)
def trained(request, bundle_root, heads, tmp_path_factory):
    """A peer after one epoch of two steps, by the config as it stands, and its description."""
    folder = tmp_path_factory.mktemp(request.param)
    options = ["--dataset_dir", heads, "--output_dir", folder, "--epochs", 1, "--val_pairs", 1]
    files = configs("train", f"peers/{request.param}")
    log = run("monai.bundle", "run", "training", *files, *options, cwd=bundle_root)
    assert "val_mean_dice" in log
    description = {"network": f"peers/{request.param}", "spacing_mm": 4.0}
    weights = (folder / "models/model.pt").rename(folder / f"{PEERS[request.param]}.pt")
    weights.with_suffix(".json").write_text(json.dumps(description))
    return request.param, weights


def test_it_evaluates(bundle_root, heads, trained, tmp_path):
    name, weights = trained
    options = ["--dataset_dir", heads, "--output_dir", tmp_path, "--ckpt", weights, "--affine", "center", "--pairs", 1]
    files = configs("train", "evaluate", f"peers/{name}")
    run("monai.bundle", "run", "evaluating", *files, *options, cwd=bundle_root)
    (row,) = csv.DictReader((tmp_path / "pairs.csv").open())
    assert 0 < float(row["dice_after"]) < 1


def test_register_takes_its_weights_by_their_description(bundle_root, heads, trained, tmp_path):
    _, weights = trained
    items = json.loads((heads / "dataset.json").read_text())["test"]
    moving, fixed = (heads / item["image"] for item in items)
    pair = ["--moving", moving, "--fixed", fixed, "--affine", "center", "--weights", weights, "--report", "False"]
    run("bundle", "register", *pair, "--output_dir", tmp_path / "out", "--device", "cpu", cwd=bundle_root)
    assert (tmp_path / "out/transform.h5").is_file()


def test_the_benchmark_takes_it_from_the_folder_of_peers(trained):
    name, weights = trained
    method = make_methods([PEERS[name]], Options("unused.pt", peer_weights=str(weights.parent)))[PEERS[name]]
    image = torch.rand(1, 2, *SIZE)
    field = method.load()(image, Grid(SIZE, torch.eye(4).numpy()))
    assert field.shape == (3, *SIZE)
    assert method.spacing_mm == 4.0


def test_it_exports_by_tracing_for_the_size_that_it_is_traced_at(bundle_root, trained, tmp_path):
    name, weights = trained
    files = [str(bundle_root / f"configs/{config}.json") for config in ("inference", f"peers/{name}")]
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(weights),
        meta_file=str(bundle_root / "configs/metadata.json"),
        config_file=files,
        bundle_root=str(bundle_root),
        use_trace=True,
        input_shape=[1, 2, *SIZE],
    )
    exported = torch.jit.load(tmp_path / "model.ts")
    network = make_methods([PEERS[name]], Options("unused.pt", peer_weights=str(Path(weights).parent)))[PEERS[name]]
    parser = network._config()
    plain = parser.get_parsed_content("network_def")
    plain.load_state_dict(torch.load(weights, weights_only=True))
    image = torch.rand(1, 2, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(exported(image), plain.eval()(image), atol=1e-4, rtol=0)


def test_two_cascades_train_and_evaluate(bundle_root, heads, tmp_path):
    own = {"network_def": {"_target_": "bundle.networks.PAN", "channels": [16, 16], "heads": [2, 1]}}
    (tmp_path / "own.json").write_text(json.dumps(own))
    options = ["--dataset_dir", heads, "--output_dir", tmp_path, "--cascades", 2]
    files = ["--config_file", str(["configs/train.json", str(tmp_path / "own.json")])]
    run("monai.bundle", "run", "training", *files, *options, "--epochs", 1, "--val_pairs", 1, cwd=bundle_root)
    weights = tmp_path / "models/model.pt"
    names = torch.load(weights, weights_only=True).keys()
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    files = ["--config_file", str(["configs/train.json", "configs/evaluate.json", str(tmp_path / "own.json")])]
    weights.with_suffix(".json").write_text(json.dumps({"cascades": 2}))  # what evaluate goes by
    options = ["--dataset_dir", heads, "--output_dir", tmp_path / "out", "--ckpt", weights, "--affine", "center"]
    run("monai.bundle", "run", "evaluating", *files, *options, "--pairs", 1, cwd=bundle_root)
    assert (tmp_path / "out/pairs.csv").is_file()
