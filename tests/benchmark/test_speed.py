"""The speed benchmark: the plain network it compares with is the same network, and every task and table comes out."""

import json
import sys

import pytest
import torch
from bundle.__main__ import main
from bundle.benchmark import speed
from bundle.benchmark.plain import plain_forward, plain_loss
from bundle.benchmark.tasks import TASKS, WEIGHTS, Task, measure
from bundle.commands import benchmark
from bundle.commands.benchmark import benchmark as commands
from bundle.losses import RegistrationLoss
from bundle.networks import PAN
from bundle.ops import computes_bfloat16


@pytest.fixture(scope="module")
def network():
    network = PAN()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return network


def volumes():
    coarse = torch.rand(1, 2, 6, 7, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (48, 64, 32), mode="trilinear")


def test_the_lean_network_with_trained_weights_equals_the_plain_one_within_1e_4_voxel(network):
    pair = volumes()
    with torch.no_grad():
        expected, _ = plain_forward(network, pair)
        found = network.eval()(pair)
    assert expected[:, 1:].abs().max() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_training_step_of_the_lean_network_has_the_gradients_of_the_plain_one(network):
    pair = volumes()
    parameters = list(network.parameters())
    losses = (
        plain_loss(*plain_forward(network, pair), pair[:, 1:]),
        RegistrationLoss()(network.train()(pair), pair[:, 1:]),
    )
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-5)
    for plain, lean in zip(*(torch.autograd.grad(loss, parameters) for loss in losses)):
        torch.testing.assert_close(lean, plain, atol=1e-5 + 1e-3 * float(plain.abs().max()), rtol=0)


@pytest.mark.slow
def test_the_command_times_every_task_and_writes_its_tables(tmp_path, monkeypatch, capsys):
    has_bfloat16 = computes_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(speed, "RUNS", 1)
    monkeypatch.setattr(speed, "SCALING", (32, 48))
    monkeypatch.setattr(speed, "PRE_ALIGNMENTS", ("none",))
    monkeypatch.setattr(speed, "_run", measure)  # a process each would take a minute
    result = benchmark.speed(str(tmp_path), (32, 48, 40), (32, 32, 32), "voxelmorph", "cpu", 1, 1, scaling=True)
    assert json.loads((tmp_path / "speed.json").read_text()) == result
    left_out = {"syn-mi", "elastix"} | (set() if has_bfloat16 else {"bfloat16 forward"})
    assert set(result["tasks"]) == set(TASKS) - left_out
    for turns in result["tasks"].values():
        assert turns[0]["seconds"] > 0
        assert turns[0]["peak_memory_mb"] > 100
    assert set(result["register"]["none"][0]) >= {"read", "align", "network", "resample", "write"}
    assert result["register"]["none"][0]["whole command"] > result["register"]["none"][0]["total"]
    assert [point["side"] for point in result["scaling"]] == [32, 48]
    table = (tmp_path / "speed.md").read_text()
    assert table in capsys.readouterr().out
    assert "| forward / arithmetic floor |" in table
    assert ("| bfloat16 forward / arithmetic floor |" in table) == has_bfloat16
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_the_floor_counts_every_convolution_of_the_pair_whichever_library_runs_it():
    levels = [(16, 1), (32, 8), (64, 64), (128, 512), (256, 4096)]  # channels, and voxels per voxel of one
    at_least = 2 * 2 * 27 * sum(c * (c // 2 + c) / fewer for c, fewer in levels)  # of two images, both convolutions
    with torch.no_grad():
        found = speed._operations((32, 32, 32)) / 32**3
    assert 1.0 < found / at_least < 1.1  # the first convolution, the projections and the merging are the rest


def test_the_memory_of_a_task_is_that_of_its_own_process():
    held = torch.ones(2**28)  # 1.1 GB here, none of it there
    task = Task("convolution", (32, 32, 32), runs=0)
    assert speed._run(task)["peak_memory_mb"] < 900 < 1e-6 * held.nbytes


def test_a_failing_task_says_why():
    with pytest.raises(RuntimeError, match=r"exit code 1: KeyError: 'lunch'"):
        speed._run(Task("lunch", (32, 32, 32)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": (160, 192)}, "--size takes three sides"),
        ({"training_size": 96}, "--training_size takes three sides"),
        ({"against": "demons"}, "--against takes some of"),
        ({"repeats": 0}, "--repeats takes a whole number from 1 up"),
        ({"device": "tpu"}, "--device is one of"),
    ],
)
def test_bad_options_are_refused_before_any_work(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        benchmark.speed(str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_speed_is_a_command_of_the_benchmark(monkeypatch, capsys):
    def speed(repeats: int) -> None:
        sys.stdout.write(f"{repeats} turns")

    monkeypatch.setitem(commands, "speed", speed)
    monkeypatch.setattr(sys, "argv", ["bundle", "benchmark", "speed", "--repeats", "2"])
    main()
    assert capsys.readouterr().out == "2 turns"
