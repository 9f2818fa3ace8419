import numpy as np
import pydicom
import pytest
from panreg.objects.montage import write_montage
from panreg.objects.required_attributes import missing
from panreg.settings import Settings
from synthetic import (
    CLOCK,
    FIXED_AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    provenance_of,
    registration_of,
    stack_of,
    write_phantom_pair,
)

PICTURE = np.random.default_rng(7).integers(0, 256, (61, 83, 3), np.uint8)  # odd sides: odd length of the pixels


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    fixed, moving = write_phantom_pair(tmp_path_factory.mktemp("pair"))
    return stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)


def write(pair, path, picture=PICTURE):
    registration = registration_of(*pair, np.zeros(MOVING_SHAPE), overview=picture)
    return write_montage(registration, provenance_of(*pair), Settings(), path)


def test_the_picture_is_the_overview_byte_by_byte(pair, tmp_path):
    ds = pydicom.dcmread(write(pair, tmp_path / "montage.dcm"))
    assert (ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PlanarConfiguration) == (61, 83, 3, 0)
    assert (ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit) == ("RGB", 8, 8, 7)
    assert (ds.pixel_array == PICTURE).all()


def test_a_picture_in_another_memory_order_is_the_same(pair, tmp_path):
    turned = np.asfortranarray(PICTURE)
    assert (pydicom.dcmread(write(pair, tmp_path / "montage.dcm", turned)).pixel_array == PICTURE).all()


def test_it_joins_the_fixed_study_and_says_what_it_is(pair, tmp_path):
    ds, (fixed, moving) = pydicom.dcmread(write(pair, tmp_path / "montage.dcm")), pair
    assert ds.SOPClassUID.name == "Secondary Capture Image Storage"
    assert (ds.StudyInstanceUID, ds.PatientID, ds.StudyDescription) == (fixed.study_uid, "PAT-1", "Head")
    assert (ds.Modality, ds.ConversionType, ds.BurnedInAnnotation, ds.SeriesNumber) == ("OT", "WSD", "NO", 906)
    assert ds["Laterality"].is_empty
    assert ds["PatientOrientation"].is_empty
    assert list(ds.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert "not for primary diagnosis" in ds.DerivationDescription
    sources = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert sources == [*fixed.sop_instance_uids, *moving.sop_instance_uids]


@pytest.mark.parametrize("role", [0, 1])
@pytest.mark.parametrize("answer", ["YES", "yes "])
@pytest.mark.property(6)
def test_a_picture_of_images_with_text_in_their_pixels_says_so(pair, tmp_path, role, answer):
    stacks = [stack_of([frame.path for frame in stack.frames], stack.affine) for stack in pair]
    stacks[role].frames[-1].header.BurnedInAnnotation = answer
    assert pydicom.dcmread(write(stacks, tmp_path / "montage.dcm")).BurnedInAnnotation == "YES"


def test_times_are_those_of_the_run(pair, tmp_path):
    ds = pydicom.dcmread(write(pair, tmp_path / "montage.dcm"))
    for event in ("InstanceCreationDate", "SeriesDate", "ContentDate", "DateOfSecondaryCapture"):
        assert ds[event].value == CLOCK.strftime("%Y%m%d")
    assert ds.TimeOfSecondaryCapture == CLOCK.strftime("%H%M%S")
    assert [item.DeviceUID for item in ds.ContributingEquipmentSequence] == [provenance_of(*pair).device_uid]


def test_a_study_without_description_gets_an_empty_one(pair, tmp_path):
    fixed = stack_of([frame.path for frame in pair[0].frames], FIXED_AFFINE)
    for frame in fixed.frames:
        del frame.header.StudyDescription
    assert pydicom.dcmread(write((fixed, pair[1]), tmp_path / "montage.dcm"))["StudyDescription"].is_empty


def test_two_runs_write_equal_bytes_and_other_weights_another_instance(pair, tmp_path):
    one, two = (write(pair, tmp_path / name).read_bytes() for name in ("one.dcm", "two.dcm"))
    assert one == two
    registration = registration_of(*pair, np.zeros(MOVING_SHAPE), overview=PICTURE)
    other = provenance_of(*pair, weights_sha256="c" * 64)
    changed = pydicom.dcmread(write_montage(registration, other, Settings(), tmp_path / "three.dcm"))
    assert changed.SOPInstanceUID != pydicom.dcmread(tmp_path / "one.dcm").SOPInstanceUID


def test_nothing_that_the_standard_requires_is_missing(pair, tmp_path):
    assert missing(pydicom.dcmread(write(pair, tmp_path / "montage.dcm"))) == []
