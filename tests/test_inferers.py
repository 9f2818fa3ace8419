import json

import pytest
import torch

from bundle.inferers import similarity, trained_spacing


def test_weights_are_used_at_the_spacing_that_the_file_beside_them_names(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"spacing_mm": 1.5}))
    assert trained_spacing(str(tmp_path / "mine.pt")) == 1.5
    assert trained_spacing(str(tmp_path / "other.pt")) is None


def test_every_shipped_weights_file_is_described(bundle_root):
    weights = sorted((bundle_root / "models").glob("*.pt"))
    assert [path.stem for path in weights] == ["hippocampus", "model"]
    for path in weights:
        description = json.loads(path.with_suffix(".json").read_text())
        assert {"spacing_mm", "trained_on", "command", "seed", "steps", "licence"} <= description.keys()
        assert path.stat().st_size < 25e6


def test_similarity_does_not_depend_on_the_intensity_scale():
    torch.manual_seed(0)
    fixed = torch.rand(1, 1, 12, 14, 16)
    assert similarity(fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(300 * fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(torch.rand(1, 1, 40, 42, 44), torch.rand(1, 1, 40, 42, 44)) < 0.5
