import hashlib
import json

import pytest
import torch

from bundle.fields import warp
from bundle.inferers import RecursiveInferer, recommended, similarity


def test_weights_are_used_at_the_spacing_that_the_file_beside_them_names(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"spacing_mm": 1.5}))
    assert recommended(str(tmp_path / "mine.pt"), "spacing_mm") == 1.5
    assert recommended(str(tmp_path / "mine.pt"), "passes", 1) == 1
    assert recommended(str(tmp_path / "other.pt"), "spacing_mm") is None


def test_every_shipped_weights_file_is_described(bundle_root):
    weights = sorted((bundle_root / "models").glob("*.pt"))
    assert [path.stem for path in weights] == ["hippocampus", "model"]
    for path in weights:
        description = json.loads(path.with_suffix(".json").read_text())
        assert {"spacing_mm", "trained_on", "command", "seed", "steps", "licence"} <= description.keys()
        assert description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stat().st_size < 25e6


def test_similarity_does_not_depend_on_the_intensity_scale():
    torch.manual_seed(0)
    fixed = torch.rand(1, 1, 12, 14, 16)
    assert similarity(fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(300 * fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(torch.rand(1, 1, 40, 42, 44), torch.rand(1, 1, 40, 42, 44)) < 0.5


def shift_one_voxel(image):
    """Stand for a network that always moves by one voxel along the second axis."""
    ddf = torch.zeros(image.shape[0], 3, *image.shape[2:])
    ddf[:, 1] = 1
    return torch.cat([warp(image[:, :1], ddf), ddf], 1)


def test_three_passes_find_three_times_the_displacement_of_one():
    image = torch.rand(1, 2, 5, 9, 6)
    assert torch.equal(RecursiveInferer(1)(image, shift_one_voxel), shift_one_voxel(image))
    pred = RecursiveInferer(3)(image, shift_one_voxel)
    assert torch.allclose(pred[:, 2], torch.full((1, 5, 9, 6), 3.0))
    assert torch.allclose(pred[:, 0, :, :-3], image[:, 0, :, 3:], atol=1e-5)


def test_no_pass_is_refused():
    with pytest.raises(ValueError, match="at least once, not 0"):
        RecursiveInferer(0)
