import math

import nibabel
import numpy as np
import pytest
import torch
from bundle.benchmark.verdicts import (
    GOOD,
    _spoiled_image,
    _spoiled_transform,
    bounds_from,
    read_rows,
    separation,
    split_and_judge,
)
from bundle.plausibility import LIMITS
from bundle.spatial import Grid, SpatialTransform

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


def test_nothing_was_done_before_the_first_call(tmp_path):
    assert read_rows(tmp_path) == []


@pytest.mark.parametrize("kind", ["turned", "noise"])
def test_a_spoiled_image_has_the_same_voxels_elsewhere(tmp_path, kind):
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 3, 4, 1])), tmp_path / "moving.nii.gz")
    spoiled = nibabel.load(_spoiled_image(str(tmp_path / "moving.nii.gz"), kind, tmp_path))
    assert np.array_equal(np.sort(spoiled.get_fdata().ravel()), np.sort(values.ravel()))
    assert not np.array_equal(spoiled.get_fdata().ravel(), values.ravel())
    assert spoiled.shape == ((5, 6, 4) if kind == "turned" else values.shape)


def test_a_spoiled_transform_is_off_by_15_mm_or_goes_the_other_way():
    grid = Grid((4, 5, 6), np.eye(4))
    transform = SpatialTransform(np.eye(4), torch.ones(3, *grid.shape), grid, grid, grid)
    point = np.array([1.0, 2.0, 3.0])
    shifted = _spoiled_transform(transform, "shifted").displacement_at(point) - transform.displacement_at(point)
    assert math.isclose(float(shifted.norm()), 15.0)
    assert torch.allclose(
        _spoiled_transform(transform, "negated").displacement_at(point), -transform.displacement_at(point)
    )
