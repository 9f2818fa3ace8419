"""What a GPU is asked, asked of the CPU with Triton's interpreter: its code, and the rows that it leaves."""

import json

import pytest
import torch
from bundle.benchmark import gpu
from bundle.ops import triton as backend
from tests.interpreted import interpret_quickly

pytest.importorskip("triton", reason="Triton has no wheels for this platform")


@pytest.fixture
def small(monkeypatch):
    interpret_quickly(monkeypatch)
    monkeypatch.setattr(backend, "TILE", (32, 32, 16))  # one program
    monkeypatch.setattr(gpu, "ODD", (5, 6, 7))
    monkeypatch.setattr(gpu, "HEADS", (2,))
    monkeypatch.setattr(gpu, "RUNS", 1)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)  # minutes of a compiler


@pytest.mark.slow
def test_every_row_comes_out_of_one_call(small, tmp_path, capsys):
    gpu.main(["--device", "cpu", "--sizes", "16,16,16", "--output_dir", str(tmp_path)])
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert not any("failed" in row or "left_out" in row for row in rows)
    assert rows[0]["error"] < 1e-5
    assert rows[0]["repeats"]
    assert [row["what"] for row in rows[1:]] == [
        *("kernel, forward", "kernels, forward and both backward", "forward", "forward, --amp", "forward, --compiled"),
        *("optimise, 5 steps", "training step", "training step, --amp"),
    ]
    assert all(row["seconds"] > 0 for row in rows[1:])
    assert all(row["floor_seconds"] > 0 for row in rows[1:3])
    assert 0 <= rows[5]["difference_voxel"] < 1e-4
    assert rows[4]["difference_voxel"] < 1
    assert (tmp_path / "gpu.md").read_text() in capsys.readouterr().out


@pytest.mark.slow
def test_what_fails_says_why_and_the_rest_goes_on(small, monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("no such instruction\nat 0x7f")

    monkeypatch.setattr(gpu, "_kernel", broken)
    monkeypatch.setattr(gpu, "_parts", lambda one, size: gpu._kernels(one, size, False))
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--device", "cpu", "--sizes", "16,16,16", "--output_dir", str(tmp_path)])
    assert ended.value.code == 1
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert rows[1]["failed"] == "RuntimeError: no such instruction"
    assert "not measured: RuntimeError: no such instruction" in (tmp_path / "gpu.md").read_text()


def test_what_the_time_does_not_suffice_for_says_so(small):
    assert {row["left_out"] for row in gpu.measure_gpu("cpu", [(16, 16, 16)], limit_s=0)} == {"0 s are over"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_call_ends_in_a_sentence(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no CUDA GPU" in capsys.readouterr().err
