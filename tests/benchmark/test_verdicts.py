import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle.benchmark import kept, verdicts
from bundle.benchmark.verdicts import (
    GOOD,
    KINDS,
    _spoiled_image,
    _spoiled_transform,
    bounds_from,
    rows_of,
    separation,
    split_and_judge,
)
from bundle.plausibility import LIMITS
from bundle.spatial import Grid, SpatialTransform
from monai.data import MetaTensor

FINE = {name: low if low > 0 else high for name, (low, high) in LIMITS.items()}
FINE |= {"similarity_before": 0.3, "similarity_after": 0.6, "foreground_similarity": 0.9, "folding_percent": 0.0}


def row(kind=GOOD, fixed="a", **numbers):
    return {"pair": f"{fixed}{kind}{sorted(numbers.items())}", "fixed": fixed, "kind": kind, **FINE, **numbers}


def test_bounds_leave_a_standard_deviation_to_spare():
    rows = [row(foreground_similarity=value) for value in (0.8, 0.9)]
    assert bounds_from(rows)["foreground_similarity"] == (0.75, None)
    rows += [row("noise", foreground_similarity=0.85)]  # among the good ones: it does not count
    assert bounds_from(rows)["foreground_similarity"] == (0.75, None)


def test_the_bound_of_a_measure_that_separates_lies_in_the_middle():
    rows = [row(foreground_similarity=value) for value in (0.8, 0.9)]
    rows += [row("noise", foreground_similarity=value) for value in (0.1, 0.2)]
    assert bounds_from(rows)["foreground_similarity"] == (0.5, None)
    rows = [row(folding_percent=0.0), row("negated", folding_percent=1.0)]
    assert bounds_from(rows)["folding_percent"] == (None, 0.5)


def test_a_bound_leaves_the_worst_of_the_good_the_least_slack_whatever_lies_below():
    rows = [row(foreground_similarity=0.8), row("noise", foreground_similarity=0.79)]
    assert bounds_from(rows)["foreground_similarity"] == (0.78, None)


def test_bounds_see_what_could_not_be_measured_nowhere():
    rows = [row(foreground_similarity=value) for value in (0.8, 0.9)] + [row("noise", foreground_similarity=None)]
    assert bounds_from(rows)["foreground_similarity"] == (0.75, None)


def test_folding_and_the_like_are_bounded_from_above():
    rows = [row(folding_percent=0.0)]
    assert bounds_from(rows)["folding_percent"] == (None, 0.02)


def test_sensitivity_and_specificity_are_parts_of_the_spoiled_and_the_good():
    rows = [row(), row(), row(), row(folding_percent=0.3)]
    rows += [row("noise", foreground_similarity=0.1), row("turned", folding_percent=0.3), row("negated")]
    found = separation(rows, {"folding_percent": (None, 0.1)})
    assert (found["specificity"], found["sensitivity"]) == (3 / 4, 2 / 3)
    assert found["sensitivity of failed alone"] == 1 / 3
    assert found["good ones that failed"] == 0


def test_what_could_not_be_measured_counts_as_failed():
    assert separation([row("noise", stretch=None)], {})["sensitivity of failed alone"] == 1


def test_each_half_is_judged_by_the_bounds_of_the_other():
    rows = [row(fixed="a", foreground_similarity=v) for v in (0.90, 0.92)]
    rows += [row(fixed="b", foreground_similarity=v) for v in (0.80, 0.82)]
    result = split_and_judge(rows)
    assert result["bounds of the first half, the other half judged"]["specificity"] == 0
    assert result["bounds of the second half, the other half judged"]["specificity"] == 1


def test_a_pair_without_any_overlap_counts_in_the_mean_one_without_labels_does_not():
    rows = [row(fixed=name, dice_after=value) for name, value in (("a", 0.8), ("b", 0.0), ("a", None))]
    assert split_and_judge(rows)["mean Dice"] == {GOOD: 0.4}


@pytest.fixture
def registrations(monkeypatch, tmp_path):
    """Six pairs, and in place of the workflow what notes its moving image; a call registers what is left to do."""
    for name in (*"abcdefg", "foreign"):
        values = np.full((4, 5, 6), ord(name[0]), np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    (tmp_path / "weights.pt").write_text("weights")
    pairs = [
        {"name": f"{m}_to_g", "moving": str(tmp_path / f"{m}.nii.gz"), "fixed": str(tmp_path / "g.nii.gz")}
        for m in "abcdef"
    ]
    done = []

    def infer_pair(pair, **options):
        name = Path(pair["moving"]).name.partition(".")[0]
        if name in run.failing:
            raise KeyboardInterrupt
        done.append(name)
        transform = SpatialTransform(np.eye(4), None, *[Grid((4, 5, 6), np.eye(4))] * 3)
        return {"quality": {"stretch": 1.0, "dice_after": math.nan}, "transform": transform}

    def run(spoiled=5, failing=(), **options):
        done.clear()
        run.failing = failing
        options = {"ckpt": str(tmp_path / "weights.pt"), **options}
        try:
            rows = rows_of(pairs, [str(tmp_path / "foreign.nii.gz")], spoiled, tmp_path / "cache", options)
        except KeyboardInterrupt:
            return [*done]
        found = [(row["pair"][0], row["kind"]) for row in rows]
        assert sorted(found) == sorted(set(found))
        assert {kind for _, kind in found} == {GOOD, *KINDS[:spoiled]}
        assert [pair for pair, kind in found if kind == GOOD] == [*"abcdef"]
        assert all(row["dice_after"] is None for row in rows)
        return [*done]

    monkeypatch.setattr(verdicts, "infer_pair", infer_pair)
    monkeypatch.setattr(verdicts, "_measured_again", lambda item, _: item["quality"])
    return run


EVERYTHING = ["a", "b", "c", "turned_c", "d", "noise_d", "e", "foreign", "f"]


def test_what_is_done_is_read_by_a_later_call(registrations):
    assert registrations() == EVERYTHING
    assert registrations() == []
    assert registrations(spoiled=1) == []


@pytest.mark.parametrize("failing", EVERYTHING)
def test_an_interrupted_call_goes_on_where_it_stopped_and_counts_nothing_twice(registrations, failing):
    before = registrations(failing=[failing])
    assert [*before, *registrations()] == EVERYTHING


@pytest.mark.parametrize("other", ["option", "weights", "description", "image", "foreign"])
def test_what_is_made_otherwise_is_made_anew(registrations, tmp_path, other):
    registrations()
    options = {"spacing_mm": 2.0} if other == "option" else {}
    if other == "weights":
        (tmp_path / "weights.pt").write_text("others")
    if other == "description":
        (tmp_path / "weights.json").write_text('{"gamma": 0.5}')
    if other in ("image", "foreign"):
        path = tmp_path / f"{'c' if other == 'image' else other}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), path)
    affected = {"image": ["c", "turned_c"], "foreign": ["foreign"]}.get(other, EVERYTHING)
    assert registrations(**options) == affected
    assert registrations(**options) == []


def test_a_row_that_was_only_half_written_is_made_anew(registrations, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept.os, "replace", interrupted)
        assert registrations() == ["a"]
    assert registrations() == EVERYTHING


@pytest.mark.parametrize("kind", ["turned", "noise"])
def test_a_spoiled_image_has_the_same_voxels_elsewhere(tmp_path, kind):
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 3, 4, 1])), tmp_path / "moving.nii.gz")
    spoiled = nibabel.load(_spoiled_image(str(tmp_path / "moving.nii.gz"), kind, tmp_path))
    assert np.array_equal(np.sort(spoiled.get_fdata().ravel()), np.sort(values.ravel()))
    assert not np.array_equal(spoiled.get_fdata().ravel(), values.ravel())
    assert spoiled.shape == ((5, 6, 4) if kind == "turned" else values.shape)


def test_a_negated_field_is_measured_as_it_is_then():
    grid, ramp = Grid((20, 24, 22), np.diag([2.0, 2.0, 2.0, 1.0])), torch.arange(20.0).view(-1, 1, 1)
    values = np.random.default_rng(0).normal(1, 0.2, (1, *grid.shape)).astype(np.float32)
    volume = MetaTensor(torch.from_numpy(values), affine=torch.diag(torch.tensor([-2.0, -2.0, 2.0, 1.0])))
    ddf = torch.zeros(3, *grid.shape)
    ddf[0] = 1.2 * ramp  # turned around: every voxel folds
    item = {"image": torch.cat([volume, volume]), "moving": volume, "ddf": ddf}
    item |= {"transform": SpatialTransform(np.eye(4), ddf, grid, grid, grid), "quality": {}}
    assert verdicts._measured_again(item, "negated")["folding_percent"] == 100
    assert verdicts._measured_again(item, "shifted")["folding_percent"] == 0


def test_a_spoiled_transform_is_off_by_15_mm_or_goes_the_other_way():
    grid = Grid((4, 5, 6), np.eye(4))
    transform = SpatialTransform(np.eye(4), torch.ones(3, *grid.shape), grid, grid, grid)
    point = np.array([1.0, 2.0, 3.0])
    shifted = _spoiled_transform(transform, "shifted").displacement_at(point) - transform.displacement_at(point)
    assert math.isclose(float(shifted.norm()), 15.0)
    assert torch.allclose(
        _spoiled_transform(transform, "negated").displacement_at(point), -transform.displacement_at(point)
    )
