"""Measures of fields and landmarks."""

import math

import numpy as np
import pytest
import SimpleITK
import torch
from bundle.fields import identity_grid
from bundle.metrics import folding_percent, log_jacobian_sd, tre_mm
from tests.measured import random_field

SPACING = (1.2, 0.9, 2.5)


def line_field(values, shape=(8, 5, 6)):
    """Move along axis 0 only, by a value for each index of that axis."""
    ddf = torch.zeros(1, 3, *shape, dtype=torch.float64)
    ddf[0, 0] = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
    return ddf


# --- fields ---


def test_folding_counts_exactly_the_voxels_folded_by_hand():
    ddf = torch.zeros(1, 3, 8, 5, 6)
    ddf[0, 0, 4, 2, 3] = -2  # det 0 at index 3, 2 at index 5
    ddf[0, 1, 1, 3, 1] = -3  # det -0.5 at index 2 of axis 1, 2.5 beyond its end
    ddf[0, 2, 6, 1, 1] = -1  # at the border the difference is one-sided: det 0 at index 0 of axis 2
    assert folding_percent(ddf) == pytest.approx(100 * 3 / (8 * 5 * 6))


def test_folding_counts_inside_the_mask_only():
    ddf = torch.zeros(1, 3, 8, 5, 6)
    ddf[0, 0, 4, 2, 3] = -2
    mask = torch.zeros(8, 5, 6)
    mask[3, 2, :4] = 1
    assert folding_percent(ddf, mask) == 25.0
    assert folding_percent(ddf, 1 - mask[None, None]) == 0.0
    assert math.isnan(folding_percent(ddf, torch.zeros(8, 5, 6)))


def test_folding_agrees_with_itk_on_an_anisotropic_grid():
    ddf = random_field(0, amplitude=1.6)
    det = itk_determinant(ddf, SPACING)
    inside = torch.zeros(ddf.shape[2:])
    inside[1:-1, 1:-1, 1:-1] = 1
    assert 2 < folding_percent(ddf, inside) < 98
    assert folding_percent(ddf, inside) == pytest.approx(100 * (det <= 0).mean())
    assert log_jacobian_sd(ddf, inside) == pytest.approx(np.log(det[det > 0]).std(), rel=1e-6)


def itk_determinant(ddf, spacing):
    """Compute the interior determinant with ITK, from the field in mm on a grid with spacing."""
    mm = ddf[0].numpy() * np.array(spacing).reshape(3, 1, 1, 1)
    image = SimpleITK.GetImageFromArray(mm.transpose(3, 2, 1, 0), isVector=True)  # ITK's x is our axis 0
    image.SetSpacing(spacing)
    det = SimpleITK.GetArrayFromImage(SimpleITK.DisplacementFieldJacobianDeterminant(image))
    return det.transpose(2, 1, 0)[1:-1, 1:-1, 1:-1]


def test_a_field_of_nan_is_folded_everywhere():
    ddf = torch.full((1, 3, 4, 5, 6), math.nan)
    assert folding_percent(ddf) == 100.0
    assert math.isnan(log_jacobian_sd(ddf))


def test_a_half_precision_field_is_measured_in_float32():
    ddf = random_field(1).half()
    assert log_jacobian_sd(ddf) == log_jacobian_sd(ddf.float())
    assert log_jacobian_sd(ddf) != log_jacobian_sd(random_field(1))


def test_log_jacobian_sd_of_any_scaling_is_zero():
    for factor in (0.3, 1.0, 2.5):
        ddf = (factor - 1) * identity_grid(torch.zeros(1, 3, 5, 7, 4))
        assert log_jacobian_sd(ddf) == pytest.approx(0, abs=1e-6)


def test_log_jacobian_sd_of_a_stretch_beside_rest_is_its_closed_form():
    ddf = line_field([0, 0, 0, 0, 1, 2, 3, 4])  # det 1 four times, 1.5 at the kink (index 3), 2 four times
    det = np.array([1, 1, 1, 1.5, 2, 2, 2, 2])
    assert log_jacobian_sd(ddf) == pytest.approx(np.log(det).std(), rel=1e-9)


def test_log_jacobian_sd_leaves_out_folded_voxels():
    ddf = line_field([0, 0, 0, -3, 0, 0, 0, 0])  # det -0.5 at index 2, 2.5 at index 4, else 1
    assert log_jacobian_sd(ddf) == pytest.approx(np.log([1, 1, 1, 2.5, 1, 1, 1]).std(), rel=1e-9)


def test_fields_of_several_pairs_and_masks_of_other_grids_are_refused():
    with pytest.raises(ValueError, match="one pair"):
        folding_percent(torch.zeros(2, 3, 4, 5, 6))
    with pytest.raises(ValueError, match="mask"):
        log_jacobian_sd(torch.zeros(1, 3, 4, 5, 6), torch.ones(5, 4, 6))


# --- landmarks ---


def test_tre_is_the_distance_of_each_landmark_to_its_own_target():
    fixed = np.array([[10.0, -20.0, 30.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    warped = fixed + np.array([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    assert tre_mm(warped, fixed).tolist() == pytest.approx([5.0, 0.0, 3.0])
    assert tre_mm(torch.from_numpy(warped), fixed[::-1]).tolist() != pytest.approx([5.0, 0.0, 3.0])


@pytest.mark.parametrize(("warped", "fixed"), [((4, 3), (3, 3)), ((3,), (3,)), ((3, 4), (3, 4)), ((1, 3), (3,))])
def test_landmarks_of_mismatching_shapes_are_refused(warped, fixed):
    with pytest.raises(ValueError, match="Landmarks"):
        tre_mm(np.zeros(warped), np.zeros(fixed))
