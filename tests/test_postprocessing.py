import numpy as np
import pytest
import torch
from bundle.fields import warp
from bundle.metrics import mean_dice
from bundle.postprocessing import BuildTransformd, MeasureRegistrationd, ResampleMovingd
from bundle.spatial import LABEL_MODES
from bundle.transforms import MatchPaird
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter


def postprocess(item, never_worse=False, label_interpolation="label_gaussian", fill=None):
    for transform in (
        BuildTransformd(never_worse),
        ResampleMovingd(label_interpolation, fill),
        MeasureRegistrationd(label_interpolation=label_interpolation),
    ):
        item = transform(item)
    return item


def matched(voxels_away):
    """A pair that agrees already, and a prediction that moves it by whole voxels."""
    affine = np.diag([-2.0, 2.0, 2.5, 1.0])
    picture = gaussian_filter(np.random.default_rng(0).standard_normal((24, 28, 20)), 1.5).astype(np.float32)
    volume = MetaTensor(torch.from_numpy(picture - picture.min())[None], affine=torch.from_numpy(affine))
    item = MatchPaird(affine="none")({"moving": volume, "fixed": volume.clone()})
    ddf = torch.zeros(1, 3, *item["image"].shape[1:])
    ddf[:, 1] = voxels_away
    return item | {"pred": torch.cat([warp(item["image"][None, :1].as_tensor(), ddf), ddf], 1)[0]}


def test_a_field_that_makes_the_images_less_alike_is_dropped_if_asked_and_told():
    kept = postprocess(matched(3))
    dropped = postprocess(matched(3), never_worse=True)
    points = kept["transform"].fixed_grid.to_points([[12, 14, 10]])
    assert kept["transform"].displacement_at(points).norm() == pytest.approx(6)
    assert kept["quality"]["similarity_after"] < kept["quality"]["similarity_aligned"]
    assert "field_dropped" not in kept["quality"]
    assert dropped["transform"].displacement_at(points).norm() == 0
    assert dropped["quality"]["field_dropped"] == 1
    assert dropped["quality"]["similarity_after"] == dropped["quality"]["similarity_aligned"]
    assert dropped["quality"]["max_field_displacement_mm"] == 0
    assert torch.equal(dropped["warped"], dropped["moving"].as_tensor())


def test_a_field_that_makes_nothing_worse_is_kept():
    item = postprocess(matched(0), never_worse=True)
    assert item["quality"]["field_dropped"] == 0


def test_a_label_is_propagated_as_asked_and_its_overlap_is_that_of_what_is_written():
    item = matched(0.4)
    label = (item["moving"] > item["moving"].mean()).float()
    item |= {"moving_label": label, "fixed_label": label.clone()}
    found = {mode: postprocess(item, label_interpolation=mode) for mode in LABEL_MODES}
    assert not torch.equal(*(one["warped_label"] for one in found.values()))
    for mode, one in found.items():
        assert torch.equal(one["warped_label"], one["transform"].resample(label.as_tensor(), mode=mode))
        assert one["quality"]["dice_after"] == mean_dice(one["warped_label"], label.as_tensor())
    assert torch.equal(postprocess(item)["warped_label"], found["label_gaussian"]["warped_label"])


def test_an_interpolation_that_mixes_labels_is_refused():
    for transform in (ResampleMovingd, MeasureRegistrationd):
        with pytest.raises(ValueError, match="one of nearest, label_gaussian, not 'linear'"):
            transform(label_interpolation="linear")


def test_beyond_the_moving_image_is_its_air_or_the_padding_it_declares_or_what_is_asked():
    item = matched(0)
    item["moving"] = item["moving"] - 1024
    far = np.eye(4)
    far[:3, 3] = 15.0, 0, 0
    item["alignment"] = torch.from_numpy(far)
    air = postprocess(dict(item))
    assert air["fill"] == pytest.approx(float(item["moving"].min()))
    asked = postprocess(dict(item), fill=7.0)
    beyond = asked["warped"] == 7
    assert 0.05 < beyond.float().mean() < 0.95
    assert torch.equal(asked["warped"][~beyond], air["warped"][~beyond])
    assert (air["warped"][beyond] == air["fill"]).all()
    item["moving"].meta["padding_value"] = -2000.0
    assert (postprocess(dict(item))["warped"][beyond] == -2000).all()
