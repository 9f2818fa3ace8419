import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle import spatial
from bundle.spatial import Grid, lps_from_ras, ras_from_lps
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import (
    SHAPE,
    SPACING_MM,
    indices_of,
    moved_by,
    oblique,
    reoriented,
    towards_ras,
    transform_of,
)


def test_an_index_lies_its_steps_along_the_axes_away_from_the_origin():
    grid = oblique()
    index = np.random.default_rng(0).uniform(-3, 12, (50, 3))
    by_hand = grid.origin_mm + sum(
        index[:, [i]] * np.array(SPACING_MM)[i] * grid.direction[:, i] for i in range(3)
    )  # o + Σ iₖ sₖ dₖ
    assert np.allclose(grid.spacing_mm, SPACING_MM)
    assert np.allclose(grid.to_points(index), by_hand, atol=1e-10)
    assert np.allclose(moved_by(grid.inverse, grid.to_points(index)), index, atol=1e-10)
    assert np.allclose(grid.centre_mm, (11.0, -23.0, 31.0))


def test_ras_and_lps_differ_in_the_sign_of_the_first_two_axes_of_space():
    affine = oblique().affine
    assert np.array_equal(lps_from_ras(affine), affine * np.array([[-1], [-1], [1], [1]]))
    assert np.array_equal(ras_from_lps(lps_from_ras(affine)), affine)


@pytest.mark.parametrize("permutation", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_a_nifti_file_has_the_same_points_for_nibabel_as_for_itk(tmp_path, permutation, flips):
    affine = oblique(spacing_mm=np.array(SPACING_MM) * flips).affine.copy()
    affine[:, :3] = affine[:, permutation]
    path = tmp_path / "image.nii.gz"
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), affine)
    image.set_qform(affine, code="scanner")
    nibabel.save(image, path)
    grid = Grid.from_ras(SHAPE, nibabel.load(path).affine)
    itk_image = sitk.ReadImage(str(path))
    assert itk_image.GetSize() == grid.shape
    corners = list(itertools.product(*[(0, n - 1) for n in SHAPE]))
    by_itk = [itk_image.TransformContinuousIndexToPhysicalPoint([float(i) for i in c]) for c in corners]
    assert np.allclose(grid.to_points(corners), by_itk, atol=1e-4)  # headers are float32
    assert np.allclose(itk_image.GetSpacing(), grid.spacing_mm, atol=1e-5)
    assert np.allclose(np.reshape(itk_image.GetDirection(), (3, 3)), grid.direction, atol=1e-5)


@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_canonical_finds_the_same_axes_and_voxels_however_an_image_is_stored(permutation, flips):
    base = towards_ras()
    image = torch.from_numpy(np.random.default_rng(1).uniform(0.5, 1.5, (1, *SHAPE))).float()
    stored, grid = reoriented(image, base, permutation, flips)
    canonical = grid.canonical()
    assert canonical.is_close(base)
    assert (np.diag(canonical.affine)[:3] * (-1, -1, 1) > 0).all()
    on_it = transform_of(moving=grid).resample(stored, canonical)
    assert torch.equal(on_it, image)


@pytest.mark.parametrize("spacing_mm", [0.8, 1.7, 3.1])
def test_canonical_with_a_spacing_covers_the_field_of_view_without_waste(spacing_mm):
    stored = reoriented(torch.zeros(1, *SHAPE), towards_ras(), (2, 0, 1), (True, False, True))[1]
    grid = stored.canonical(spacing_mm)
    faces = list(itertools.product(*[(-0.5, n - 0.5) for n in stored.shape]))
    inside = moved_by(grid.inverse, stored.to_points(faces))
    assert np.allclose(grid.spacing_mm, spacing_mm)
    assert np.allclose(grid.direction, stored.canonical().direction)
    assert (inside >= -0.51).all()
    assert (inside <= np.array(grid.shape) - 0.49).all()
    waste = np.array(grid.shape) * spacing_mm - stored.canonical().spacing_mm * stored.canonical().shape
    assert (waste < spacing_mm).all()


def test_canonical_keeps_the_voxels_of_an_image_that_has_the_spacing_within_5_percent():
    near = oblique(spacing_mm=(-1.04, -0.97, 1.0))
    assert near.canonical(1.0).is_close(near)
    assert not near.canonical(1.1).is_close(near)


@pytest.mark.parametrize("spacing_mm", [0.0, -2.0, float("nan"), float("inf")])
def test_a_spacing_that_is_no_length_is_refused(spacing_mm):
    with pytest.raises(ValueError, match="spacing"):
        oblique().canonical(spacing_mm)


def tilted(shape=SHAPE, degrees=14.0):
    """A grid whose planes are shifted along their columns, as a CT gantry tilt leaves them."""
    grid = oblique(shape)
    affine = grid.affine.copy()
    affine[:3, 2] += np.tan(np.radians(degrees)) * np.linalg.norm(affine[:3, 2]) * grid.direction[:, 1]
    return Grid(shape, affine), grid


def test_a_tilted_grid_is_straightened_to_the_smallest_one_along_its_rows_that_holds_it():
    sheared, straight = tilted()
    found = sheared.orthogonal()
    np.testing.assert_allclose(found.direction.T @ found.direction, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(found.direction, straight.direction, atol=1e-12)
    np.testing.assert_allclose(found.spacing_mm, straight.spacing_mm)  # between planes, not along the tilt
    index = (sheared.to_points(np.argwhere(np.ones(SHAPE))) - found.origin_mm) @ np.linalg.inv(found.affine[:3, :3]).T
    np.testing.assert_allclose(index.min(0), 0, atol=1e-9)
    assert (index.max(0) <= np.array(found.shape) - 1 + 1e-6).all()
    assert (index.max(0) > np.array(found.shape) - 2).all()


def test_a_grid_at_right_angles_is_left_as_it_is_and_canonical_straightens_the_others():
    sheared, straight = tilted()
    assert straight.orthogonal() is straight
    direction = sheared.canonical().direction
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)


def test_centred_lays_a_grid_of_any_size_about_a_point_along_the_same_axes():
    grid = oblique()
    about = grid.centred((4, 9, 6), 1.5, (1.0, 2.0, 3.0))
    assert about.shape == (4, 9, 6)
    assert np.allclose(about.spacing_mm, 1.5)
    assert np.allclose(about.direction, grid.direction)
    assert np.allclose(about.centre_mm, (1, 2, 3))
    assert np.allclose(grid.centred((5, 5, 8), 2.0).centre_mm, grid.centre_mm)
    anisotropic = grid.centred((4, 9, 6), (1.0, 2.5, 4.0), (1.0, 2.0, 3.0))
    assert np.allclose(anisotropic.spacing_mm, (1.0, 2.5, 4.0))
    assert np.allclose(anisotropic.direction, grid.direction)
    assert np.allclose(anisotropic.centre_mm, (1, 2, 3))


@pytest.mark.parametrize(
    ("shift_voxels", "turn_degrees", "shape", "close"),
    [
        (0.0, 0.0, SHAPE, True),
        (0.009, 0.0, SHAPE, True),
        (0.02, 0.0, SHAPE, False),
        (0.0, 0.3, SHAPE, False),
        (0.0, 0.0, (9, 12, 8), False),
    ],
)
def test_two_grids_are_one_up_to_a_hundredth_of_a_voxel(shift_voxels, turn_degrees, shape, close):
    grid = oblique()
    affine = grid.affine.copy()
    affine[0, 3] += shift_voxels * min(SPACING_MM)
    affine[:3, :3] = Rotation.from_euler("z", turn_degrees, degrees=True).as_matrix() @ affine[:3, :3]
    assert grid.is_close(Grid(shape, affine)) is close


def test_slabs_cover_a_grid_once_and_in_order(monkeypatch):
    grid = oblique()
    monkeypatch.setattr(spatial.grid, "POINTS_PER_SLAB", 2 * SHAPE[1] * SHAPE[2] + 1)
    slabs = list(grid.slabs())
    assert [(rows.start, rows.stop) for rows, _ in slabs] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    points = torch.cat([points for _, points in slabs]).numpy()
    assert np.allclose(points, grid.to_points(indices_of(grid)), atol=1e-10)


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 0, 1, 1]),
        np.full((4, 4), np.nan),
        np.eye(3),
        np.diag([np.inf, 1, 1, 1]),
        np.array([[1.0, 1, 0, 0], [0, 1e-7, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),  # two axes along one line
    ],
)
def test_a_grid_without_an_invertible_affine_is_refused(affine):
    with pytest.raises(ValueError, match="invertible 4×4 affine"):
        Grid(SHAPE, affine)


# --- room around ---


def test_room_keeps_the_voxels_and_grows_towards_a_larger_moving_image_only():
    grid = Grid((20, 33, 42), np.diag([2.0, 1.5, 1.0, 1.0]))
    same = grid.padded(grid, np.eye(4))
    assert same.shape == (32, 48, 48)  # multiples of 16
    larger = grid.centred((20, 22, 60), 1.5, grid.centre_mm)
    assert grid.padded(larger, np.eye(4)).shape == (32, 48, 64)  # 4 voxels of room on each side of the third axis
    for grown in (same, grid.padded(larger, np.eye(4))):
        index = grid.to_points([0, 0, 0]) @ np.linalg.inv(grown.affine)[:3, :3].T + np.linalg.inv(grown.affine)[:3, 3]
        assert np.allclose(index, np.round(index), atol=1e-9)
        assert np.allclose(index, (np.array(grown.shape) - grid.shape) // 2)


@pytest.mark.parametrize(("beyond", "planes"), [(0.4, 0), (0.6, 16)])
def test_what_lies_within_the_outermost_voxels_asks_for_no_room(beyond, planes):
    grid = towards_ras(shape=(32, 48, 16))
    shift = np.eye(4)
    shift[:3, 3] = grid.affine[:3, 2] * beyond
    assert grid.padded(Grid(grid.shape, shift @ grid.affine), np.eye(4)).shape == (32, 48, 16 + planes)


def test_what_is_kept_lies_in_the_middle_of_what_rounding_up_adds():
    grid = oblique(shape=(64, 80, 40))
    first, last = grid.bounds(grid.crop_to((20, 31, 20), (25, 50, 23)))
    assert np.allclose((first + last) / 2, (22.5, 40.5, 21.5))
    first, last = grid.bounds(grid.crop_to((1, 31, 37), (6, 50, 39)))  # at the border there is no room on both sides
    assert np.allclose((first[0], last[0], first[2], last[2]), (0, 15, 24, 39))


# --- axes that are not at right angles ---


def skewed(grid, cosine):
    affine = grid.affine.copy()
    affine[:3, 1] += cosine * grid.spacing_mm[1] * grid.direction[:, 0]
    return Grid(grid.shape, affine)


def test_a_skew_of_float32_rounding_is_left_alone():
    grid = skewed(oblique(), 5e-5)
    assert grid.straightened() is grid


def test_a_skew_within_rounding_is_straightened_about_the_centre():
    grid = skewed(oblique(), 1e-3)
    straight = grid.straightened()
    assert np.allclose(straight.direction.T @ straight.direction, np.eye(3), atol=1e-12)
    assert np.allclose(straight.centre_mm, grid.centre_mm)
    assert np.allclose(straight.spacing_mm, grid.spacing_mm)
    assert straight.corner_distance_mm(grid) < 1e-3 * max(np.array(SHAPE) * SPACING_MM)


def test_a_real_shear_is_not_straightened():
    assert skewed(oblique(), 0.1).straightened() is None


def test_voxels_of_a_hundred_nanometres_make_a_grid():
    assert np.allclose(Grid((3, 4, 5), np.diag([1e-4, 1e-4, 1e-4, 1])).spacing_mm, 1e-4)
