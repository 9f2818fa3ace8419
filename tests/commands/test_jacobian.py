"""The determinant of stored transforms, as an image and as numbers."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.commands.compose import compose
from bundle.commands.jacobian import jacobian
from bundle.fields import jacobian_determinant
from bundle.io.images import write_image
from bundle.io.itk import write_transform
from bundle.spatial import SpatialTransform
from tests.commands.chained import FIELD, FIXED, MOVING, composite, write_chain
from tests.spatial.oblique import indices_of, linear_map, smooth_ddf


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_chain(tmp_path_factory.mktemp("chain"))


@pytest.mark.parametrize("whole", [False, True])
def test_the_jacobian_of_a_linear_field_is_its_determinant_in_every_direction(tmp_path, whole):
    slope = np.array([[0.12, 0.05, -0.03], [0.02, -0.1, 0.06], [-0.04, 0.03, 0.09]])
    middle = (np.array(FIELD.shape) - 1) / 2
    ddf = torch.from_numpy(np.moveaxis((indices_of(FIELD) - middle) @ slope.T, -1, 0)).float()
    write_transform(SpatialTransform(linear_map(), ddf, FIELD, FIXED, MOVING), tmp_path / "t.h5")
    write_image(torch.rand(1, *FIXED.shape), FIXED, tmp_path / "fixed.nii.gz")
    paths = [str(tmp_path / name) for name in ("t.h5", "fixed.nii.gz", "j.nii.gz")]
    jacobian(*paths, whole=whole)
    expected = np.linalg.det(np.eye(3) + slope) * (np.linalg.det(linear_map()[:3, :3]) if whole else 1)
    np.testing.assert_allclose(nibabel.load(paths[2]).get_fdata(), expected, rtol=1e-4)
    jacobian(*paths, whole=whole, log=True)
    np.testing.assert_allclose(nibabel.load(paths[2]).get_fdata(), np.log(expected), atol=1e-4)


def test_the_jacobian_on_the_field_s_own_grid_is_that_of_its_voxels_and_folds_have_no_logarithm(tmp_path, capsys):
    ddf = smooth_ddf(FIELD.shape, 2, 7.0)
    write_transform(SpatialTransform(linear_map(), ddf, FIELD, FIELD, MOVING), tmp_path / "t.h5")
    write_image(torch.rand(1, *FIELD.shape), FIELD, tmp_path / "fixed.nii.gz")
    paths = [str(tmp_path / name) for name in ("t.h5", "fixed.nii.gz", "j.nii.gz")]
    jacobian(*paths)
    expected = jacobian_determinant(ddf[None].double())[0, 0].numpy()
    np.testing.assert_allclose(nibabel.load(paths[2]).get_fdata(), expected, atol=1e-4)
    jacobian(*paths, log=True)
    found = nibabel.load(paths[2]).get_fdata()
    assert (np.isnan(found) == (expected <= 0)).all()
    folds = expected <= 0
    outermost = folds.sum() - folds[1:-1, 1:-1, 1:-1].sum()
    assert 0 < outermost < folds.sum()
    said = capsys.readouterr().out
    assert f"{folds.sum()} voxels fold\nnote: {outermost} of these lie in the outermost layer" in said


def test_folds_that_lie_within_the_image_alone_go_without_a_note(tmp_path, capsys):
    ddf = torch.zeros(3, *FIELD.shape)
    middle = tuple(side // 2 for side in FIELD.shape)
    ddf[0][middle] = -3.0
    write_transform(SpatialTransform(linear_map(), ddf, FIELD, FIELD, MOVING), tmp_path / "t.h5")
    write_image(torch.rand(1, *FIELD.shape), FIELD, tmp_path / "fixed.nii.gz")
    jacobian(*(str(tmp_path / name) for name in ("t.h5", "fixed.nii.gz", "j.nii.gz")))
    said = capsys.readouterr().out
    assert " 1 voxels fold\nwritten: " in said


@pytest.mark.parametrize("kind", ["affine, spline", "spline, affine", "affine, fields", "affine, field, affine, field"])
def test_the_jacobian_leaves_the_linear_parts_out_of_whatever_composite(tmp_path, kind, capsys):
    transform, determinant = composite(kind)
    sitk.WriteTransform(transform, str(tmp_path / "t.h5"))
    write_image(torch.rand(1, *FIXED.shape), FIXED, tmp_path / "fixed.nii.gz")
    paths = [str(tmp_path / name) for name in ("t.h5", "fixed.nii.gz", "j.nii.gz")]
    jacobian(*paths, whole=True)
    whole = nibabel.load(paths[2]).get_fdata()
    assert "determinant of the alignment and the field together: " in capsys.readouterr().out
    index = indices_of(FIXED)
    moved = np.array([transform.TransformPoint(p.tolist()) for p in FIXED.to_points(index).reshape(-1, 3)])
    moved = torch.from_numpy(np.moveaxis(FIXED.to_index(moved).reshape(index.shape) - index, -1, 0))
    by_itk = jacobian_determinant(moved[None])[0, 0].numpy()
    np.testing.assert_allclose(whole, by_itk, atol=1e-4)
    jacobian(*paths)
    np.testing.assert_allclose(nibabel.load(paths[2]).get_fdata(), whole / determinant, rtol=1e-4)
    assert "determinant of the field alone: " in capsys.readouterr().out


def test_the_jacobian_of_a_linear_transform_alone_is_asked_for_by_whole(folder, tmp_path, capsys):
    paths = [str(folder / "linear,5.h5"), str(folder / "fixed.nii.gz"), str(tmp_path / "j.nii.gz")]
    with pytest.raises(ValueError, match=r"linear,5\.h5\) is linear, and has no field .* give --whole"):
        jacobian(*paths)
    assert not list(tmp_path.iterdir())
    jacobian(*paths, whole=True)
    np.testing.assert_allclose(nibabel.load(paths[2]).get_fdata(), np.linalg.det(linear_map(5)[:3, :3]), rtol=1e-5)
    assert "determinant of the linear transform: " in capsys.readouterr().out


def test_a_file_that_holds_no_alignment_apart_is_measured_whole_and_this_is_said(folder, tmp_path, capsys):
    compose(*(str(folder / name) for name in ("t0.h5", "moving.nii.gz", "fixed.nii.gz")), str(tmp_path / "t.nii.gz"))
    jacobian(*map(str, (tmp_path / "t.nii.gz", folder / "fixed.nii.gz", tmp_path / "j.nii.gz")))
    out = capsys.readouterr().out
    assert "determinant of the whole transform, whose file holds no alignment apart from the field: " in out


def test_beyond_its_grid_the_field_s_determinant_is_that_of_its_outermost_voxels(tmp_path):
    """Where the field ends inside the fixed image, its jump to zero is no change of volume."""
    ddf = torch.full((3, 5, 4, 6), 2.5)
    grid = FIXED.crop((3, 2, 4), (7, 5, 9))
    write_transform(SpatialTransform(linear_map(), ddf, grid, FIXED, MOVING), tmp_path / "t.h5")
    write_image(torch.rand(1, *FIXED.shape), FIXED, tmp_path / "fixed.nii.gz")
    jacobian(*(str(tmp_path / name) for name in ("t.h5", "fixed.nii.gz", "j.nii.gz")))
    np.testing.assert_allclose(nibabel.load(tmp_path / "j.nii.gz").get_fdata(), 1, atol=1e-5)
