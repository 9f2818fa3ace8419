"""A tilted fixed series: the results lie on a straight grid, which every reader places where it is."""

import subprocess
from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.spatial import Grid
from highdicom.seg import segread
from panreg.objects.registered_series import write_registered_series
from panreg.objects.segmentation.propagation import propagate_segmentations
from panreg.registration.straight import grid_of_result, resample_onto, straighten
from panreg.settings import Settings
from propagated import as_multi_frame
from segments import ellipsoid, masks_on, write_segmentation
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    displacement,
    points_of,
    provenance_of,
    registration_of,
    scene,
    stack_of,
    write_series,
)

SHAPE = (24, 40, 48)
TILTED = FIXED_AFFINE.copy()
TILTED[:3, 2] += FIXED_AFFINE[:3, 1] / 3 * np.tan(np.radians(14)) * 4 + FIXED_AFFINE[:3, 0] / 2.5 * 0.3
SETTINGS = Settings()


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tilted")
    values = scene(points_of(SHAPE, TILTED) + displacement(points_of(SHAPE, TILTED)))
    fixed = stack_of(write_series(folder / "fixed", values, TILTED, name="fixed"), TILTED)
    moving_values = scene(points_of(MOVING_SHAPE, MOVING_AFFINE))
    paths = write_series(folder / "moving", moving_values, MOVING_AFFINE, name="moving", date="20230105")
    return fixed, stack_of(paths, MOVING_AFFINE), np.rint(values), np.rint(moving_values)


@pytest.fixture(scope="module")
def written(stacks, tmp_path_factory):
    """The registered series and the segmentation on the straight grid."""
    fixed, moving, _, moving_values = stacks
    grid, _ = grid_of_result(fixed, "auto")
    registration = replace(registration_of(grid, moving, moving_values), is_straightened=True)
    folder, provenance = tmp_path_factory.mktemp("written"), provenance_of(fixed, moving)
    paths = write_registered_series(registration, provenance, SETTINGS, folder / "registered", provenance.uid("dsro"))
    source = write_segmentation(folder / "seg.dcm", moving, masks_on(MOVING_SHAPE, MOVING_AFFINE))
    (segmentation,) = propagate_segmentations(registration, [source], provenance, SETTINGS, folder).paths
    return grid, paths, segmentation


def test_the_straight_grid_is_the_one_that_the_bundle_straightens_a_sheared_image_to(stacks):
    fixed = stacks[0]
    straight, expected = straighten(fixed), Grid(fixed.shape[::-1], fixed.affine).orthogonal()
    assert straight.shape[::-1] == expected.shape
    np.testing.assert_allclose(straight.affine, expected.affine, atol=1e-6)


def farthest(affine, shape, grid):
    """Largest distance between a reader's corner voxels (columns, rows, slices) and ours, in whatever slice order."""
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)])
    theirs = (corners * [*(np.array(shape) - 1), 1]) @ affine.T
    ours = (corners * [*(np.array(grid.shape[::-1]) - 1), 1]) @ grid.affine.T
    return np.linalg.norm(theirs[:, None, :3] - ours[None, :, :3], axis=-1).min(1).max()


@pytest.mark.hazard("a tilted series is misplaced by its reader")
def test_by_default_the_results_of_a_sheared_series_lie_on_a_straight_grid_and_that_is_said(stacks):
    fixed = stacks[0]
    grid, (note,) = grid_of_result(fixed, "auto")
    assert fixed.tilt_degrees > 14
    assert grid.tilt_degrees < 1e-4
    assert "sheared by 14." in note
    assert "PANREG_GRID=original" in note


def test_the_original_grid_can_be_asked_for_and_what_readers_do_to_it_is_said(stacks):
    grid, (note,) = grid_of_result(stacks[0], "original")
    assert grid is stacks[0]
    drift = np.linalg.norm(np.cross(TILTED[:3, 2], FIXED_AFFINE[:3, 2] / 4)) * (SHAPE[0] - 1)
    assert f"by up to {drift:.1f} mm" in note
    assert "PANREG_GRID=straight" in note


@pytest.mark.parametrize("setting", ["auto", "original", "straight"])
def test_a_straight_series_keeps_its_grid_under_every_setting(stacks, setting):
    assert grid_of_result(stacks[1], setting) == (stacks[1], ())


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_no_shear(stacks):
    affine = FIXED_AFFINE.copy()
    affine[:3, 2] += FIXED_AFFINE[:3, 1] / 3 * 0.1 / (SHAPE[0] - 1)
    rounded = replace(stacks[0], affine=affine)
    assert grid_of_result(rounded, "auto") == (rounded, ())
    assert grid_of_result(rounded, "straight")[0] is not rounded


def test_the_straight_grid_holds_every_voxel_on_the_same_planes(stacks):
    fixed = stacks[0]
    grid, _ = grid_of_result(fixed, "auto")
    index = fixed.points() @ np.linalg.inv(grid.affine)[:3, :3].T + np.linalg.inv(grid.affine)[:3, 3]
    assert np.abs(index[..., 2] - np.arange(SHAPE[0])[:, None, None]).max() < 1e-6
    assert index.min() > -1e-6
    assert (index.max((0, 1, 2)) < np.array(grid.shape[::-1]) - 1 + 1e-6).all()
    assert grid.spacing_mm == pytest.approx(fixed.spacing_mm)
    assert np.linalg.det(grid.affine[:3, :3]) == pytest.approx(np.linalg.det(fixed.affine[:3, :3]))


def test_straightening_leaves_the_fixed_series_as_it_was(stacks):
    fixed = stacks[0]
    grid_of_result(fixed, "straight")
    assert fixed.shape == SHAPE
    placed = [[float(v) for v in frame.header.ImagePositionPatient] for frame in fixed.frames]
    assert np.abs(placed - (TILTED[:3, 3] + np.arange(SHAPE[0])[:, None] * TILTED[:3, 2])).max() < 1e-6


def test_the_fixed_image_on_the_straight_grid_is_the_same_picture(stacks):
    fixed, _, values, _ = stacks
    grid, _ = grid_of_result(fixed, "auto")
    found = resample_onto(grid, fixed, values.astype(np.float32), -7)
    expected = scene(grid.points() + displacement(grid.points()))
    inside = found > 0
    assert inside.mean() > 0.6
    assert np.abs(found - expected)[inside].mean() < 3  # of 1000: linear interpolation
    assert (found[0, :, 0] == -7).any()


@pytest.mark.hazard("a tilted series is misplaced by its reader")
def test_simpleitk_and_highdicom_place_the_straight_series_where_it_is(written):
    grid, paths, segmentation = written
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    assert farthest(affine, image.GetSize(), grid) < 0.01
    volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    assert farthest(volume.affine, volume.spatial_shape, grid) < 0.01
    mask = segread(segmentation).get_volume(segment_numbers=[1], combine_segments=True, relabel=True)
    index = np.argwhere(mask.array > 0)
    points = index @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    assert ellipsoid(points + displacement(points), 1).mean() > 0.9
    assert abs(len(index) / ellipsoid(grid.points() + displacement(grid.points()), 1).sum() - 1) < 0.1


def test_the_straight_series_shows_the_moving_image_where_the_field_says(written):
    grid, paths, _ = written
    values = np.stack([pydicom.dcmread(path).pixel_array for path in paths])
    expected = scene(grid.points() + displacement(grid.points()))
    assert np.abs(values - expected)[2:-2, 6:-6, 6:-6][values[2:-2, 6:-6, 6:-6] > 100].mean() < 5


def test_objects_on_the_straight_grid_refer_to_the_fixed_slices_of_their_planes_and_masks_to_the_series(
    stacks, written
):
    fixed, (_, paths, segmentation) = stacks[0], written
    for frame, path in zip(fixed.frames, paths, strict=True):
        (item,) = pydicom.dcmread(path).ReferencedImageSequence
        assert item.ReferencedSOPInstanceUID == frame.sop_instance_uid
    positions = {ds.SOPInstanceUID: ds.ImagePositionPatient for ds in map(pydicom.dcmread, paths)}
    for group in pydicom.dcmread(segmentation).PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert group.PlanePositionSequence[0].ImagePositionPatient == positions[source]


def test_a_multi_frame_tilted_series_is_straightened_as_well(stacks, tmp_path):
    fixed, moving, _, moving_values = stacks
    grid, _ = grid_of_result(as_multi_frame(fixed), "auto")
    registration = replace(registration_of(grid, moving, moving_values), is_straightened=True)
    provenance = provenance_of(fixed, moving)
    paths = write_registered_series(registration, provenance, SETTINGS, tmp_path / "r", provenance.uid("dsro"))
    plain, _ = grid_of_result(fixed, "auto")
    for k, path in enumerate(paths):
        ds = pydicom.dcmread(path)
        assert (ds.Rows, ds.Columns) == plain.shape[1:]
        assert list(map(float, ds.ImagePositionPatient)) == pytest.approx(plain.affine[:3, 3] + k * plain.affine[:3, 2])
    source = write_segmentation(tmp_path / "seg.dcm", moving, masks_on(MOVING_SHAPE, MOVING_AFFINE))
    assert propagate_segmentations(registration, [source], provenance, SETTINGS, tmp_path).paths


@pytest.mark.debian
@pytest.mark.hazard("a tilted series is misplaced by its reader")
def test_dcm2niix_places_the_straight_series_where_it_is_and_the_sheared_one_elsewhere(stacks, written, tmp_path):
    import nibabel

    def placed(folder, grid):
        out = tmp_path / folder.name
        out.mkdir()
        subprocess.run(["dcm2niix", "-o", str(out), "-f", "x", str(folder)], check=True, capture_output=True)
        image = nibabel.load(sorted(out.glob("x*.nii"))[0])
        return farthest(np.diag([-1.0, -1, 1, 1]) @ image.affine, image.shape, grid)

    assert placed(written[1][0].parent, written[0]) < 0.01
    assert placed(stacks[0].frames[0].path.parent, stacks[0]) > 5
