import base64
import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.report import page_content
from bundle.report.placing import thinned
from bundle.report.volumes import FIELD_VOXELS, LEVELS, VOXELS, display_grid
from bundle.spatial import Grid, SpatialTransform, lps_from_ras
from tests.report.pairs import MOVING_SHAPE, Pair, oblique, placed


def opened(packed):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))


def resampled(image, grid, transform, mode=sitk.sitkLinear):
    like = placed(sitk.Image(list(grid.shape), sitk.sitkFloat32), grid)
    there = sitk.Resample(image, like, transform, mode, 0.0, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(there).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def pair():
    return Pair()


@pytest.fixture(scope="module")
def content(pair):
    return pair.content()


@pytest.mark.parametrize("stage", ["moving", "aligned", "warped"])
def test_the_page_holds_what_itk_resamples(pair, content, stage):
    image = opened(content.volumes[stage])
    expected = resampled(pair.itk_image("moving"), content.grid, pair.itk_transform(stage))
    inside = resampled(
        sitk.Cast(pair.itk_image("moving") > 0, sitk.sitkFloat32), content.grid, pair.itk_transform(stage)
    )
    known = inside > 0.999
    low, high = np.percentile(opened(content.volumes[stage]).get_fdata(), (0, 100))
    difference = np.abs(image.get_fdata() - np.clip(expected, low, high))[known]
    assert known.mean() > 0.3
    assert np.percentile(difference, 99) < 2 * (high - low) / LEVELS
    assert np.allclose(lps_from_ras(image.affine), content.grid.affine, atol=1e-4)


def test_the_fixed_image_only_has_its_axes_in_another_order(pair, content):
    grid, image = content.grid, opened(content.volumes["fixed"])
    index = np.array([3, 17, 8])
    there = np.rint(pair.fixed_grid.to_index(grid.to_points(index))).astype(int)
    low, high = np.percentile(pair.fixed, (0.5, 99.5))
    assert image.shape == grid.shape
    assert abs(image.get_fdata()[tuple(index)] - np.clip(pair.fixed[tuple(there)], low, high)) < (high - low) / LEVELS


@pytest.mark.parametrize("stage", ["moving", "aligned", "warped"])
def test_labels_are_those_of_the_nearest_voxel_and_keep_their_numbers(pair, content, stage):
    label = placed(sitk.GetImageFromArray(pair.moving_label.transpose(2, 1, 0).astype(np.float32)), pair.moving_grid)
    expected = resampled(label, content.grid, pair.itk_transform(stage), sitk.sitkNearestNeighbor)
    found = np.array(content.labels)[np.asarray(opened(content.volumes[f"{stage}_label"]).dataobj).astype(int)]
    assert (found == expected).mean() > 0.995
    assert set(np.unique(found)) == set(content.labels) == {0, 10, 20, 30, 40, 50}


def test_the_field_is_the_displacement_without_the_alignment(pair, content):
    raw = np.frombuffer(gzip.decompress(base64.b64decode(content.field)), "<i2").reshape(3, *content.field_grid.shape)
    index = np.array([9, 21, 14])
    point = content.field_grid.to_points(index)
    moved = sitk.DisplacementFieldTransform(pair.itk_field()).TransformPoint(point.tolist())
    assert np.allclose(raw[(slice(None), *index)] * 0.01, np.array(moved) - point, atol=0.02)


def test_the_jacobian_is_itks_of_the_field(pair, content):
    determinant = pair.itk_jacobian()
    levels = np.asarray(opened(content.volumes["jacobian"]).dataobj).astype(float)
    found = 4 ** (2 * (levels - 1) / 253 - 1)
    index = np.stack(np.meshgrid(*[np.arange(2, n - 2) for n in content.grid.shape], indexing="ij"), -1).reshape(-1, 3)
    there = np.rint(pair.fixed_grid.to_index(content.grid.to_points(index))).astype(int)
    ratio = found[tuple(index.T)] / determinant[tuple(there.T)]
    assert np.percentile(np.abs(np.log(ratio)), 95) < 0.02  # 253 levels are 0.011 apart


def test_a_fold_has_a_level_of_its_own(pair):
    ddf = torch.zeros(3, *pair.fixed_grid.shape)
    ddf[1, :, 25], ddf[1, :, 27] = 1.5, -1.5
    folded = SpatialTransform(np.eye(4), ddf, pair.fixed_grid, pair.fixed_grid, pair.moving_grid)
    pair = Pair()
    pair.transform = folded
    levels = np.asarray(opened(pair.content(labelled=False).volumes["jacobian"]).dataobj)
    assert (levels == 255).sum() == pair.fixed_grid.shape[0] * pair.fixed_grid.shape[2]


def test_a_linear_transform_has_no_field_and_no_change_of_volume():
    content = Pair(linear=True).content(labelled=False)
    assert content.field is None
    assert (np.asarray(opened(content.volumes["jacobian"]).dataobj) == 128).all()
    assert content.labels == []


def test_a_large_image_is_shown_on_fewer_voxels_over_the_same_place():
    grid = oblique((700, 500, 300), (0.4, -0.5, 0.9), (5, 3, -8))
    shown = display_grid(grid, VOXELS)
    assert np.prod(shown.shape) <= VOXELS
    assert np.prod(shown.shape) > 0.8 * VOXELS
    assert np.allclose(shown.centre_mm, grid.centre_mm)
    extent = np.array(grid.canonical().shape) * grid.canonical().spacing_mm
    assert (np.abs(np.array(shown.shape) * shown.spacing_mm - extent) <= shown.spacing_mm + 1e-6).all()


def test_the_thick_axis_of_thin_slabs_stays_as_it_is():
    grid = oblique((2000, 1500, 2), (0.2, 0.2, 7.0), (0, 0, 20))
    shown = display_grid(grid, VOXELS)
    assert sorted(shown.shape)[0] == 2
    assert np.isclose(shown.spacing_mm.max(), 7.0)


def test_noise_of_any_size_stays_below_15_megabytes():
    rng = np.random.default_rng(0)
    fixed, moving = (torch.from_numpy(rng.uniform(0, 1, (1, 150, 130, 120)).astype(np.float32)) for _ in range(2))
    grid = Grid(fixed.shape[1:], np.diag([-1.0, -1.0, 1.0, 1.0]))
    ddf = torch.from_numpy(rng.normal(0, 2, (3, *grid.shape)).astype(np.float32))
    content = page_content(fixed, moving, fixed, SpatialTransform(np.eye(4), ddf, grid, grid, grid))
    assert sum(map(len, content.volumes.values())) + len(content.field) < 13.5e6
    assert np.prod(content.field_grid.shape) <= FIELD_VOXELS


def test_labels_of_any_size_are_named_exactly(pair):
    pair = Pair()
    pair.moving_label = np.where(pair.moving_label == 30, 2**60 + 1, pair.moving_label)
    assert pair.content().labels == [0, 10, 20, 30, 40, 50, 2**60 + 1]


def test_tens_of_thousands_of_labels_keep_their_numbers():
    pair = Pair()
    number = np.arange(pair.fixed.size).reshape(pair.fixed.shape)
    assert number.max() > 2**15
    pair.fixed_label = number
    content = pair.content()
    index = np.asarray(opened(content.volumes["fixed_label"]).dataobj)
    assert index.min() >= 0
    assert len(np.unique(np.array(content.labels)[index])) > 2**15


def test_the_thumbnail_has_square_pixels():
    pair = Pair(fixed_shape=(40, 20, 12))
    pair.fixed_grid = Grid((40, 20, 12), np.diag([-1.0, -4.0, 3.0, 1.0]))
    linear = SpatialTransform(np.eye(4), None, pair.fixed_grid, pair.fixed_grid, pair.moving_grid)
    pair.transform = linear
    assert pair.content(labelled=False).thumbnail.shape == (80, 40)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_thumbnail_has_left_on_the_right_and_anterior_at_the_top(axis):
    grid = Grid((40, 50, 12), np.diag([-1.0, -1.0, 3.0, 1.0]))  # upwards: towards right, anterior, superior
    ramp = torch.arange(float(grid.shape[axis])).view([-1 if a == axis else 1 for a in range(3)])
    image = ramp.expand(1, *grid.shape).contiguous()
    shown = page_content(image, image, image, SpatialTransform(np.eye(4), None, grid, grid, grid)).thumbnail
    across = shown.astype(float).mean(axis)
    assert (np.diff(across) <= 0).all()
    assert across[0] - across[-1] > 200


@pytest.mark.parametrize(("spacing_mm", "blocks"), [(1.7, [1, 1, 1]), (2.6, [2, 2, 1]), (3.0, [3, 3, 1])])
def test_blocks_are_averaged_that_are_no_larger_than_a_voxel_of_the_page(spacing_mm, blocks):
    grid = oblique((30, 33, 10), (1.0, 1.0, 2.0), (5, 3, -8))
    image = torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(0))
    found, place = thinned(image, grid, grid.centred((10, 10, 10), spacing_mm))
    assert list(found.shape[1:]) == [n // block for n, block in zip(grid.shape, blocks)]
    first = image[0, : blocks[0], : blocks[1], : blocks[2]]
    assert float(found[0, 0, 0, 0]) == pytest.approx(float(first.mean()))
    assert np.allclose(place.to_points([0, 0, 0]), grid.to_points((np.array(blocks) - 1) / 2))


def test_constant_images_are_shown():
    pair = Pair()
    pair.fixed, pair.moving = np.full_like(pair.fixed, 7), np.zeros(MOVING_SHAPE, np.float32)
    content = pair.content(labelled=False)
    assert np.allclose(opened(content.volumes["fixed"]).get_fdata(), 7)
    assert content.thumbnail.dtype == np.uint8
