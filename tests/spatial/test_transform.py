import numpy as np
import pytest
import torch
from bundle import spatial
from bundle.fields import jacobian_determinant, warp
from bundle.spatial import Grid
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import (
    SHAPE,
    SPACING_MM,
    indices_of,
    linear_map,
    moved_by,
    oblique,
    random_points,
    smooth_ddf,
    towards_ras,
    transform_of,
)


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
    with pytest.raises(ValueError, match="one of linear, bspline, nearest, label_gaussian, not 'cubic'"):
        transform_of().resample(torch.ones(1, *SHAPE), mode="cubic")


def test_a_field_on_fewer_voxels_is_blurred_by_the_width_of_one():
    """A wave of 6 voxels through a Gaussian of σ voxels is exp(−2 π² σ² / 6²) as high; FWHM is 2, σ is 2 / 2.355."""
    fixed = towards_ras(shape=(61, 9, 7)).centred((61, 9, 7), 1.0)
    wave = torch.cos(2 * torch.pi / 6 * torch.arange(61.0)).view(-1, 1, 1).expand(fixed.shape)
    kept = transform_of(ddf=torch.stack([wave, wave * 0, wave * 0]), field=fixed, fixed=fixed).resample_field(2.0)
    assert kept.field_grid.shape == (31, 5, 4)  # each of its voxels is one of the old ones
    sigma = 2 / np.sqrt(8 * np.log(2))
    expected = np.exp(-2 * (np.pi * sigma / 6) ** 2) * wave[::2, ::2, ::2] / 2  # in voxels twice as large
    assert torch.allclose(kept.ddf[0][5:-5], expected[5:-5, :1, :1].expand(-1, 5, 4).float(), atol=5e-3)


@pytest.mark.parametrize("side", ["low", "high"])
@pytest.mark.parametrize("axis", range(3))
def test_the_jacobian_at_a_cut_through_the_field_is_that_of_the_whole_field(axis, side):
    field, first = towards_ras(), np.zeros(3, int)  # resampled on its own voxels, in their order
    last = np.array(field.shape) - 1
    first[axis], last[axis] = (2, last[axis]) if side == "low" else (0, last[axis] - 2)
    ddf = torch.randn(3, *field.shape, generator=torch.Generator().manual_seed(0))  # no two neighbours alike
    kept = (slice(None), *(slice(a, b + 1) for a, b in zip(first, last)))
    cut = transform_of(ddf=ddf, field=field, fixed=field.crop(first, last))
    expected = jacobian_determinant(ddf[None].double())[0][kept]
    assert torch.allclose(cut.jacobian_on(), expected, atol=1e-5)
    assert torch.allclose(cut.resample_field().jacobian, expected.float(), atol=1e-4)
