"""The semantic phantom: two oblique anisotropic series, and a field between them that is known in closed form."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from known_field import CORRECT_GREY, CORRECT_MM, MARGIN, edited, grid_of, is_right, scores, settings_of, write
from panreg.failures import Code, Failure
from panreg.objects.deformable.reader import read_deformable_registration
from synthetic import (
    FIXED_AFFINE,
    KnownTransform,
    displacement,
    phantom_registration,
    registration_of,
    scene,
    stack_of,
    write_series,
)


def put_on_fixed_grid(dataset, vectors=None, axes=None, spacing=None):
    """Replace the grid by the fixed image's own, oblique one, as another program would store it."""
    sides = np.linalg.norm(FIXED_AFFINE[:3, :3], axis=0)
    axes = FIXED_AFFINE[:3, :3] / sides if axes is None else axes
    points = points_of_fixed()
    item = grid_of(dataset)
    item.ImageOrientationPatient = [f"{value:.10f}" for value in (*axes[:, 0], *axes[:, 1])]
    item.ImagePositionPatient = [f"{value:.8f}" for value in FIXED_AFFINE[:3, 3]]
    item.GridDimensions = list(points.shape[2::-1])
    item.GridResolution = list(map(float, sides if spacing is None else spacing))
    vectors = displacement(points) if vectors is None else vectors
    item.VectorGridData = np.ascontiguousarray(vectors, dtype="<f4").tobytes()


def points_of_fixed():
    k, j, i = np.meshgrid(*[np.arange(n, dtype=float) for n in (24, 40, 48)], indexing="ij")
    return np.stack([i, j, k], -1) @ FIXED_AFFINE[:3, :3].T + FIXED_AFFINE[:3, 3]


@pytest.mark.property(9)
def test_the_object_means_the_known_field_within_015_mm_on_the_grid_of_3_mm(registration, written):
    grey, distance = scores(read_deformable_registration(written[0]), registration)
    assert grey < CORRECT_GREY
    assert 0.01 < distance < CORRECT_MM


@pytest.mark.hazard("the field means something else to its reader")
def test_the_object_is_right_to_a_ten_thousandth_of_a_millimetre_on_its_own_grid(written):
    item = grid_of(pydicom.dcmread(written[0]))
    columns, rows, slices = item.GridDimensions
    k, j, i = np.meshgrid(*[np.arange(n) for n in (slices, rows, columns)], indexing="ij")
    points = np.stack([i, j, k], -1) * item.GridResolution + [float(v) for v in item.ImagePositionPatient]
    stored = np.frombuffer(item.VectorGridData, "<f4").reshape(slices, rows, columns, 3)
    assert np.abs(stored - displacement(points)).max() < 1e-4
    assert np.abs(read_deformable_registration(written[0]).displacement_at(points).numpy() - stored).max() < 1e-4


def test_an_object_on_the_fixed_images_oblique_grid_reads_right_to_a_ten_thousandth(registration, written, tmp_path):
    path = edited(written[0], tmp_path, put_on_fixed_grid)
    assert is_right(read_deformable_registration(path), registration, limit_mm=1e-4)


FIELD = displacement(points_of_fixed())
SIDES = np.linalg.norm(FIXED_AFFINE[:3, :3], axis=0)
AXES = FIXED_AFFINE[:3, :3] / SIDES
CONTROLS = {
    "no registration": {"vectors": 0 * FIELD},
    "sign flipped": {"vectors": -FIELD},
    "RAS for LPS": {"vectors": FIELD * [-1, -1, 1]},
    "components z, y, x": {"vectors": FIELD[..., ::-1]},
    "slice fastest": {"vectors": FIELD.transpose(2, 1, 0, 3)},
    "components along the grid's axes": {"vectors": FIELD @ AXES},
    "components in voxels": {"vectors": FIELD @ AXES / SIDES},
    "components times spacing": {"vectors": FIELD * SIDES},
    "grid without its direction": {"axes": np.eye(3)},
    "grid with its direction transposed": {"axes": AXES.T},
    "spacings reversed": {"spacing": SIDES[::-1]},
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.hazard("the field means something else to its reader")
@pytest.mark.property(9)
def test_a_wrong_object_fails_the_same_assertion(registration, written, tmp_path, control):
    path = edited(written[0], tmp_path, lambda dataset: put_on_fixed_grid(dataset, **CONTROLS[control]))
    wrong = read_deformable_registration(path)
    assert not is_right(wrong, registration)
    assert scores(wrong, registration)[0] > CORRECT_GREY  # the picture alone would tell


@pytest.mark.parametrize(
    "change",
    [lambda v: -v, lambda v: v * np.float32([-1, -1, 1]), lambda v: v[..., ::-1], lambda v: v[::-1], lambda v: 2 * v],
    ids=["sign", "RAS", "components reversed", "slices reversed", "doubled"],
)
def test_a_wrong_axis_aligned_object_fails_the_same_assertion(registration, written, tmp_path, change):
    def edit(dataset):
        item = grid_of(dataset)
        shape = (*item.GridDimensions[::-1], 3)
        vectors = np.frombuffer(item.VectorGridData, "<f4").reshape(shape)
        item.VectorGridData = np.ascontiguousarray(change(vectors), "<f4").tobytes()

    assert not is_right(read_deformable_registration(edited(written[0], tmp_path, edit)), registration)


def test_the_frames_of_reference_are_named_the_right_way_round(registration, written, tmp_path):
    dataset = pydicom.dcmread(written[0])
    item = dataset.DeformableRegistrationSequence[0]
    fixed, moving = registration.fixed, registration.moving
    assert fixed.frame_of_reference_uid != moving.frame_of_reference_uid
    assert dataset.FrameOfReferenceUID == fixed.frame_of_reference_uid
    assert item.SourceFrameOfReferenceUID == moving.frame_of_reference_uid
    named = [image.ReferencedSOPInstanceUID for image in item.ReferencedImageSequence]
    assert named == list(moving.sop_instance_uids)

    def swap(dataset):
        item = dataset.DeformableRegistrationSequence[0]
        uids = dataset.FrameOfReferenceUID, item.SourceFrameOfReferenceUID
        item.SourceFrameOfReferenceUID, dataset.FrameOfReferenceUID = uids

    read_deformable_registration(written[0]).deformation_of(moving)
    with pytest.raises(Failure, match="another space"):
        read_deformable_registration(edited(written[0], tmp_path, swap)).deformation_of(moving)


@pytest.mark.hazard("the field means something else to its reader")
def test_simpleitk_finds_the_same_points_and_the_same_picture(registration, written):
    item = grid_of(pydicom.dcmread(written[0]))
    vectors = np.frombuffer(item.VectorGridData, "<f4").reshape(*item.GridDimensions[::-1], 3)
    image = sitk.GetImageFromArray(vectors.astype(np.float64), isVector=True)
    image.SetOrigin([float(v) for v in item.ImagePositionPatient])
    image.SetSpacing([float(v) for v in item.GridResolution])
    transform = sitk.DisplacementFieldTransform(image)
    points = registration.fixed.points()[3:-3:4, 4:-4:5, 4:-4:5].reshape(-1, 3)
    theirs = np.array([transform.TransformPoint(p.tolist()) for p in points])
    ours = points + read_deformable_registration(written[0]).displacement_at(points).numpy()
    assert np.abs(theirs - ours).max() < 1e-4

    def sitk_image(values, affine):
        image, sides = sitk.GetImageFromArray(values.astype(np.float32)), np.linalg.norm(affine[:3, :3], axis=0)
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetSpacing(sides.tolist())
        image.SetDirection((affine[:3, :3] / sides).ravel().tolist())
        return image

    fixed = np.rint(scene(registration.fixed.points() + displacement(registration.fixed.points())))
    moving = sitk_image(registration.moving_values, registration.moving.affine)
    reference = sitk_image(fixed, registration.fixed.affine)

    def error(transform):
        warped = sitk.GetArrayFromImage(sitk.Resample(moving, reference, transform, sitk.sitkLinear, -999.0))
        return np.abs(warped - fixed)[MARGIN][warped[MARGIN] > -999].mean()

    assert error(transform) < CORRECT_GREY
    assert error(sitk.Transform(3, sitk.sitkIdentity)) > 10


def test_the_error_that_is_returned_is_the_one_at_all_fixed_voxels(registration, written):
    points = registration.fixed.points()
    stored = read_deformable_registration(written[0]).displacement_at(points).numpy()
    error = np.linalg.norm(stored - displacement(points), axis=-1)
    assert written[1].max_error_mm == pytest.approx(error.max(), rel=1e-6)
    assert written[1].mean_error_mm == pytest.approx(error.mean(), rel=1e-6)
    assert written[1].p99_error_mm == pytest.approx(np.percentile(error, 99), rel=1e-4)
    assert written[1].spacing_mm == 3.0


def test_a_finer_grid_is_nearer_to_the_field(registration, written, tmp_path):
    fine = write(registration, tmp_path / "fine.dcm")
    assert fine.spacing_mm == 2.0
    assert fine.max_error_mm < 0.015 < written[1].max_error_mm < 0.03
    assert fine.mean_error_mm < written[1].mean_error_mm


def test_the_grid_is_axis_aligned_and_holds_every_fixed_voxel(registration, written):
    item = grid_of(pydicom.dcmread(written[0]))
    low = np.array([float(v) for v in item.ImagePositionPatient])
    high = low + (np.array(item.GridDimensions) - 1) * item.GridResolution
    points = registration.fixed.points()
    assert [float(v) for v in item.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert (points >= low - 1e-6).all()
    assert (points <= high + 1e-6).all()
    assert (points.max((0, 1, 2)) > high - item.GridResolution).all()
    assert tuple(item.GridDimensions) == written[1].dimensions
    assert len(item.VectorGridData) == written[1].size_bytes == 12 * np.prod(item.GridDimensions)


def test_the_grid_grows_until_the_object_is_small_enough(registration, tmp_path):
    stored = write(registration, tmp_path / "x.dcm", settings_of(max_megabytes=0.6))
    assert 2.0 < stored.spacing_mm < 5
    assert 0.5e6 < stored.size_bytes <= 0.6e6
    assert (tmp_path / "x.dcm").stat().st_size < 0.62e6


def test_a_grid_is_never_finer_than_the_field(registration, tmp_path):
    transform = KnownTransform(registration.fixed, registration.moving, spacing_mm=3.7)
    assert write(replace(registration, transform=transform), tmp_path / "x.dcm").spacing_mm == 3.7


def test_a_grid_that_would_be_half_a_millimetre_wrong_is_refused(registration, tmp_path):
    with pytest.raises(Failure, match="max_megabytes") as refused:
        write(registration, tmp_path / "x.dcm", settings_of(max_megabytes=0.001))
    assert refused.value.code is Code.E_OUTPUT
    assert not (tmp_path / "x.dcm").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_field_that_is_not_finite_is_refused(registration, tmp_path, value):
    def field(points):
        return np.where(points[..., :1] > 50, value, displacement(points))

    transform = KnownTransform(registration.fixed, registration.moving, field)
    with pytest.raises(Failure, match="finite") as refused:
        write(replace(registration, transform=transform), tmp_path / "x.dcm")
    assert refused.value.code is Code.E_OUTPUT


def test_a_sheared_fixed_image_is_stored_as_exactly(registration, tmp_path):
    affine = FIXED_AFFINE.copy()
    affine[:3, 2] += FIXED_AFFINE[:3, 1] / 3 * np.tan(np.radians(14)) * 4
    fixed = stack_of(write_series(tmp_path / "tilted", np.zeros((24, 40, 48)), affine, name="tilted"), affine)
    tilted = registration_of(fixed, registration.moving, registration.moving_values)
    assert write(tilted, tmp_path / "x.dcm").max_error_mm < 0.1


def test_two_items_name_the_fixed_image_first_and_deform_the_moving_one(registration, tmp_path):
    write(registration, tmp_path / "x.dcm", settings_of(spacing_mm=3.0, two_items=True))
    read = read_deformable_registration(tmp_path / "x.dcm")
    assert [item.grid is None for item in read.items] == [True, False]
    assert is_right(read, registration)
    assert is_right(read.deformation_of(registration.moving), registration)
    points = registration.fixed.points()[::5, ::5, ::5]
    assert read.deformation_of(registration.fixed).displacement_at(points).abs().max() == 0
    series = pydicom.dcmread(tmp_path / "x.dcm").ReferencedSeriesSequence
    assert [item.SeriesInstanceUID for item in series] == [registration.fixed.series_uid]


def test_the_moving_image_of_another_study_is_listed_there_and_of_the_same_study_here(tmp_path):
    for study in (None, "one"):
        registration = phantom_registration(tmp_path / str(study), study=study)
        write(registration, tmp_path / "x.dcm", settings_of(spacing_mm=3.0))
        dataset = pydicom.dcmread(tmp_path / "x.dcm")
        if study is None:
            other = dataset.StudiesContainingOtherReferencedInstancesSequence[0]
            assert other.StudyInstanceUID == registration.moving.study_uid
            series = other.ReferencedSeriesSequence
            assert "ReferencedSeriesSequence" not in dataset
        else:
            series = dataset.ReferencedSeriesSequence
            assert "StudiesContainingOtherReferencedInstancesSequence" not in dataset
        assert series[0].SeriesInstanceUID == registration.moving.series_uid
        uids = [item.ReferencedSOPInstanceUID for item in series[0].ReferencedInstanceSequence]
        assert uids == list(registration.moving.sop_instance_uids)


def test_one_frame_of_reference_may_be_on_both_sides(tmp_path):
    registration = phantom_registration(tmp_path, frame_of_reference="one", study="one")
    write(registration, tmp_path / "x.dcm", settings_of(spacing_mm=3.0))
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    assert dataset.FrameOfReferenceUID == dataset.DeformableRegistrationSequence[0].SourceFrameOfReferenceUID
    assert is_right(read_deformable_registration(tmp_path / "x.dcm").deformation_of(registration.moving), registration)


@pytest.mark.property(5)
def test_the_same_run_gives_the_same_bytes_and_another_weights_file_other_uids(registration, written, tmp_path):
    write(registration, tmp_path / "again.dcm", settings_of(spacing_mm=3.0))
    assert (tmp_path / "again.dcm").read_bytes() == written[0].read_bytes()
    write(registration, tmp_path / "other.dcm", settings_of(spacing_mm=3.0), weights_sha256="c" * 64)
    before, after = (pydicom.dcmread(path) for path in (written[0], tmp_path / "other.dcm"))
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert before[keyword].value != after[keyword].value
        assert int(before[keyword].value.split(".")[2]) < 2**128
    assert before.StudyInstanceUID == after.StudyInstanceUID


@pytest.mark.property(19)
def test_the_object_says_that_it_is_derived_by_ai(written):
    dataset = pydicom.dcmread(written[0])
    assert "not for primary diagnosis" in dataset.ContentDescription
    assert dataset.ContentLabel == "PANREG"
    assert (dataset.ContentDate, dataset.ContentTime) == ("20240517", "103000")
