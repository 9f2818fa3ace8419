import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle import spatial
from bundle.fields import warp
from bundle.spatial import Grid, SpatialTransform, antialias, lps_from_ras, ras_from_lps
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

SHAPE, SPACING_MM = (9, 12, 7), (1.4, 0.9, 2.6)


def oblique(shape=SHAPE, spacing_mm=SPACING_MM, degrees=(14, -9, 21), centre_mm=(11.0, -23.0, 31.0)):
    """A grid in LPS; a negative spacing runs its axis the other way."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def towards_ras(**changes):
    """An oblique grid whose axes run to the right, forwards and up, as nearly as they lie."""
    return oblique(spacing_mm=np.array(SPACING_MM) * (-1, -1, 1), **changes)


def indices_of(grid):
    return np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)


def random_points(grid, seed=0, count=200):
    return grid.to_points(np.random.default_rng(seed).uniform(0, np.array(grid.shape) - 1, (count, 3)))


def linear_map(seed=0):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] += rng.uniform(-0.12, 0.12, (3, 3))
    matrix[:3, 3] = rng.uniform(-4, 4, 3)
    return matrix


def moved_by(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def transform_of(alignment=None, ddf=None, field=None, fixed=None, moving=None):
    fixed = fixed or oblique()
    return SpatialTransform(np.eye(4) if alignment is None else alignment, ddf, field or fixed, fixed, moving or fixed)


def smooth_ddf(shape, seed=0, voxels=1.5):
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    field = np.stack([gaussian_filter(c, 2) for c in noise])
    return torch.from_numpy(field / np.abs(field).max() * voxels).float()


# --- Grid ---


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


def reoriented(image, grid, permutation, flips):
    """The same image stored with its axes in another order and direction."""
    affine, shape = grid.affine.copy(), np.array(grid.shape)[list(permutation)]
    affine[:, :3] = affine[:, permutation]
    image = image.permute(0, *[1 + p for p in permutation])
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
        affine[:3, axis] *= -1
    return image.flip([1 + int(a) for a in np.flatnonzero(flips)]), Grid(tuple(shape), affine)


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
    "affine", [np.diag([1.0, 0, 1, 1]), np.full((4, 4), np.nan), np.eye(3), np.diag([np.inf, 1, 1, 1])]
)
def test_a_grid_without_an_invertible_affine_is_refused(affine):
    with pytest.raises(ValueError, match="invertible 4×4 affine"):
        Grid(SHAPE, affine)


# --- antialias ---


def second_moment(profile):
    index = np.arange(len(profile))
    centre = (profile * index).sum() / profile.sum()
    return (profile * (index - centre) ** 2).sum() / profile.sum()


def test_antialias_spreads_a_point_by_its_closed_form_width_and_keeps_its_mass():
    grid = oblique((41, 43, 39), (1.0, 1.5, 4.2))
    target = oblique((20, 21, 22), (4.5, 4.5, 4.5))
    image = torch.zeros(1, *grid.shape)
    image[0, 20, 21, 19] = 100
    smooth = antialias(image, grid, target)[0].double().numpy()
    assert smooth.sum() == pytest.approx(100, rel=1e-5)
    for axis, ratio in enumerate((4.5, 3.0, 1.0)):
        profile = smooth.sum(tuple(i for i in range(3) if i != axis))
        assert second_moment(profile) == pytest.approx((ratio**2 - 1) / 2.355**2, rel=0.01)


def test_antialias_keeps_the_mean_of_an_image():
    rng = np.random.default_rng(2)
    image = torch.zeros(2, 24, 30, 20)
    image[:, 9:15, 9:21, 7:13] = torch.from_numpy(rng.uniform(1, 5, (2, 6, 12, 6))).float()
    grid = oblique((24, 30, 20), (1.2, 1.2, 1.6))
    smooth = antialias(image, grid, oblique((9, 11, 8), (3.0, 3.0, 3.0)))
    assert not torch.allclose(smooth, image)
    assert torch.allclose(smooth.mean((1, 2, 3)), image.mean((1, 2, 3)), rtol=1e-4)
    flat = torch.full((1, 24, 30, 20), 7.0)
    assert torch.allclose(antialias(flat, grid, oblique((9, 11, 8), (3.0, 3.0, 3.0))), flat)


def test_antialias_leaves_an_image_alone_that_is_sampled_as_finely_or_finer():
    image = torch.rand(1, *SHAPE)
    grid = oblique(spacing_mm=(2.0, 2.0, 2.0))
    for finer_mm in (0.5, 2.0, 2.15):
        assert antialias(image, grid, oblique(spacing_mm=[finer_mm] * 3)) is image


@pytest.mark.parametrize("permutation", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_antialias_leaves_thick_slices_alone_that_are_only_stored_in_another_order(permutation):
    grid = reoriented(torch.zeros(1, *SHAPE), oblique(spacing_mm=(0.9, 1.0, 6.0)), permutation, (True, False, True))[1]
    image = torch.rand(1, *grid.shape)
    assert antialias(image, grid, grid.canonical()) is image


def test_antialias_smooths_along_the_axis_that_gets_coarser_alone():
    grid, target = oblique((31, 21, 21), (1.0, 1.0, 1.0)), oblique((8, 21, 21), (4.0, 1.0, 1.0))
    image = torch.zeros(1, *grid.shape)
    image[0, 15, 10, 10] = 1
    spread = (antialias(image, grid, target)[0] > 1e-6).nonzero()
    assert spread[:, 1:].unique().tolist() == [10]
    assert len(spread) > 5


# --- SpatialTransform ---


def test_without_a_field_a_point_moves_by_the_alignment_alone_wherever_it_is():
    matrix, points = linear_map(), np.random.default_rng(0).uniform(-300, 300, (40, 3))
    displacement = transform_of(matrix).displacement_at(points)
    assert displacement.dtype == torch.float64
    assert np.allclose(displacement, moved_by(matrix, points) - points, atol=1e-9)


def test_a_constant_field_in_voxels_moves_by_its_millimetres_inside_the_grid_and_not_at_all_outside():
    grid, voxels = oblique(), np.array([0.7, -1.3, 2.1])
    ddf = torch.tensor(voxels).float().view(3, 1, 1, 1).expand(3, *SHAPE)
    transform = transform_of(ddf=ddf)
    rotation = Rotation.from_euler("xyz", (14, -9, 21), degrees=True).as_matrix()
    expected = rotation @ (voxels * SPACING_MM)
    assert np.allclose(transform.displacement_at(random_points(grid)), expected, atol=1e-5)
    outside = grid.to_points([[-1.01, 3, 3], [4, 12.01, 3], [4, 4, 40]])
    assert np.array_equal(transform.displacement_at(outside), np.zeros((3, 3)))


def test_an_extended_field_goes_on_with_its_outermost_values():
    grid = oblique()
    ddf = torch.full((3, *grid.shape), 2.0)
    transform = transform_of(ddf=ddf, field=grid)
    outside = grid.to_points([[-5.0, 3, 4], [grid.shape[0] + 6, 3, 4]])
    assert transform.displacement_at(outside).abs().max() == 0
    expected = torch.from_numpy(grid.affine[:3, :3] @ [2.0, 2, 2])
    assert torch.allclose(transform.displacement_at(outside, extend=True), expected.expand(2, 3))


def test_the_field_moves_a_point_first_and_the_alignment_what_comes_of_it():
    grid, matrix, voxels = oblique(), linear_map(3), np.array([1.5, -0.5, 1.0])
    transform = transform_of(matrix, torch.tensor(voxels).float().view(3, 1, 1, 1).expand(3, *SHAPE))
    points = random_points(grid)
    displaced = points + grid.affine[:3, :3] @ voxels
    assert np.allclose(points + transform.displacement_at(points).numpy(), moved_by(matrix, displaced), atol=1e-5)
    other_order = moved_by(matrix, points) + grid.affine[:3, :3] @ voxels
    assert np.abs(moved_by(matrix, displaced) - other_order).max() > 0.1  # so the order shows


def test_each_part_of_a_transform_can_be_left_out():
    transform = transform_of(linear_map(), smooth_ddf(SHAPE))
    points = random_points(oblique())
    aligned, field = transform.without_field(), transform.without_alignment()
    assert np.allclose(aligned.displacement_at(points), moved_by(linear_map(), points) - points)
    assert np.array_equal(transform.without_field(aligned=False).displacement_at(points), np.zeros((200, 3)))
    by_parts = field.displacement_at(points).numpy() + points
    by_parts = by_parts + aligned.displacement_at(by_parts).numpy()
    assert np.allclose(by_parts, points + transform.displacement_at(points).numpy(), atol=1e-9)


def test_the_displacement_field_holds_the_displacement_of_each_voxel(monkeypatch):
    monkeypatch.setattr(spatial.grid, "POINTS_PER_SLAB", 100)
    fixed, field = oblique((11, 8, 10), (1.1, 1.9, 1.2), (4, 8, -11)), oblique()
    transform = transform_of(linear_map(), smooth_ddf(SHAPE), field, fixed)
    for grid in (fixed, oblique((5, 4, 6))):
        sampled = transform.displacement_field(None if grid is fixed else grid)
        assert sampled.shape == (3, *grid.shape)
        at_points = transform.displacement_at(grid.to_points(indices_of(grid))).numpy()
        assert np.allclose(np.moveaxis(sampled.numpy(), 0, -1), at_points, atol=1e-5)


def test_resampling_a_linear_ramp_through_a_linear_field_is_exact():
    fixed = oblique((10, 13, 8), (1.3, 1.0, 2.0), (5, -8, 13))
    moving = oblique((36, 44, 38), (1.1, 0.9, 1.3), (-12, 7, 30))
    field = fixed.canonical(1.7)
    alignment, inner, slope = linear_map(1), linear_map(2), np.array([2.0, -3.0, 1.5])
    centre = fixed.centre_mm
    for matrix in (alignment, inner):  # about the centre, so that nothing leaves the moving image
        matrix[:3, 3] += centre - matrix[:3, :3] @ centre
    at = field.to_points(indices_of(field))
    ddf = torch.from_numpy(np.moveaxis((moved_by(inner, at) - at) @ field.inverse[:3, :3].T, -1, 0).copy())
    ramp = torch.from_numpy(moving.to_points(indices_of(moving)) @ slope)[None]
    warped = transform_of(alignment, ddf, field, fixed, moving).resample(ramp)
    expected = moved_by(alignment, moved_by(inner, fixed.to_points(indices_of(fixed)))) @ slope
    inside = np.abs(moved_by(field.inverse, fixed.to_points(indices_of(fixed))) / (np.array(field.shape) - 1) - 0.5)
    inside = (inside < 0.5).all(-1)
    assert inside.mean() > 0.8
    assert warped.dtype == torch.float64
    assert np.allclose(warped[0].numpy()[inside], expected[inside], atol=1e-9)


def test_on_one_grid_resampling_is_the_warp_of_the_network_up_to_the_outermost_voxels():
    ddf, image = smooth_ddf(SHAPE), torch.rand(1, *SHAPE)
    places = indices_of(oblique()) + ddf.movedim(0, -1).numpy()
    inside = ((places >= 0) & (places <= np.array(SHAPE) - 1)).all(-1)  # beyond, the network sees zeros at once
    assert inside.mean() > 0.5
    difference = transform_of(ddf=ddf).resample(image) - warp(image[None], ddf[None])[0]
    assert np.abs(difference[0].numpy())[inside].max() < 1e-5


def test_an_image_reaches_half_a_voxel_beyond_its_outermost_voxels_and_then_the_fill_value_begins():
    line = Grid((5, 1, 1), np.diag([2.0, 1.0, 1.0, 1.0]))
    image = torch.arange(10.0, 15).reshape(1, 5, 1, 1)
    index = torch.tensor([-0.51, -0.5, -0.49, 0.0, 1.25, 4.0, 4.49, 4.5])
    points = torch.stack([2 * index, index * 0, index * 0], -1).double()
    linear = spatial.sample(image, line, points[None], fill=-1.0)[0, 0]
    assert np.allclose(linear, [-1, 10, 10, 10, 11.25, 14, 14, -1])
    nearest = spatial.sample(image, line, points[None], "nearest", fill=-1.0)[0, 0]
    assert np.allclose(nearest, [-1, 10, 10, 10, 11, 14, 14, -1])
    beyond = spatial.sample(image, line, points[None], fill=None)[0, 0]
    assert np.allclose(beyond, [10, 10, 10, 10, 11.25, 14, 14, 14])


def test_the_nearest_of_two_voxels_equally_near_is_the_upper_one_as_in_itk():
    line = Grid((5, 1, 1), np.eye(4))
    points = torch.tensor([[0.5, 0, 0], [1.5, 0, 0], [2.5, 0, 0]], dtype=torch.float64)
    assert spatial.sample(torch.arange(5.0).reshape(1, 5, 1, 1), line, points, "nearest")[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32])
def test_nearest_takes_the_label_of_the_closest_voxel_and_keeps_the_dtype(dtype):
    fixed, moving = oblique((12, 9, 10), (1.2, 1.7, 1.4), (3, 5, -8)), oblique()
    values = torch.tensor([0, 3, 17, 254] if dtype == torch.uint8 else [0, 3, 2035, 14175])
    label = values[torch.from_numpy(np.random.default_rng(0).integers(0, 4, SHAPE))].to(dtype)[None]
    transform = transform_of(linear_map(), smooth_ddf(SHAPE), oblique(), fixed, moving)
    warped = transform.resample(label, mode="nearest")
    assert warped.dtype == dtype
    points = fixed.to_points(indices_of(fixed))
    index = np.rint(moved_by(moving.inverse, points + transform.displacement_at(points).numpy())).astype(int)
    inside = ((index >= 0) & (index < np.array(SHAPE))).all(-1)
    expected = np.zeros(fixed.shape)
    expected[inside] = label[0].numpy()[tuple(index[inside].T)]
    assert 0.2 < inside.mean() < 1
    assert np.array_equal(warped[0].numpy(), expected)


def test_linear_interpolation_of_whole_numbers_gives_fractions():
    label = torch.arange(9 * 12 * 7, dtype=torch.int16).view(1, *SHAPE)
    half = torch.full((3, *SHAPE), 0.5)
    warped = transform_of(ddf=half).resample(label)
    assert warped.dtype == torch.float32
    assert float(warped[0, 2, 3, 1]) == pytest.approx(float(label[0, 2:4, 3:5, 1:3].float().mean()), rel=1e-6)


def test_another_interpolation_is_refused():
    with pytest.raises(ValueError, match="'linear', 'nearest' or 'label_gaussian', not 'cubic'"):
        transform_of().resample(torch.ones(1, *SHAPE), mode="cubic")


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
