"""What handlers measure is of the device that their engine runs on, whatever else the machine has."""

import pytest
import torch
from bundle.handlers import EpochTable, RegistrationSaver
from bundle.io.tables import read_csv
from ignite.engine import Engine


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
