"""Whole commands in turns: CPU time and memory are those of the command, and a failing one says why."""

import json

import pytest
from bundle.benchmark import whole
from bundle.commands import benchmark

BUSY = "import sys, time\nheld = bytearray(300_000_000)\nstart = time.process_time()\n"
BUSY += "while time.process_time() - start < 0.4: pass\nprint('words that are no result')"


@pytest.fixture
def commands(monkeypatch):
    """Two commands whose cost is known."""
    busy = ("json", lambda moving, fixed, folder, threads: ["-c", BUSY, moving, fixed])
    idle = ("json", lambda *_: ["-c", "import time; time.sleep(0.5)"])
    monkeypatch.setattr(whole, "WHOLE", {"register": busy, "greedy": idle})


def test_a_command_is_measured_by_its_own_cpu_time_and_memory(commands, tmp_path):
    held = bytearray(800_000_000)  # of this process, none of theirs
    turns = whole.measure_whole(tmp_path / "a", tmp_path / "b", tmp_path, ["register", "greedy"], 1, 2)
    assert len(held) == 800_000_000
    for busy, idle in zip(turns["register"], turns["greedy"], strict=True):
        assert 0.4 <= busy["cpu_seconds"] < 1.5
        assert idle["cpu_seconds"] < 0.3 < 0.5 <= idle["seconds"]
        assert 300 < busy["peak_memory_mb"] < 500
        assert idle["peak_memory_mb"] < 100


def test_the_command_writes_the_turns_and_their_medians(commands, tmp_path, capsys):
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_text("no image")
    images = {"moving": str(tmp_path / "a.nii.gz"), "fixed": str(tmp_path / "b.nii.gz")}
    result = benchmark.speed(str(tmp_path / "out"), whole=True, against="greedy", threads=1, repeats=2, **images)
    assert json.loads((tmp_path / "out" / "whole.json").read_text()) == result
    lines = (tmp_path / "out" / "whole.csv").read_text().splitlines()
    assert lines[0] == "command,turn,cpu_seconds,seconds,peak_memory_mb"
    assert [line.split(",")[:2] for line in lines[1:]] == [[n, t] for n in ("register", "greedy") for t in ("1", "2")]
    table = (tmp_path / "out" / "whole.md").read_text()
    assert table in capsys.readouterr().out
    assert "| register |" in table
    assert "| 1.00 (1.00–1.00) |" in table


def test_a_command_that_fails_says_why(monkeypatch, tmp_path):
    broken = ("json", lambda *_: ["-c", "raise SystemExit('the disk is full')"])
    monkeypatch.setattr(whole, "WHOLE", {"register": broken})
    with pytest.raises(RuntimeError, match="register failed: the disk is full"):
        whole.measure_whole(tmp_path / "a", tmp_path / "b", tmp_path, ["register"], 1, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"whole": True, "against": "demons"}, "--against takes some of register,greedy,syn,syn-cc with --whole"),
        ({"whole": True, "moving": "a.nii.gz"}, "--moving and --fixed go together"),
        ({"whole": True, "scaling": True}, "--scaling is of the network's own times: leave it out with --whole"),
        ({"whole": True, "device": "cpu"}, "--device is of the network's own times"),
        ({"whole": True, "training_size": [32, 32, 32]}, "--training_size is of the network's own times"),
        ({"moving": "a.nii.gz", "fixed": "b.nii.gz"}, "--moving and --fixed go together, and with --whole"),
    ],
)
def test_bad_options_are_refused_before_any_work(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        benchmark.speed(str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()
