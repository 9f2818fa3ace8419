"""Pairs of a known deformation: what was found of them is kept as long as it depends on the same."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle.benchmark.expected_error import Sample, compare, fit, markdown, samples_of
from bundle.benchmark.kept import weights_used
from bundle.expected_error import SIGNS
from bundle.io.images import read_image
from bundle.spatial import Grid, SpatialTransform


@pytest.fixture
def heads(small_dataset, tmp_path):
    """Two images with labels, in folders of their own so that they can be changed."""
    items = []
    for name in ("phantom_000", "phantom_001"):
        item = {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}
        for path in item.values():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            shutil.copy(small_dataset / path, tmp_path / path)
        items.append({key: str(tmp_path / path) for key, path in item.items()})
    return items


@pytest.fixture
def sampled(heads, tmp_path):
    """Simulate and register what is not kept: how many pairs were registered, and the samples."""
    registered = []

    def register(moving, fixed):
        registered.append(Path(moving).name)
        image = read_image(fixed)
        grid = Grid(tuple(image.shape[1:]), np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine.numpy())
        signs = torch.stack([image.as_tensor()[0] * k for k in range(1, len(SIGNS) + 1)])
        stacked = image.new_zeros(2, *grid.shape)
        stacked[1] = image[0]
        return {"image": stacked, "transform": SpatialTransform(np.eye(4), None, *[grid] * 3), "disagreement": signs}

    def run(items=heads, seed=0, masked=False, made_by=None):
        registered.clear()
        samples = samples_of(items, seed, register, tmp_path / "cache", masked, made_by or {"weights": "one"})
        return len(registered), samples

    return run


def test_what_is_done_is_read_by_a_later_call(sampled):
    count, first = sampled()
    assert count == 2
    count, again = sampled()
    assert count == 0
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.signs, other.signs)
        assert np.array_equal(one.error, other.error)
        assert one.moved == other.moved > 0


@pytest.mark.parametrize(
    "other", [{"seed": 7}, {"masked": True}, {"made_by": {"weights": "others"}}, {"made_by": {"spacing_mm": 2.0}}]
)
def test_what_is_made_otherwise_is_made_anew(sampled, other):
    sampled()
    assert sampled(**other)[0] == 2
    assert sampled(**other)[0] == 0
    assert sampled()[0] == 0


def test_an_image_of_the_same_name_with_other_content_is_another(sampled, heads):
    before = sampled()[1]
    image = nibabel.load(heads[0]["image"])
    changed = np.asarray(image.dataobj)[::-1]
    nibabel.save(nibabel.Nifti1Image(changed, image.affine), heads[0]["image"])
    count, after = sampled()
    assert count == 1
    assert not np.array_equal(before[0].signs, after[0].signs)
    assert np.array_equal(before[1].signs, after[1].signs)


def test_labels_count_where_they_mask_alone(sampled, heads):
    for masked, count in ((False, 0), (True, 1)):
        sampled(masked=masked)
        label = nibabel.load(heads[0]["label"])
        changed = np.asarray(label.dataobj).copy()
        changed[changed.max() == changed] = 0
        nibabel.save(nibabel.Nifti1Image(changed, label.affine), heads[0]["label"])
        assert sampled(masked=masked)[0] == count


def test_weights_are_told_apart_by_all_that_their_description_says_and_names(tmp_path):
    for name in ("model", "other"):
        (tmp_path / f"{name}.pt").write_text(name)
    found = [weights_used(tmp_path / "model.pt")]
    for description in ({"gamma": 1.4}, {"gamma": 1.4, "across_contrasts": "other.pt"}):
        (tmp_path / "model.json").write_text(json.dumps(description))
        found.append(weights_used(tmp_path / "model.pt"))
    (tmp_path / "other.pt").write_text("another")
    found.append(weights_used(tmp_path / "model.pt"))
    assert [found.count(one) for one in found] == [1, 1, 1, 1]
    assert found[2].keys() - found[1].keys() == {"across_contrasts"}


def test_a_calibration_finds_the_rule_that_the_errors_were_made_by_and_is_told_in_tables():
    rule = dict(zip(("offset", *SIGNS), (0.25, 0.5, 0.0, 1.5), strict=True))
    random = np.random.default_rng(0)
    shown = [random.uniform(0, 1, (500, len(SIGNS))) for _ in range(2)]
    samples = [Sample(signs, 0.25 + signs @ [0.5, 0.0, 1.5], 2.0) for signs in shown]
    assert fit(samples) == pytest.approx(rule, abs=1e-3)
    row = compare(samples, rule)
    assert row["pairs"] == 2
    assert row["correlation"] == pytest.approx(1)
    assert sum(step["share_percent"] for step in row["steps"]) == pytest.approx(100)
    assert "| here | 2 | 2.00 | 1.2" in markdown({"here": row})
