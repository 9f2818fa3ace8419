"""The tools that know nothing of this bundle but its files: loading, federation, export, tracking, overrides."""

import json
import os
import sqlite3
import subprocess
import sys

import onnxruntime
import pytest
import torch
from bundle.networks import PAN
from bundle.phantom import write_phantoms
from monai.bundle import ckpt_export, create_workflow, load
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NAME = "pan_registration"


def run(*line, cwd):
    command = [sys.executable, "-m", "monai.bundle", "run", *map(str, line)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def network(released):
    network = PAN()
    network.load_state_dict(torch.load(released / NAME / "models/model.pt", weights_only=True))
    return network.eval()


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_load_gives_the_network_with_its_weights(released, network, workflow_type):
    loaded = load(name=NAME, bundle_dir=str(released), workflow_type=workflow_type)
    assert type(loaded) is PAN
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_create_workflow_registers_a_pair(released, small_dataset, tmp_path):
    listing = json.loads((small_dataset / "dataset.json").read_text())["test"]
    moving, fixed = (str(small_dataset / item["image"]) for item in listing)
    workflow = create_workflow(
        config_file=str(released / NAME / "configs/inference.json"),
        workflow_type="infer",
        bundle_root=str(released / NAME),
        logging_file=False,
        output_dir=str(tmp_path),
        affine="none",
        spacing_mm=None,
        **{"dataset#data": [{"name": "pair", "moving": moving, "fixed": fixed}]},
    )
    workflow.run()
    workflow.finalize()
    result = json.loads((tmp_path / "pair/registration.json").read_text())
    assert result["similarity_after"] > result["similarity_aligned"]


def test_a_federation_trains_a_round_on_its_clients_data(released, small_dataset, tmp_path, network):
    own = {"dataset_dir": str(small_dataset), "output_dir": str(tmp_path), "val_pairs": 1}
    own["bundle_root"] = str(released / NAME)
    evaluation = {"affine": "none", "spacing_mm": None, "surfaces": False, "pairs": 1}
    client = MonaiAlgo(bundle_root=NAME, train_kwargs=dict(own), eval_kwargs=own | evaluation)
    client.initialize(extra={ExtraItems.CLIENT_NAME: "site", ExtraItems.APP_ROOT: str(released)})
    client.train(ExchangeObject(weights=network.state_dict()))
    sent = client.get_weights()
    assert sent.weights.keys() == network.state_dict().keys()
    assert max(float(torch.as_tensor(value).abs().max()) for value in sent.weights.values()) > 0  # it learnt something
    other = {name: value + 0.001 for name, value in network.state_dict().items()}
    metrics = client.evaluate(ExchangeObject(weights=other)).metrics
    assert metrics["val_mean_dice"] > 0
    held = client.evaluator.network.state_dict()  # those sent, not those on the client's disk
    assert all(torch.equal(held[name], value) for name, value in other.items())
    client.finalize()


@pytest.mark.parametrize("exporter", ["script", "trace"])
def test_the_exported_checkpoint_equals_the_network_at_other_sizes(released, tmp_path, network, exporter):
    traced = {"use_trace": True, "input_shape": [1, 2, 40, 37, 50]} if exporter == "trace" else {}
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(released / NAME / "models/model.pt"),
        meta_file=str(released / NAME / "configs/metadata.json"),
        config_file=str(released / NAME / "configs/inference.json"),
        bundle_root=str(released / NAME),
        **traced,
    )
    exported = torch.jit.load(tmp_path / "model.ts")
    for size in ((33, 48, 32), (40, 37, 50)):
        image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = network(image)
            assert expected[:, 1:].abs().max() > 0.1
            torch.testing.assert_close(exported(image), expected, atol=1e-4, rtol=0)


class Unpadded(torch.nn.Module):
    """The network for sides that the pyramid can halve, multiples of 16 from 32 on, as docs/README.md exports it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network.decode(image[:, :1], *self.network.project(image))[0]


def test_onnx_runtime_gives_the_field_of_the_network_at_other_sizes(network, tmp_path):
    free = {0: "batch", 2: "height", 3: "width", 4: "length"}
    with torch.no_grad():
        torch.onnx.export(
            Unpadded(network).eval(),
            (torch.rand(1, 2, 32, 48, 32),),
            tmp_path / "pan.onnx",
            dynamo=False,
            opset_version=20,
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": free, "pred": free},
        )
    session = onnxruntime.InferenceSession(str(tmp_path / "pan.onnx"))
    for size in ((32, 48, 32), (48, 32, 64)):
        image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = network(image)
        assert expected[:, 1:].abs().max() > 0.1
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_tracking_with_mlflow_keeps_loss_and_dice(released, small_dataset, tmp_path):
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path, "--epochs", 1, "--val_pairs", 1]
    run("training", "--config_file", "configs/train.json", "--tracking", "mlflow", *options, cwd=released / NAME)
    with sqlite3.connect(tmp_path / "mlruns.db") as store:
        metrics = {name for (name,) in store.execute("select key from metrics")}
    assert {"train_loss", "val_mean_dice"} <= metrics


def test_finetuning_on_ten_subjects_improves_the_shipped_weights(released, tmp_path):
    write_phantoms(tmp_path / "ten", training=10, validation=2, test=0, shape=(32, 40, 32), spacing_mm=5.0, seed=3)
    options = ["--dataset_dir", tmp_path / "ten", "--output_dir", tmp_path / "out", "--epochs", 3]
    files = ["--config_file", "['configs/train.json','configs/finetune.json']"]
    run("training", *files, *options, cwd=released / NAME)
    events = EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    dice = [event.value for event in events.Scalars("val_mean_dice")]
    assert len(dice) == 1 + 3  # the shipped weights, then every epoch
    assert max(dice[1:]) > dice[0] + 0.003
    best, shipped = (
        torch.load(folder / "models/model.pt", weights_only=True) for folder in (tmp_path / "out", released / NAME)
    )
    assert any(not torch.equal(best[name], shipped[name]) for name in shipped)


def test_every_key_that_a_user_changes_is_an_option_of_the_command(released, small_dataset, tmp_path):
    asked = "$print('found', [@loss.alpha, @loss.beta, @optimizer.defaults['lr'], @train#trainer.state.max_epochs])"
    network = (
        "$print('built', [a.heads for a in @network_def.attention], len(@train#dataset), @train#dataloader.batch_size)"
    )
    (tmp_path / "probe.json").write_text(json.dumps({"probe": [asked, network]}))
    files = ["--config_file", str(["configs/train.json", str(tmp_path / "probe.json")])]
    options = ["--dataset_dir", small_dataset, "--output_dir", tmp_path, "--alpha", 0.5, "--beta", 0.25, "--epochs", 3]
    options += ["--learning_rate", 0.002, "--batch_size", 2, "--repeats", 2]
    options += ["--network_def#heads", "[4,2,2,1,1]", "--network_def#head_channels", 4]
    log = run("probe", *files, *options, cwd=released / NAME)
    assert "found [0.5, 0.25, 0.002, 3]" in log
    assert "built [4, 2, 2, 1, 1] 6 2" in log


def test_another_spacing_and_alignment_are_options_of_inference(released, small_dataset, tmp_path):
    probe = {"probe": "$print('found', @preprocessing.transforms[1].affine, @preprocessing.transforms[1].spacing_mm)"}
    (tmp_path / "probe.json").write_text(json.dumps(probe))
    files = ["--config_file", str(["configs/inference.json", str(tmp_path / "probe.json")])]
    log = run("probe", *files, "--spacing_mm", 4, "--affine", "rigid", cwd=released / NAME)
    assert "found rigid 4" in log
