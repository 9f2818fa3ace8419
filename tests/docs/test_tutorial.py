"""The notebook, executed from the first cell to the last."""

import json

import nbclient
import nbformat
import torch


def test_the_notebook_runs_to_its_end_and_leaves_what_it_tells_of(bundle_root, tmp_path, monkeypatch):
    monkeypatch.setenv("PANREG_TUTORIAL_DIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(bundle_root / "docs/tutorial.ipynb", as_version=4)
    resources = {"metadata": {"path": str(bundle_root / "docs")}}
    nbclient.NotebookClient(notebook, timeout=400, kernel_name="python3", resources=resources).execute()
    first, *_ = sorted((tmp_path / "registered").glob("*/registration.json"))
    result = json.loads(first.read_text())
    assert result["dice_after"] > result["dice_aligned"] > result["dice_before"]
    assert len(torch.load(tmp_path / "finetuned/models/model.pt", weights_only=True)) > 0


def test_the_notebook_is_committed_without_outputs(bundle_root):
    cells = json.loads((bundle_root / "docs/tutorial.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
