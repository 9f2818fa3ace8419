from copy import deepcopy
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from panreg.dicom.frame import Frame
from panreg.ingest.scan import scan
from panreg.ingest.stack import Stack
from panreg.ingest.stacks import candidates, find_stacks
from panreg.limits import Limits
from panreg.objects.quantisation import quantisation_of
from panreg.objects.registered_series import warp_moving, write_registered_series
from panreg.objects.required_attributes import missing
from panreg.settings import Settings
from pydicom import Dataset
from scipy.ndimage import map_coordinates
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    KnownTransform,
    displacement,
    phantom_registration,
    provenance_of,
    registration_of,
    scene,
    stack_of,
    uid,
    write_series,
)
from validators import messages

DSRO_UID = "2.25.42"
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID")


def write(registration, folder, settings=None, **changes):
    provenance = provenance_of(registration.fixed, registration.moving, **changes)
    paths = write_registered_series(registration, provenance, settings or Settings(), folder, DSRO_UID)
    return [pydicom.dcmread(path) for path in paths]


def values_of(images):
    """Modality values [k, j, i], as a reader finds them."""
    return np.stack(
        [i.pixel_array * float(i.get("RescaleSlope", 1)) + float(i.get("RescaleIntercept", 0)) for i in images]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("output") / "registered"


@pytest.fixture(scope="module")
def images(registration, folder):
    return write(registration, folder)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """A CT phantom in Hounsfield units: air −1000, and one voxel too dense for 16 bits."""
    registration = phantom_registration(tmp_path_factory.mktemp("ct"), modality="CT")
    values = registration.moving_values - 1000
    values[14, 20, 20] = 1e6
    return replace(registration, moving_values=values)


def test_the_pixels_are_the_moving_image_pulled_by_the_field(registration, images):
    """One interpolation, by another program's: no other field gives the fixed scene."""
    points = registration.fixed.points()
    inverse = np.linalg.inv(MOVING_AFFINE)
    index = (points + displacement(points)) @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((index >= 0) & (index <= np.array(registration.moving.shape[::-1]) - 1)).all(-1)
    expected = map_coordinates(registration.moving_values, np.moveaxis(index[..., ::-1], -1, 0), order=1)
    assert np.abs(values_of(images) - expected)[inside].max() <= 0.5 + 1e-3
    fixed = np.rint(scene(points + displacement(points)))
    assert np.abs(values_of(images) - fixed)[inside].mean() < 1.0
    for wrong in (0, -1, [-1, -1, 1]):
        index = (points + displacement(points) * wrong) @ inverse[:3, :3].T + inverse[:3, 3]
        pulled = map_coordinates(registration.moving_values, np.moveaxis(index[..., ::-1], -1, 0), order=1)
        assert np.abs(pulled - fixed)[inside].mean() > 10


@pytest.mark.property(10)
def test_each_plane_lies_where_the_fixed_one_does_in_the_same_words(registration, images):
    for k, (image, frame) in enumerate(zip(images, registration.fixed.frames)):
        for keyword in GEOMETRY:
            assert str(image[keyword].value) == str(frame.header[keyword].value)
        assert (image.InstanceNumber, image.Rows, image.Columns) == (k + 1, 40, 48)
        assert image.ReferencedImageSequence[0].ReferencedSOPInstanceUID == frame.sop_instance_uid


@pytest.mark.property(10)
def test_itk_reads_the_fixed_geometry(images, folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in sorted(folder.iterdir())])
    read = reader.Execute()
    sides = np.linalg.norm(FIXED_AFFINE[:3, :3], axis=0)
    assert np.allclose(read.GetOrigin(), FIXED_AFFINE[:3, 3], atol=1e-3)
    assert np.allclose(read.GetSpacing(), sides, atol=1e-3)
    assert np.allclose(np.reshape(read.GetDirection(), (3, 3)), FIXED_AFFINE[:3, :3] / sides, atol=1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(read), values_of(images))


@pytest.mark.property(10)
def test_a_tilted_fixed_image_gives_a_tilted_series(registration, tmp_path):
    affine = FIXED_AFFINE.copy()
    affine[:3, 2] += FIXED_AFFINE[:3, 1] / 3
    fixed = stack_of(write_series(tmp_path / "tilted", np.zeros((24, 40, 48)), affine, name="tilted"), affine)
    images = write(registration_of(fixed, registration.moving, registration.moving_values), tmp_path / "out")
    (stack,) = find_stacks(scan(tmp_path / "out", Limits()))
    assert isinstance(stack, Stack)
    assert np.allclose(stack.affine, affine, atol=1e-3)
    assert stack.tilt_degrees == pytest.approx(np.degrees(np.arctan(1 / 4)), abs=0.01)
    assert float(images[0].SpacingBetweenSlices) == pytest.approx(4, abs=1e-6)


def test_patient_and_study_are_the_fixed_ones_and_the_acquisition_the_moving_one(registration, images):
    fixed, moving = registration.fixed.header, registration.moving.header
    for image in images:
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID"):
            assert image[keyword].value == fixed[keyword].value
        for keyword in (
            "AcquisitionDate",
            "AcquisitionTime",
            "EchoTime",
            "ScanningSequence",
            "FlipAngle",
            "SOPClassUID",
        ):
            assert image[keyword].value == moving[keyword].value
        assert (image.SeriesDate, image.ContentTime) == ("20240517", "103000")
        assert "TimezoneOffsetFromUTC" not in image


def test_the_series_says_what_it_is_and_what_it_is_from(registration, images):
    image = images[12]
    assert image.ImageType == ["DERIVED", "SECONDARY", "OTHER", "REGISTERED"]
    assert image.SeriesDescription == "REGISTERED: T1 MPRAGE"
    assert image.SeriesNumber == 902
    assert [c.CodeValue for c in image.DerivationCodeSequence] == ["125027", "113085"]
    assert image.SourceInstanceSequence[0].ReferencedSOPInstanceUID == DSRO_UID
    assert image.SourceInstanceSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "125028"
    assert {s.SpatialLocationsPreserved for s in image.SourceImageSequence} == {"NO"}
    assert {s.PurposeOfReferenceCodeSequence[0].CodeValue for s in image.SourceImageSequence} == {"121322"}
    assert (image.LossyImageCompression, image.BurnedInAnnotation) == ("00", "NO")
    assert image.ContributingEquipmentSequence[0].DeviceUID.startswith("2.25.")


@pytest.mark.property(19)
def test_every_image_says_that_it_is_derived_by_ai_and_not_for_diagnosis(images):
    assert all("not for primary diagnosis" in i.DerivationDescription + i.ImageComments for i in images)
    assert all(i.ImageComments.startswith("AI-derived") for i in images)


def test_the_source_images_are_those_that_contribute_to_the_plane(registration, images):
    points = registration.fixed.points()
    inverse = np.linalg.inv(MOVING_AFFINE)
    index = (points + displacement(points)) @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((index >= 0) & (index <= np.array(registration.moving.shape[::-1]) - 1)).all(-1)
    uids = registration.moving.sop_instance_uids
    for k in range(2, 22):
        depth = index[k][inside[k]][:, 2]
        named = [uids.index(s.ReferencedSOPInstanceUID) for s in images[k].SourceImageSequence]
        low, high = np.floor(np.percentile(depth, 1)), np.ceil(np.percentile(depth, 99))
        assert set(range(int(low), int(high) + 1)) <= set(named)
        assert len(named) < len(uids)


@pytest.mark.parametrize(("slices", "source"), [(-0.45, 0), (0.45, -1), (-0.55, None), (0.55, None)])
def test_half_a_slice_beyond_the_outermost_one_is_its_image_still(registration, tmp_path, slices, source):
    """Where the moving image is the fixed one, shifted along its slices by a part of their distance."""
    fixed = registration.fixed
    by_mm = FIXED_AFFINE[:3, 2] * slices
    transform = KnownTransform(fixed, fixed, field=lambda points: np.broadcast_to(by_mm, points.shape))
    shifted = registration_of(fixed, fixed, np.zeros(fixed.shape), transform)
    outermost = write(shifted, tmp_path)[0 if slices < 0 else -1]
    named = [item.ReferencedSOPInstanceUID for item in outermost.get("SourceImageSequence", [])]
    assert named == ([] if source is None else [fixed.frames[source].sop_instance_uid])


def test_our_own_output_is_never_a_candidate(images, folder):
    stacks = find_stacks(scan(folder, Limits()))
    assert len(stacks) == 1
    assert candidates(stacks) == ()


def test_the_same_run_gives_the_same_bytes_and_any_change_other_uids(registration, images, folder, tmp_path):
    write(registration, tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{k:04d}.dcm" for k in range(1, 25)]
    assert all((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() for name in names)
    uids = {image.SOPInstanceUID for image in images} | {images[0].SeriesInstanceUID}
    assert len(uids) == 25
    assert all(int(u.split(".")[2]) < 2**128 for u in uids)
    for change in ({"weights_sha256": "c" * 64}, {"config_sha256": "c" * 64}, {"version": "0.1.1"}):
        other = write(registration, tmp_path / "other", **change)
        assert not uids & {image.SOPInstanceUID for image in other}


@pytest.mark.property(11)
def test_ct_is_signed_hounsfield_units_clipped_and_never_wrapped(ct, tmp_path):
    images = write(ct, tmp_path / "x")
    computed, inside = warp_moving(ct, -1024)
    assert {
        (i.PixelRepresentation, float(i.RescaleSlope), float(i.RescaleIntercept), i.RescaleType) for i in images
    } == {(1, 1.0, 0.0, "HU")}
    assert {(i.BitsAllocated, i.BitsStored, i.HighBit, i.PhotometricInterpretation) for i in images} == {
        (16, 16, 15, "MONOCHROME2")
    }
    assert computed.max() > 32767
    assert values_of(images).max() == 32767
    assert np.abs(values_of(images) - np.clip(computed, -32768, 32767)).max() <= 0.5
    assert (values_of(images)[~inside] == -1024).all()
    assert {i.ImageType[2] for i in images} == {"AXIAL"}


@pytest.mark.property(11)
def test_the_padding_value_is_named_only_if_no_image_has_it(ct, tmp_path):
    images = write(ct, tmp_path / "free")
    _, inside = warp_moving(ct, -1024)
    assert 0 < (~inside).sum()
    assert {i.PixelPaddingValue for i in images} == {-1024}
    assert {i["PixelPaddingValue"].VR for i in images} == {"SS"}
    assert not (values_of(images)[inside] == -1024).any()
    taken = replace(ct, moving_values=np.where(ct.moving_values < -990, np.float32(-1024), ct.moving_values))
    assert not any("PixelPaddingValue" in i for i in write(taken, tmp_path / "taken"))


@pytest.mark.property(11)
def test_the_padding_of_the_source_is_padding_of_the_result(ct, tmp_path):
    padding = np.zeros(ct.moving.shape, dtype=bool)
    padding[10:18, 14:30, 14:30] = True
    padded = replace(ct, moving_values=np.where(padding, np.float32(-1024), ct.moving_values), moving_padding=padding)
    images = write(padded, tmp_path)
    _, inside = warp_moving(padded, -1024)
    assert (values_of(images)[inside] == -1024).sum() > 500
    assert {i.PixelPaddingValue for i in images} == {-1024}


@pytest.mark.parametrize(("factor", "offset", "signed"), [(0.37, 0, 0), (0.37, -40, 1), (13.7, 250.5, 0), (1e-4, 0, 0)])
@pytest.mark.property(11)
def test_mr_values_that_are_not_whole_are_stored_within_half_a_step(registration, tmp_path, factor, offset, signed):
    values = (registration.moving_values * factor + offset).astype(np.float32)
    scaled = replace(registration, moving_values=values)
    images = write(scaled, tmp_path / "x")
    computed, _ = warp_moving(scaled, 0)
    assert {(i.PixelRepresentation, i.RescaleType) for i in images} == {(signed, "US")}
    slope = float(images[0].RescaleSlope)
    assert slope == pytest.approx((computed.max() - computed.min()) / 65535, rel=1e-6)
    assert len(str(images[0].RescaleSlope)) <= 16
    assert np.abs(values_of(images) - computed).max() <= slope / 2 * (1 + 1e-4)


@pytest.mark.parametrize(("offset", "signed"), [(0, 0), (-200, 1)])
def test_whole_mr_values_are_stored_as_they_are_without_a_lut(registration, tmp_path, offset, signed):
    whole = replace(registration, moving_values=registration.moving_values + offset)
    images = write(whole, tmp_path / "x")
    computed, _ = warp_moving(whole, 0)
    assert not any("RescaleSlope" in i for i in images)
    assert {i.PixelRepresentation for i in images} == {signed}
    assert np.abs(values_of(images) - computed).max() <= 0.5


@pytest.mark.parametrize(
    ("low", "high", "slope"),
    [(0, 12, 1e-3), (0, 1, 1e-4), (0, 499, 1e-2), (-12, 0, 1e-3), (-400, 50, 1e-1), (65000, 65012, 1), (0, 500, 1)],
)
@pytest.mark.hazard("intensities change")
@pytest.mark.property(11)
def test_whole_values_of_a_small_range_are_stored_in_finer_steps_that_keep_them_exact(low, high, slope):
    values = np.linspace(low, high, 4001, dtype=np.float32)
    quantisation = quantisation_of(values, "MR", whole=True)
    assert (float(quantisation.slope), quantisation.intercept) == (slope, "0")
    assert quantisation.rescale_type == (None if slope == 1 else "US")
    back = quantisation.stored(values) * float(quantisation.slope)
    assert np.abs(back - values).max() <= slope / 2 * 1.001
    numbers = np.arange(low, high + 1, dtype=np.float32)
    np.testing.assert_allclose(quantisation.stored(numbers) * float(quantisation.slope), numbers, rtol=1e-12)


def test_an_mr_of_small_whole_values_comes_out_as_it_was_computed(registration, tmp_path):
    few = replace(registration, moving_values=np.rint(registration.moving_values / 80))
    images = write(few, tmp_path / "x")
    computed, _ = warp_moving(few, 0)
    assert np.ptp(few.moving_values) < 20
    assert {float(image.RescaleSlope) for image in images} == {1e-3}
    assert [missing(image) for image in images] == [[]] * len(images)
    assert np.abs(values_of(images) - computed).max() <= 0.5e-3 * 1.001


@pytest.mark.debian
@pytest.mark.property(8)
def test_dciodvfy_finds_no_error_in_an_mr_with_a_slope(registration, tmp_path):
    write(replace(registration, moving_values=np.rint(registration.moving_values / 80)), tmp_path / "x")
    told = messages("dciodvfy", "-new", tmp_path / "x" / "0001.dcm")
    assert [line for line in told if line.startswith("Error")] == []


def test_whole_values_beyond_16_bits_get_a_slope():
    wide = np.array([0, 70000], dtype=np.float32)
    quantisation = quantisation_of(wide, "MR", whole=True)
    assert quantisation.rescale_type == "US"
    assert quantisation.stored(wide).tolist() == [0, 65535]
    assert quantisation_of(np.array([0, 65535], np.float32), "MR", whole=True).rescale_type is None
    assert quantisation_of(np.array([-1, 65535], np.float32), "MR", whole=True).rescale_type == "US"


@pytest.mark.parametrize(("low", "high"), [(0, 0), (7, 7), (7, 7.0005), (-3, -3)])
def test_a_whole_image_of_one_value_needs_no_lut(low, high):
    values = np.array([[low, high]], np.float32)  # apart by what interpolation rounds
    quantisation = quantisation_of(values, "MR", whole=True)
    assert (quantisation.slope, quantisation.rescale_type) == ("1", None)
    assert quantisation.stored(values).tolist() == [[low, low]]


def test_an_image_of_one_value_keeps_it():
    flat = np.full((2, 3), 0.25, np.float32)
    quantisation = quantisation_of(flat, "MR", whole=False)
    assert quantisation.stored(flat)[0, 0] * float(quantisation.slope) + float(quantisation.intercept) == 0.25


def test_the_rim_of_the_moving_image_keeps_its_value_and_beyond_is_padding(registration, tmp_path):
    """Half a voxel beyond the outermost centres is image still; zeros from beyond never darken it."""
    flat = replace(registration, moving_values=np.full_like(registration.moving_values, 500))
    values, inside = warp_moving(flat, -7)
    assert np.abs(values[inside] - 500).max() < 0.01
    assert (values[~inside] == -7).all()
    assert 0.1 < inside.mean() < 0.95


def test_an_undefined_displacement_gives_padding(registration):
    def field(points):
        return np.where(points[..., :1] > 40, np.nan, displacement(points))

    transform = KnownTransform(registration.fixed, registration.moving, field)
    values, inside = warp_moving(replace(registration, transform=transform), -7)
    undefined = registration.fixed.points()[..., 0] > 40
    assert (values[undefined] == -7).all()
    assert not inside[undefined].any()
    assert np.isfinite(values).all()


def test_a_long_or_foreign_description_is_kept_as_far_as_it_goes(tmp_path):
    registration = phantom_registration(tmp_path / "phantom", description="x" * 64)
    assert write(registration, tmp_path / "x")[0].SeriesDescription == "REGISTERED: " + "x" * 52
    header = registration.moving.header
    header.SpecificCharacterSet, header.SeriesDescription = "ISO_IR 192", "Череп 頭"
    image = write(registration, tmp_path / "y")[0]
    assert image.SpecificCharacterSet == "ISO_IR 192"
    assert image.SeriesDescription == "REGISTERED: Череп 頭"
    del header.SeriesDescription
    assert write(registration, tmp_path / "z")[0].SeriesDescription == "REGISTERED"


def test_a_flagged_result_says_so_in_its_description(registration, tmp_path):
    provenance = provenance_of(registration.fixed, registration.moving)
    paths = write_registered_series(registration, provenance, Settings(), tmp_path, DSRO_UID, flagged=True)
    assert pydicom.dcmread(paths[0]).SeriesDescription == "REGISTERED (CHECK QUALITY): T1 MPRAGE"


def test_window_compression_and_annotation_are_those_of_the_moving_image(tmp_path):
    def edit(ds, k):
        ds.WindowCenter, ds.WindowWidth = 300 + k, 700
        if k == 5:
            ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "12.5"
            ds.LossyImageCompressionMethod, ds.BurnedInAnnotation = "ISO_10918_1", "YES"

    registration = phantom_registration(tmp_path / "phantom", edit=edit)
    image = write(registration, tmp_path / "x")[0]
    assert (image.WindowCenter, image.WindowWidth) == (314, 700)
    assert (image.LossyImageCompression, image.LossyImageCompressionRatio) == ("01", 12.5)
    assert (image.LossyImageCompressionMethod, image.BurnedInAnnotation) == ("ISO_10918_1", "YES")


def test_acquisition_times_are_told_in_the_time_zone_of_the_object(tmp_path):
    registration = phantom_registration(tmp_path / "phantom")
    fixed, moving = registration.fixed.header, registration.moving.header
    moving.AcquisitionDateTime = "20230105101500.25"
    fixed.TimezoneOffsetFromUTC = "-0500"
    assert write(registration, tmp_path / "x")[0].AcquisitionTime == "101500"  # the moving one says nothing
    moving.TimezoneOffsetFromUTC = "+0530"
    image = write(registration, tmp_path / "y")[0]
    assert image.TimezoneOffsetFromUTC == "-0500"
    assert (image.AcquisitionDate, float(image.AcquisitionTime)) == ("20230104", 234500)
    assert image.AcquisitionDateTime == "20230105101500.25+0530"


@pytest.mark.parametrize(("sequence", "kept"), [(["GR", "IR"], True), ("IR", True), ("GR", False)])
def test_an_inversion_time_is_kept_only_where_the_sequence_inverts(registration, images, tmp_path, sequence, kept):
    moving = deepcopy(registration.moving)
    for header in moving.instances():
        header.ScanningSequence = sequence
    changed = registration_of(registration.fixed, moving, registration.moving_values)
    assert ("InversionTime" in write(changed, tmp_path)[0]) == kept


def test_a_decimal_that_is_too_long_is_rounded_in_place(tmp_path):
    registration = phantom_registration(tmp_path / "phantom")
    header = registration.fixed.frames[3].header
    header.ImagePositionPatient = ["-57.123456789012345678", "1", "2.5"]
    image = write(registration, tmp_path / "x")[3]
    assert float(image.ImagePositionPatient[0]) == pytest.approx(-57.123456789, abs=1e-9)
    assert len(str(image["ImagePositionPatient"].value[0])) <= 16


def as_multi_frame(stack, name):
    """The same stack as one enhanced instance, whose geometry and timing lie in functional groups."""
    header = deepcopy(stack.header)
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", uid(name)
    header.NumberOfFrames, header.ImageType = len(stack.frames) + 1, ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared, timing, echo, measures = Dataset(), Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, timing.FlipAngle = header.RepetitionTime, header.FlipAngle
    echo.EffectiveEchoTime = float(header.EchoTime)
    measures.PixelSpacing, measures.SliceThickness = header.PixelSpacing, header.SliceThickness
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echo]
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in (*stack.frames, stack.frames[0]):
        position, orientation, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = frame.header.ImagePositionPatient
        orientation.ImageOrientationPatient = frame.header.ImageOrientationPatient
        group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [orientation]
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    for keyword in (*GEOMETRY[:4], "RepetitionTime", "FlipAngle", "EchoTime", "ScanningSequence", "SequenceVariant"):
        delattr(header, keyword)
    frames = tuple(Frame(stack.frames[0].path, header, number) for number in range(1, len(stack.frames) + 1))
    return Stack(frames, stack.affine)


def test_multi_frame_images_are_referenced_by_frame_and_lie_where_their_frames_do(registration, images, tmp_path):
    fixed, moving = as_multi_frame(registration.fixed, "F"), as_multi_frame(registration.moving, "M")
    found = write(registration_of(fixed, moving, registration.moving_values), tmp_path / "x")
    for k, (image, same) in enumerate(zip(found, images)):
        assert image.ReferencedImageSequence[0].ReferencedSOPInstanceUID == fixed.header.SOPInstanceUID
        assert image.ReferencedImageSequence[0].ReferencedFrameNumber == k + 1
        sources = {s.ReferencedSOPInstanceUID for s in same.SourceImageSequence}
        numbers = [n for n, frame in enumerate(registration.moving.frames, 1) if frame.sop_instance_uid in sources]
        assert list(image.SourceImageSequence[0].ReferencedFrameNumber) == numbers
        for keyword in (*GEOMETRY, "RepetitionTime", "FlipAngle", "EchoTime", "PixelData"):
            assert image[keyword].value == same[keyword].value
        assert (image.ScanningSequence, image.SequenceVariant) == ("RM", "NONE")
        assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
        assert image.ImageType[2] == "OTHER"
