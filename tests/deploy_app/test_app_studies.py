"""The whole application on studies of real heads: two series of one visit, and two visits."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from application import MR, manifest_of, objects_of, refused, run
from panreg.objects.deformable.reader import read_deformable_registration
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from synthetic import affine_of, points_of, write_series


def series_uids(folder):
    """The T1 series without and with the scanner's intensity normalisation."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.rglob("*.dcm")]
    volumes = {ds.SeriesInstanceUID: "NORM" in ds.ImageType for ds in headers if ds.SeriesNumber in (5001, 6001)}
    return [next(uid for uid, normalised in volumes.items() if normalised == which) for which in (False, True)]


@pytest.mark.slow
def test_two_reconstructions_of_one_acquisition_are_left_where_they_are(siemens_study_folder, tmp_path):
    plain, normalised = series_uids(siemens_study_folder)
    done = run(siemens_study_folder, tmp_path / "out", FIXED_SERIES_UID=normalised, MOVING_SERIES_UID=plain)
    assert done.returncode == 0, done.stdout + done.stderr
    field = read_deformable_registration(tmp_path / "out/dicom/registration.dcm")
    series = objects_of(tmp_path / "out", MR)
    assert len(series) == 96
    values = np.stack([ds.pixel_array for ds in series])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sorted(map(str, (tmp_path / "out/dicom/registered").iterdir())))
    image = reader.Execute()
    index = np.argwhere(values > 0.2 * np.percentile(values, 99))[::37]  # inside the object
    points = np.array([image.TransformIndexToPhysicalPoint([int(n) for n in row[::-1]]) for row in index])
    length = np.linalg.norm(field.displacement_at(points).numpy(), axis=-1)
    assert length.mean() <= 0.1
    assert np.percentile(length, 99) <= 1


def test_two_series_of_one_study_are_not_guessed_apart(siemens_study_folder, tmp_path):
    done = run(siemens_study_folder, tmp_path / "out")
    assert refused(done, tmp_path / "out") == ("E_AMBIGUOUS", 30)


def smooth_field(points):
    """The truth of the longitudinal case, mm: up to 6 mm, centimetres wide."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack(
        [5 * np.sin(y / 24 + 0.4), -4 * np.cos(x / 28 - 0.3) * np.sin(z / 30), 4 * np.sin((x + z) / 26 + 0.2)], -1
    )


@pytest.fixture(scope="module")
def longitudinal(head, tmp_path_factory):
    """A head, and the same head deformed and moved, as two oblique anisotropic studies; the truth, fixed to moving."""
    folder = tmp_path_factory.mktemp("longitudinal")
    values, affine = head
    centre = (affine @ [*(np.array(values.shape) - 1) / 2, 1])[:3]
    rigid, shift = Rotation.from_euler("xyz", (6, -4, 8), degrees=True).as_matrix(), np.array([12.0, -7, 5])

    def at(points):
        index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        return map_coordinates(gaussian_filter(values, 0.5), np.moveaxis(index, -1, 0), order=1)

    def truth(points):
        moved = points + smooth_field(points - centre)
        return (moved - centre) @ rigid.T + centre + shift

    def grid(shape, spacing, turn):
        direction = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
        corner = centre - direction @ (np.array(spacing) * (np.array(shape[::-1]) - 1) / 2)
        return affine_of(direction, spacing, corner)

    fixed_shape, moving_shape = (84, 104, 100), (92, 112, 92)  # slices, rows, columns
    fixed, moving = grid(fixed_shape, (1.9, 2.2, 2.4), (10, -5, 4)), grid(moving_shape, (2.1, 2.0, 2.2), (-4, 6, -8))
    moving[:3, 3] += shift
    # the moving image holds the head, moved rigidly: at M p lies what lies at p
    moving_points = (points_of(moving_shape, moving) - shift - centre) @ rigid + centre
    fixed_points = points_of(fixed_shape, fixed)
    write_series(folder / "a", at(fixed_points + smooth_field(fixed_points - centre)), fixed, "fixed", date="20240110")
    write_series(folder / "b", at(moving_points), moving, "moving", date="20230105")
    inside = fixed_points[at(fixed_points) > 0.25 * np.percentile(values, 99)]
    return folder, truth, inside[:: len(inside) // 2000]


@pytest.mark.slow
def test_a_longitudinal_pair_is_registered_across_frames_of_reference(longitudinal, tmp_path):
    folder, truth, landmarks = longitudinal
    done = run(folder, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = manifest_of(tmp_path / "out")
    assert manifest["pair"]["rule"] == "dates"
    assert manifest["dsro"]["max_error_mm"] <= 1  # at one place of the body; above 0.5 it is flagged
    assert manifest["dsro"]["p99_error_mm"] <= 0.2
    field = read_deformable_registration(tmp_path / "out/dicom/registration.dcm")
    wanted = truth(landmarks) - landmarks
    before = np.linalg.norm(wanted, axis=-1).mean()
    after = np.linalg.norm(wanted - field.displacement_at(landmarks).numpy(), axis=-1).mean()
    assert after < before / 2
    by_affine = np.linalg.norm(truth(landmarks) - _linear_part(landmarks, truth(landmarks)), axis=-1).mean()
    assert after < 0.8 * by_affine  # better than any affine map


def _linear_part(points, moved):
    """The affine map that fits best."""
    homogeneous = np.column_stack([points, np.ones(len(points))])
    return homogeneous @ np.linalg.lstsq(homogeneous, moved, rcond=None)[0]
