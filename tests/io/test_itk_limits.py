"""How far from a right angle, and how flat, a transform may be."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.itk import is_orthogonal, linear_to_itk, read_linear, write_transform
from bundle.io.itk_composites import read_transform
from bundle.spatial import Grid
from tests.spatial.oblique import linear_map, oblique, random_points, smooth_ddf, transform_of

FIELD = oblique((19, 23, 17), (2.2, 1.7, 2.9), (4, 7, -12), (13.0, -20.0, 29.0))


@pytest.mark.parametrize(("skew", "orthogonal"), [(5e-6, True), (1e-3, False), (8e-3, False)])
def test_a_field_on_a_lattice_slightly_off_the_right_angle_goes_through_a_file_where_it_is(tmp_path, skew, orthogonal):
    sheared = np.eye(4)
    sheared[0, 1] = skew
    grid = Grid(FIELD.shape, FIELD.affine @ sheared)
    transform = transform_of(linear_map(), smooth_ddf(FIELD.shape), grid)
    write_transform(transform, tmp_path / "transform.h5")
    assert is_orthogonal(grid) is orthogonal
    points, itk = random_points(FIELD), sitk.ReadTransform(str(tmp_path / "transform.h5"))
    moved = points + transform.displacement_at(points).numpy()
    by_itk = np.array([itk.TransformPoint(point) for point in points.tolist()])
    again = read_transform(tmp_path / "transform.h5", oblique(), oblique())
    np.testing.assert_allclose(by_itk, moved, atol=1e-4)
    np.testing.assert_allclose(points + again.displacement_at(points).numpy(), moved, atol=1e-4)


@pytest.mark.parametrize(("thin", "taken"), [(1e-5, True), (1e-7, False)])
def test_a_transform_that_takes_points_far_apart_next_to_each_other_flattens_space(tmp_path, thin, taken):
    matrix = linear_map() @ np.diag([1.0, 1, thin, 1])
    sitk.WriteTransform(linear_to_itk(matrix), str(tmp_path / "T.tfm"))
    if taken:
        np.testing.assert_allclose(read_linear(tmp_path / "T.tfm"), matrix, atol=1e-9)
        return
    with pytest.raises(ValueError, match="is singular: it flattens space"):
        read_linear(tmp_path / "T.tfm")
