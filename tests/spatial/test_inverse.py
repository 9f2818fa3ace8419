"""The inverse of a transform, beside closed forms and SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.itk import write_transform
from bundle.io.itk_composites import read_transform
from bundle.spatial import SpatialTransform, inverse_residual, invert, invert_points
from tests.spatial.oblique import indices_of, linear_map, moved_by, oblique, random_points, smooth_ddf, transform_of

FIELD = oblique((19, 23, 17), (2.2, 1.7, 2.9), (4, 7, -12), (13.0, -20.0, 29.0))
MOVING = oblique((15, 12, 18), (1.9, 2.3, 1.2), (-6, 15, 8), (9.0, -19.0, 33.0))


def bent(voxels=1.5, alignment=None):
    return transform_of(linear_map() if alignment is None else alignment, smooth_ddf(FIELD.shape, 3, voxels), FIELD)


def mapped(transform, points):
    return points + transform.displacement_at(points).numpy()


def inner_points(count=300):
    return FIELD.centre_mm + (random_points(FIELD, 5, count) - FIELD.centre_mm) * 0.5


@pytest.mark.parametrize("voxels", [0.5, 1.5])
def test_a_point_carried_there_and_back_returns_to_where_it_was(voxels):
    transform, points = bent(voxels), inner_points()
    back, reached = invert_points(transform, mapped(transform, points), 1e-6)
    assert reached.all()
    np.testing.assert_allclose(back, points, atol=1e-5)


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_the_tolerance_is_that_of_points_in_the_moving_image_where_the_alignment_scales(factor):
    transform, points = bent(1.5, np.diag([factor, factor, factor, 1.0])), inner_points(1000)
    there = mapped(transform, points)
    back, reached = invert_points(transform, there, 0.3 * factor**0.5)
    assert reached.all()
    assert np.linalg.norm(mapped(transform, back) - there, axis=1).max() <= 0.3 * factor**0.5


def test_every_point_of_a_rough_field_is_found_again_where_it_goes_to():
    """Where the field all but folds and where it does, too: Newton's method alone ends beside some of them."""
    rough = smooth_ddf(FIELD.shape, 5, 1.5) + 0.35 * torch.randn(3, *FIELD.shape, generator=torch.manual_seed(2))
    transform = transform_of(linear_map(), rough, FIELD)
    there = mapped(transform, random_points(FIELD, 7, 5000))
    back, reached = invert_points(transform, there)
    assert reached.all()
    assert np.linalg.norm(mapped(transform, back) - there, axis=1).max() < 2e-3


def test_the_inverse_of_a_linear_transform_is_that_of_its_matrix():
    transform, points = transform_of(linear_map()), random_points(oblique())
    expected = moved_by(np.linalg.inv(linear_map()), points)
    np.testing.assert_allclose(invert_points(transform, points)[0], expected, atol=1e-9)
    np.testing.assert_allclose(mapped(invert(transform), points), expected, atol=1e-9)


def test_the_inverse_of_a_linear_field_is_exact_between_voxels_too():
    slope = np.array([[0.12, 0.05, -0.03], [0.02, -0.1, 0.06], [-0.04, 0.03, 0.09]])
    middle = (np.array(FIELD.shape) - 1) / 2
    ddf = torch.from_numpy(np.moveaxis((indices_of(FIELD) - middle) @ slope.T, -1, 0))
    transform, points = transform_of(linear_map(), ddf, FIELD), inner_points()
    inverse = invert(transform)
    np.testing.assert_allclose(mapped(inverse, mapped(transform, points)), points, atol=2e-3)
    index = FIELD.to_index(points)
    by_hand = FIELD.to_points(middle + (index - middle) @ np.linalg.inv(np.eye(3) + slope).T)
    np.testing.assert_allclose(mapped(inverse, moved_by(linear_map(), points)), by_hand, atol=2e-3)


def test_every_voxel_of_the_inverse_s_lattice_that_the_field_reaches_is_exact():
    transform = bent()
    inverse = invert(transform)
    voxels = inverse.field_grid.to_points(indices_of(inverse.field_grid)).reshape(-1, 3)
    _, reached = invert_points(transform, voxels)
    assert 0.4 < reached.mean() < 1
    there = mapped(transform, mapped(inverse, voxels[reached]))
    assert np.linalg.norm(there - voxels[reached], axis=1).max() < 2e-3


def test_next_to_every_voxel_of_the_inverse_s_lattice_is_solved_though_the_field_is_about_to_fold():
    """Beyond the border, where the field goes on and has no slope, and where it flattens space, too."""
    transform = transform_of(np.eye(4), smooth_ddf(FIELD.shape, 5, 3.6), FIELD)
    inverse = invert(transform, 1e-6)
    voxels = torch.from_numpy(inverse.field_grid.to_points(indices_of(inverse.field_grid)).reshape(-1, 3))
    back = voxels + inverse.displacement_at(voxels)
    missed = (back + transform.displacement_at(back, extend=True) - voxels).norm(dim=1) > 1e-5
    assert len(missed) > 15_000
    assert missed.sum() < 10


def test_the_inverse_swaps_the_images_and_is_written_so_that_itk_maps_the_same_points(tmp_path):
    transform = SpatialTransform(linear_map(), smooth_ddf(FIELD.shape, 3), FIELD, oblique(), MOVING)
    inverse = invert(transform)
    assert inverse.fixed_grid is transform.moving_grid
    assert inverse.moving_grid is transform.fixed_grid
    write_transform(inverse, tmp_path / "inverse.h5")
    points = random_points(MOVING, 2)
    by_itk = sitk.ReadTransform(str(tmp_path / "inverse.h5"))
    expected = np.array([by_itk.TransformPoint(point) for point in points.tolist()])
    np.testing.assert_allclose(mapped(inverse, points), expected, atol=1e-6)
    again = read_transform(tmp_path / "inverse.h5", MOVING, oblique())
    np.testing.assert_allclose(mapped(again, points), expected, atol=1e-6)


def test_a_point_that_the_field_does_not_reach_goes_by_the_alignment_and_is_said():
    transform = bent()
    far = FIELD.to_points([[-30.0, 4, 5], [10, 11, 8]])
    back, reached = invert_points(transform, moved_by(linear_map(), far))
    assert reached.tolist() == [False, True]
    np.testing.assert_allclose(back[0], far[0], atol=1e-9)
    assert len(invert_points(transform, np.zeros((0, 3)))[0]) == 0


def test_where_a_field_folds_a_point_that_maps_there_is_found():
    transform = bent(6.0, np.eye(4))  # folds in many places
    points = inner_points()
    there = mapped(transform, points)
    back, reached = invert_points(transform, there)
    assert reached.mean() > 0.9
    np.testing.assert_allclose(mapped(transform, back[reached]), there[reached], atol=2e-3)


def test_the_residual_is_what_the_points_say_and_counts_those_that_leave_the_moving_image():
    transform = SpatialTransform(linear_map(), smooth_ddf(FIELD.shape, 3), FIELD, oblique(), MOVING)
    inverse = invert(transform)
    points = oblique().to_points(indices_of(oblique())).reshape(-1, 3)
    there = mapped(transform, points)
    index = MOVING.to_index(there)
    inside = ((index >= -0.5) & (index < np.array(MOVING.shape) - 0.5)).all(1)
    lengths = np.linalg.norm(mapped(inverse, there[inside]) - points[inside], axis=1)
    found = inverse_residual(transform, inverse)
    assert 0 < inside.mean() < 1
    assert found["beyond_percent"] == pytest.approx(100 * (1 - inside.mean()))
    assert found["mean_mm"] == pytest.approx(lengths.mean())
    assert found["p99_mm"] == pytest.approx(np.percentile(lengths, 99))
    assert found["max_mm"] == pytest.approx(lengths.max())
    nothing = inverse_residual(transform, inverse, torch.zeros(oblique().shape, dtype=torch.bool))
    assert np.isnan(nothing["mean_mm"])
    assert nothing["beyond_percent"] == 0


def test_the_residual_is_not_above_that_of_simpleitk_s_inverse_of_the_same_field():
    transform = bent(1.5, np.eye(4))
    image = sitk.GetImageFromArray(transform.field_mm.permute(3, 2, 1, 0).numpy(), isVector=True)
    image.SetOrigin(FIELD.origin_mm.tolist())
    image.SetSpacing(FIELD.spacing_mm.tolist())
    image.SetDirection(FIELD.direction.ravel().tolist())
    by_itk = sitk.DisplacementFieldTransform(
        sitk.InvertDisplacementField(sitk.Cast(image, sitk.sitkVectorFloat64), 50, 0.001, 0.0001, False)
    )
    points = inner_points(1000)
    there = mapped(transform, points)
    theirs = np.array([by_itk.TransformPoint(point) for point in there.tolist()]) - points
    ours = mapped(invert(transform), there) - points
    assert np.linalg.norm(ours, axis=1).mean() <= 1.02 * np.linalg.norm(theirs, axis=1).mean()
