"""What handlers measure is of their engine's device alone; tables hold what their own run measured."""

import logging
import math

import pytest
import torch
from bundle import handlers
from bundle.evaluation import PairTable
from bundle.handlers import DivergenceHandler, EpochTable, LastValidationHandler, PageMaker, RegistrationSaver
from bundle.io.tables import read_csv
from bundle.weights import WeightsChoice
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator


@pytest.fixture
def waited_for(monkeypatch):
    """A machine with a GPU, as far as handlers can tell: the devices that they wait for."""
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", devices.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: (1 + device.index) * 1e9)
    return devices


def engine_on(device):
    engine = Engine(lambda *_: None)
    engine.network, engine.state.device = torch.nn.Linear(3, 2), torch.device(device)
    return engine


@pytest.mark.parametrize(("device", "memory_mb"), [("cpu", None), ("cuda:0", 1000), ("cuda:1", 2000)])
def test_an_epoch_is_timed_and_its_memory_told_on_the_engines_own_device(waited_for, tmp_path, device, memory_mb):
    validator, engine = engine_on(device), engine_on(device)
    validator.state.metrics, validator.state.key_metric_name = {"dice": 0.5}, "dice"
    EpochTable(str(tmp_path), validator).attach(engine)
    engine.run([0, 1], max_epochs=1)
    found = float(read_csv(tmp_path / "epochs.csv")[0]["peak_memory_mb"])
    assert found == memory_mb if memory_mb else 50 < found < 1e5
    assert waited_for == ([torch.device(device)] * 2 if memory_mb else [])


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_the_networks_time_ends_when_the_engines_own_device_is_done(waited_for, tmp_path, device):
    saver = RegistrationSaver(str(tmp_path), str(tmp_path / "model.pt"))
    saver._start(engine_on(device))
    saver._stop(engine_on(device))
    assert saver.network_seconds > 0
    assert waited_for == ([torch.device(device)] if device != "cpu" else [])


@pytest.mark.parametrize(
    ("interval", "epochs", "validated"),
    [(1, 3, [1, 2, 3]), (5, 1, [1]), (2, 4, [2, 4]), (2, 5, [2, 4, 5]), (100, 3, [3])],
)
def test_a_training_is_validated_after_its_last_epoch_in_any_case(interval, epochs, validated):
    found = []
    validator = SupervisedEvaluator("cpu", [0], torch.nn.Identity())
    validator.run = found.append
    trainer = Engine(lambda *_: None)
    LastValidationHandler(interval, validator).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert found == validated


@pytest.mark.parametrize(
    ("shifts", "ends"),
    [
        ([0.0, 0.0], False),
        ([7.0, -7.0], False),  # of 8 voxels: a plane of the image is left in view
        ([50.0, 1.0], False),  # one pair that fails is none of the training
        ([50.0, -9.0], True),
        ([1e9, 1e9], True),
    ],
)
def test_weights_that_move_every_image_out_of_view_have_diverged(shifts, ends):
    def field(engine, shift):
        ddf = torch.zeros(3, 8, 9, 10)
        ddf[0] = shift
        return [{"ddf": MetaTensor(ddf)}]

    engine, last = Engine(field), []
    engine.logger.setLevel(logging.CRITICAL)
    DivergenceHandler().attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, last.append)
    if ends:
        with pytest.raises(ValueError, match=r"The training has diverged: .* 100% .* a lower --learning_rate"):
            engine.run(shifts)
    else:
        for _ in range(2):
            engine.run(shifts)
    assert len(last) == (0 if ends else 2)


def test_a_run_that_breaks_off_leaves_what_it_measured_and_nothing_of_an_earlier_one(tmp_path):
    for name in ("pairs.csv", "summary.csv", "metrics.csv", "pairs.1.csv", "notes.csv"):
        (tmp_path / name).write_text("of an earlier run")

    def register(engine, dice):
        if dice is None:
            raise ValueError("The moving image (x.nii.gz) is damaged.")
        image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": "image.nii.gz"})
        engine.state.batch = [{"name": f"pair {dice}", "moving": image, "fixed": image}]
        return [{"quality": {"dice_after": dice}}]

    engine = Engine(register)
    PairTable(str(tmp_path), ["metrics.csv"]).attach(engine)
    with pytest.raises(ValueError, match="is damaged"):
        engine.run([0.5, 0.75, None, 0.9], max_epochs=1)
    assert [row["dice_after"] for row in read_csv(tmp_path / "pairs.csv")] == ["0.500000", "0.750000"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.csv", "pairs.csv"]
    engine = Engine(register)
    PairTable(str(tmp_path)).attach(engine)
    engine.run([0.5, 0.75], max_epochs=1)
    assert read_csv(tmp_path / "summary.csv")[0]["mean"] == "0.625000"


def test_an_order_of_tissues_that_could_not_be_told_is_no_number_of_a_mean(tmp_path):
    def register(engine, tissues):
        image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": "image.nii.gz"})
        engine.state.batch = [{"name": f"pair {tissues}", "moving": image, "fixed": image}]
        return [{"quality": {"dice_after": 0.0, "tissue_correlation": tissues}}]

    engine = Engine(register)
    PairTable(str(tmp_path)).attach(engine)
    engine.run([0.0, 0.5, 0.75], max_epochs=1)
    assert [row["tissue_correlation"] for row in read_csv(tmp_path / "pairs.csv")] == ["", "0.500000", "0.750000"]
    found = {row["measure"]: (row["mean"], row["pairs"]) for row in read_csv(tmp_path / "summary.csv")}
    assert found == {"dice_after": ("0.000000", "3"), "tissue_correlation": ("0.625000", "2")}


@pytest.mark.parametrize("same_person", [True, False])
def test_two_contrasts_are_judged_by_what_the_usual_weights_ask_for_too(
    bundle_root, tmp_path, monkeypatch, same_person
):
    seen = []
    monkeypatch.setattr(handlers, "write_registration", lambda *given: seen.append((given[2], given[5])))
    monkeypatch.setattr(handlers, "anonymous_page", lambda *given: seen.append((given[1], given[3])))
    weights = str(bundle_root / "models" / "model.pt")
    choice = WeightsChoice(torch.nn.Identity(), weights, same_person=same_person)
    engine = Engine(lambda *_: None)
    engine.state.batch = [{"name": "pair"}]
    engine.state.output = [{"quality": {"contrast_correlation": 0.5, "tissue_correlation": -0.2}}]
    RegistrationSaver(str(tmp_path), weights, weights_choice=choice)(engine)
    PageMaker(weights, weights_choice=choice)(engine)
    assert len(seen) == 2
    for taken, (_, look_here) in seen:
        assert taken.endswith("any_contrast.pt")
        assert look_here == ({} if same_person else {"aligned_share": (-math.inf, 0.56)})
