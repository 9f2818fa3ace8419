"""Transforms in a row, beside SimpleITK's composite."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.itk import linear_to_itk, write_transform
from bundle.spatial import Grid, Inverse, SpatialTransform, chain, compose, invert, invert_points, unreached_percent
from tests.spatial.oblique import indices_of, linear_map, moved_by, oblique, random_points, smooth_ddf, transform_of

FIXED, MOVING = oblique((11, 9, 13), (1.6, 2.1, 1.3)), oblique((15, 12, 18), (1.9, 2.3, 1.2), (-6, 15, 8))
FIELD = oblique((19, 23, 17), (2.2, 1.7, 2.9), (4, 7, -12), (13.0, -20.0, 29.0))


def bent(seed, alignment=None):
    return transform_of(linear_map(seed) if alignment is None else alignment, smooth_ddf(FIELD.shape, seed), FIELD)


def mapped(transform, points):
    return points + transform.displacement_at(points).numpy()


def by_itk(transforms, points, folder):
    """SimpleITK's composite, too, applies the last one first."""
    paths = [folder / f"{n}.h5" for n in range(len(transforms))]
    for transform, path in zip(transforms, paths):
        write_transform(transform, path)
    composite = sitk.CompositeTransform([sitk.ReadTransform(str(path)) for path in paths])
    return np.array([composite.TransformPoint(point) for point in points.tolist()])


def test_linear_transforms_compose_to_the_product_of_their_matrices():
    parts = [transform_of(linear_map(seed)) for seed in range(3)]
    whole = compose(parts, FIXED, MOVING)
    assert whole.ddf is None
    assert whole.fixed_grid is FIXED
    assert whole.moving_grid is MOVING
    np.testing.assert_allclose(whole.alignment, linear_map(0) @ linear_map(1) @ linear_map(2))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_field_among_linear_transforms_keeps_its_values_and_is_exact_everywhere(tmp_path, place):
    parts = [transform_of(linear_map(seed)) for seed in range(2)]
    parts.insert(place, bent(4))
    whole = compose(parts, FIXED, MOVING)
    points = random_points(FIXED)
    np.testing.assert_allclose(mapped(whole, points), by_itk(parts, points, tmp_path), atol=1e-6)
    assert whole.ddf is parts[place].ddf


def test_several_fields_are_exact_at_the_voxels_of_the_fixed_image(tmp_path):
    parts = [bent(1), transform_of(linear_map(2)), bent(3)]
    whole = compose(parts, FIXED, MOVING)
    voxels = FIXED.to_points(indices_of(FIXED)).reshape(-1, 3)
    np.testing.assert_allclose(mapped(whole, voxels), by_itk(parts, voxels, tmp_path), atol=1e-6)
    assert whole.field_grid is FIXED


def test_an_inverse_in_a_row_is_solved_for_each_point():
    transform = bent(5)
    voxels = FIXED.to_points(indices_of(FIXED)).reshape(-1, 3)
    expected, reached = invert_points(transform, moved_by(linear_map(1), voxels))
    assert 0.5 < reached.mean() < 1
    whole = compose([Inverse(transform), transform_of(linear_map(1))], FIXED, MOVING)
    np.testing.assert_allclose(mapped(whole, voxels)[reached], expected[reached], atol=1e-6)


def test_an_inverse_is_that_of_the_field_s_lattice_at_its_voxels_whether_the_field_reaches_them_or_not():
    transform = bent(5)
    lattice = invert(transform)
    voxels = lattice.field_grid.to_points(indices_of(lattice.field_grid)).reshape(-1, 3)
    _, reached = invert_points(transform, voxels)
    assert 0.4 < reached.mean() < 0.9
    solved = voxels + Inverse(transform).displacement_at(torch.from_numpy(voxels)).numpy()
    np.testing.assert_allclose(solved, mapped(lattice, voxels), atol=3e-3)  # both are solved to 1e-3 mm
    far = torch.from_numpy(lattice.field_grid.to_points([[-9.0, 4, 5], [6, 50, 7]]))
    solved = far + Inverse(transform).displacement_at(far)
    np.testing.assert_allclose(solved.numpy(), mapped(lattice, far.numpy()), atol=1e-9)


def test_voxels_that_no_point_goes_to_are_counted_in_the_field_alone():
    ddf = torch.zeros(3, *FIELD.shape)
    ddf[0] = 4.0  # voxels, all along the first axis: its first four planes are left
    transform = transform_of(linear_map(1), ddf, FIELD)
    there = FIELD.crop((-4, 0, 0), np.array(FIELD.shape) - 1)
    aligned = Grid(there.shape, linear_map(1) @ there.affine)
    assert unreached_percent([Inverse(transform)], aligned) == pytest.approx(100 * 4 / 23)  # planes
    before = transform_of(linear_map(2))
    moved = Grid(aligned.shape, np.linalg.inv(linear_map(2)) @ aligned.affine)
    assert unreached_percent([Inverse(transform), before], moved) == pytest.approx(100 * 4 / 23)
    after = Inverse(transform_of(linear_map(3)))  # another inverse, which loses none
    assert unreached_percent([after, Inverse(transform)], aligned) == pytest.approx(100 * 4 / 23)
    assert unreached_percent([transform, before], moved) == 0
    assert unreached_percent([Inverse(transform_of(linear_map(1)))], aligned) == 0


def test_of_many_voxels_some_are_drawn_those_at_the_border_like_all_others(monkeypatch):
    ddf = torch.zeros(3, *FIELD.shape)
    ddf[0] = 0.6  # voxels: the first plane alone is left
    transform = transform_of(linear_map(1), ddf, FIELD)
    aligned = Grid(FIELD.shape, linear_map(1) @ FIELD.affine)
    assert unreached_percent([Inverse(transform)], aligned) == pytest.approx(100 / 19)
    monkeypatch.setattr(chain, "MOST", 4000)  # of 7429
    drawn = unreached_percent([Inverse(transform)], aligned)
    assert drawn == pytest.approx(100 / 19, abs=1.1)  # three standard deviations
    assert drawn == unreached_percent([Inverse(transform)], aligned)


def test_beyond_the_fixed_image_fields_in_a_row_leave_the_product_of_their_alignments():
    parts = [bent(1), transform_of(linear_map(2)), Inverse(bent(3))]
    whole = compose(parts, FIXED, MOVING)
    expected = linear_map(1) @ linear_map(2) @ np.linalg.inv(linear_map(3))
    far = FIXED.to_points([[-4.0, 4, 5], [6, 30, 7]])
    np.testing.assert_allclose(mapped(whole, far), moved_by(expected, far), atol=1e-9)


def test_a_transform_after_its_inverse_moves_nothing():
    transform = bent(5, np.eye(4))
    whole = compose([transform, Inverse(transform)], FIXED, MOVING)
    assert whole.displacement_field().abs().max() < 3e-3


def test_the_inverse_of_a_linear_transform_stays_linear():
    linear = transform_of(linear_map(3))
    whole = compose([Inverse(linear), bent(2)], FIXED, MOVING)
    assert whole.field_grid is not FIXED
    np.testing.assert_allclose(whole.alignment, np.linalg.inv(linear_map(3)) @ linear_map(2), atol=1e-12)
    points = random_points(FIXED)
    expected = np.array([linear_to_itk(linear_map(3)).GetInverse().TransformPoint(p) for p in mapped(bent(2), points)])
    np.testing.assert_allclose(mapped(whole, points), expected, atol=1e-9)


def test_nothing_to_compose_is_refused():
    with pytest.raises(ValueError, match="no transform"):
        compose([], FIXED, MOVING)


def test_points_of_any_shape_are_taken():
    inverse = Inverse(bent(1))
    points = torch.from_numpy(random_points(FIXED)).view(4, 50, 3)
    assert inverse.displacement_at(points).shape == points.shape
    assert isinstance(inverse.transform, SpatialTransform)
