import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.commands import demo as demo_module
from bundle.commands.demo import demo
from bundle.root import WEIGHTS


@pytest.fixture
def registered(monkeypatch):
    """What ``register`` was asked for, instead of doing it."""
    asked = []
    monkeypatch.setattr(demo_module, "register", lambda *args, **options: asked.append((args, options)) or {})
    return asked


def test_two_synthetic_heads_with_labels_one_oblique_are_registered(registered, tmp_path):
    demo(str(tmp_path / "out"), affine="rigid", seed=3)
    (((moving, fixed, folder, moving_label, fixed_label), options),) = registered
    assert folder == str(tmp_path / "out")
    assert options == {"affine": "rigid", "device": "auto", "weights": str(WEIGHTS)}  # of one contrast, no others asked
    images = {path: sitk.ReadImage(path) for path in (moving, fixed, moving_label, fixed_label)}
    assert images[moving].GetSize() == images[moving_label].GetSize()
    assert images[fixed].GetSize() == images[fixed_label].GetSize()
    directions = [np.array(images[path].GetDirection()).reshape(3, 3) for path in (moving, fixed)]
    assert np.abs(directions[0] - directions[1]).max() > 0.05
    assert np.abs(directions[0]).max() < 0.9999
    regions = [set(np.unique(sitk.GetArrayViewFromImage(images[path]))) for path in (moving_label, fixed_label)]
    assert len(regions[0] & regions[1]) > 10


def test_the_users_own_images_are_registered_as_they_are(registered, tmp_path):
    demo(str(tmp_path / "out"), moving="m.nii.gz", fixed="f.nii.gz", device="cpu")
    assert registered == [(("m.nii.gz", "f.nii.gz", str(tmp_path / "out")), {"affine": "affine", "device": "cpu"})]


def test_one_image_alone_is_refused(registered, tmp_path):
    with pytest.raises(ValueError, match="both --moving and --fixed, or neither"):
        demo(str(tmp_path / "out"), moving="m.nii.gz")
    assert registered == []


@pytest.mark.slow
def test_the_demo_ends_in_more_overlap_and_a_plausible_verdict(tmp_path):
    result = demo(str(tmp_path))
    assert result["dice_before"] < result["dice_aligned"] < result["dice_after"]
    assert result["dice_after"] > 0.8
    assert result == json.loads((tmp_path / "registration.json").read_text())
    assert result["verdict"] == "plausible"
