"""Measures of fields and landmarks."""

import math

import numpy as np
import pytest
import SimpleITK
import torch
from bundle.fields import identity_grid
from bundle.metrics import (
    folding_percent,
    learn2reg_log_jacobian_sd,
    log_jacobian_sd,
    non_diffeomorphic_volume_percent,
    tre_mm,
)
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


# --- non-diffeomorphic volume ---


def checkerboard(height, shape=(6, 5, 7), axis=0):
    """Move every other voxel up, and those between down, along one axis."""
    ddf = torch.zeros(1, 3, *shape, dtype=torch.float64)
    ddf[0, axis] = height * (-1.0) ** identity_grid(ddf)[0].sum(0)
    return ddf


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("height", [0.3, 0.5, 0.75, 1.2])
def test_a_checkerboard_turns_a_third_of_what_it_exceeds_half_a_voxel_by_inside_out(height, axis):
    ddf = checkerboard(height, axis=axis)
    inside = torch.zeros(ddf.shape[2:])
    inside[1:-1, 1:-1, 1:-1] = 1
    assert folding_percent(ddf, inside) == 0  # a central difference looks past the voxel itself
    expected = 100 * max(0, 2 * height - 1) / 3
    assert non_diffeomorphic_volume_percent(ddf) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_an_affine_map_turns_nothing_inside_out_or_all_of_its_volume(seed):
    matrix = torch.eye(3, dtype=torch.float64) + 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))
    determinant = float(torch.linalg.det(matrix))
    grid = identity_grid(torch.zeros(1, 3, 4, 6, 5, dtype=torch.float64))[0]
    for sign in (1, -1):
        mirrored = matrix * torch.tensor([sign, 1, 1])[:, None]
        ddf = (torch.einsum("ij,jhwl->ihwl", mirrored, grid) - grid)[None]
        volume = max(0.0, -sign * determinant)
        assert non_diffeomorphic_volume_percent(ddf) == pytest.approx(100 * volume, abs=1e-9)
    assert non_diffeomorphic_volume_percent(torch.zeros(1, 3, 4, 6, 5)) == 0


def test_the_corners_of_a_cell_are_all_combinations_of_forward_and_backward_differences():
    """Both ways to cut a cell, by hand: eight one-sided determinants a voxel, and the two tetrahedra in the middle."""
    ddf = random_field(0, amplitude=1.6).double()
    position = (identity_grid(ddf) + ddf)[0].numpy()
    volume = 0.0
    shape = [n - 1 for n in ddf.shape[2:]]
    for cell in np.ndindex(*shape):
        at = {c: position[(slice(None), *np.add(cell, c))] for c in np.ndindex(2, 2, 2)}
        for corner in at:
            steps = []
            for axis in range(3):
                other = list(corner)
                other[axis] = 1 - corner[axis]
                steps.append((at[tuple(other)] - at[corner]) * (1 - 2 * corner[axis]))  # the difference quotient
            volume += max(0.0, -np.linalg.det(np.stack(steps, 1))) / 6
        for a, b, c, d in (((0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)), ((1, 1, 1), (0, 0, 1), (0, 1, 0), (1, 0, 0))):
            edges = np.stack([at[b] - at[a], at[c] - at[a], at[d] - at[a]], 1)
            reference = np.linalg.det(np.stack([np.subtract(b, a), np.subtract(c, a), np.subtract(d, a)], 1))
            volume += max(0.0, -np.linalg.det(edges) * np.sign(reference)) / 6
    expected = 100 * volume / 2 / np.prod(shape)
    assert expected > 1
    assert non_diffeomorphic_volume_percent(ddf) == pytest.approx(expected, rel=1e-9)


def test_a_field_that_is_not_a_number_is_no_diffeomorphism():
    ddf = torch.zeros(1, 3, 4, 5, 6)
    ddf[0, 1, 2, 2, 2] = math.nan
    assert non_diffeomorphic_volume_percent(ddf) == math.inf


def test_a_fields_shape_is_checked_by_all_measures():
    for measure in (non_diffeomorphic_volume_percent, learn2reg_log_jacobian_sd):
        for shape in ((2, 3, 4, 4, 4), (1, 2, 4, 4, 4), (3, 4, 4, 4), (1, 3, 1, 4, 4)):
            with pytest.raises(ValueError, match="must be of one pair"):
                measure(torch.zeros(shape))


# --- SDlogJ as Learn2Reg has it ---


def test_learn2regs_sd_adds_three_clips_and_leaves_two_voxels_off_the_border():
    ddf = random_field(0, amplitude=1.6).double()
    ddf[0, 0, 4, 4, 4] = -12  # det J + 3 below 0 nearby
    det = torch.full(ddf.shape[2:], math.nan, dtype=torch.float64)
    det[1:-1, 1:-1, 1:-1] = torch.from_numpy(itk_determinant(ddf, (1.0, 1.0, 1.0)))
    inside = det[2:-2, 2:-2, 2:-2].numpy()
    assert (inside + 3).min() < 0
    assert learn2reg_log_jacobian_sd(ddf) == pytest.approx(np.log(np.clip(inside + 3, 1e-9, 1e9)).std(), rel=1e-6)


def test_learn2regs_sd_is_a_quarter_of_the_plain_one_near_the_identity():
    ddf = random_field(1, amplitude=0.01)
    inside = torch.zeros(ddf.shape[2:])
    inside[2:-2, 2:-2, 2:-2] = 1
    assert learn2reg_log_jacobian_sd(ddf) == pytest.approx(log_jacobian_sd(ddf, inside) / 4, rel=0.02)
    assert math.isnan(learn2reg_log_jacobian_sd(torch.zeros(1, 3, 4, 9, 9)))
