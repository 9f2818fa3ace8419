"""What breaks the standard in a header, told when the pair is chosen; headers as archives publish them."""

import logging

import numpy as np
import pydicom
import pytest
from header_stacks import stack
from panreg.dicom.elements import invalid
from panreg.failures import Code, Failure
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.objects.montage import write_montage
from panreg.objects.quality_report import write_quality_report
from panreg.objects.registered_series import write_registered_series
from panreg.objects.required_attributes import missing
from panreg.output.publication import Publication
from panreg.pairing.conformity import check_conformity
from panreg.settings import Settings
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    phantom_registration,
    provenance_of,
    registration_of,
    stack_of,
    write_phantom_pair,
)

ZEROS = "1.2.826.0.1.3680043.10.0474.007"  # components with leading zeros


def bad_dates(ds, k):
    """Dates and numbers masked as archives mask them, no body part, an empty Laterality."""
    for keyword in ("StudyDate", "StudyTime", "AcquisitionDate", "SeriesDate", "PatientBirthDate"):
        ds[keyword]._value = "***"
    ds["AcquisitionNumber"]._value = "***"
    ds["RepetitionTime"]._value = "***"
    del ds.BodyPartExamined
    ds.Laterality = ""


def zeros(ds, k):
    year = ds.StudyDate[:4]
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ZEROS}.{year}.{k:03d}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ZEROS}.1.{year}", f"{ZEROS}.2.{year}"
    ds.FrameOfReferenceUID = f"{ZEROS}.3.{year}"


@pytest.mark.filterwarnings("ignore")
def check(first=None, second=None, invalid_uids="refuse"):
    return check_conformity(
        stack("first", number=7, **(first or {})),
        stack("second", study="two", number=9, **(second or {})),
        invalid_uids,
    )


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_an_invalid_uid_is_refused_by_role_series_and_attribute_or_kept(keyword, role):
    headers = {"first" if role == "fixed" else "second": {keyword: ZEROS}}
    with pytest.raises(Failure) as info:
        check(**headers)
    assert info.value.code is Code.E_OUTPUT
    number = 7 if role == "fixed" else 9
    assert f"The {role} series (number {number}) has an invalid {keyword} " in info.value.message
    assert "PANREG_INVALID_UIDS=keep" in info.value.message
    assert ZEROS not in info.value.message
    (warning,) = check(**headers, invalid_uids="keep")
    assert f"The {role} series (number {number}) has an invalid {keyword} " in warning


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("uid", ["***", "1.2.abc", "1." + "2" * 70, "1..2"])
def test_what_is_no_uid_at_all_is_refused_even_so(uid):
    with pytest.raises(Failure, match="FrameOfReferenceUID"):
        check({"FrameOfReferenceUID": uid}, invalid_uids="keep")


def test_valid_headers_are_told_nothing():
    assert check() == ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keyword", ["PatientID", "PatientName"])
@pytest.mark.hazard("two patients are aligned")
def test_a_patient_whom_the_results_could_not_name_is_refused(keyword):
    """Left empty, they would be nobody's."""
    with pytest.raises(Failure) as info:
        check({keyword: "9" * 69}, {keyword: "9" * 69})
    assert info.value.code is Code.E_OUTPUT
    assert f"The fixed series (number 7) has a {keyword} that breaks the standard" in info.value.message
    assert "999" not in info.value.message
    assert check({keyword: "9" * 64}) == ()


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName"])
def test_a_patient_of_two_identifiers_in_one_attribute_is_refused(keyword):
    with pytest.raises(Failure, match="a backslash") as info:
        check({keyword: "A1\\B2"})
    assert info.value.code is Code.E_OUTPUT
    assert "A1" not in info.value.message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("role", "keyword", "value", "told"),
    [
        ("fixed", "StudyDescription", "HEAD\\NECK", "left empty in the results, or out"),
        ("fixed", "AccessionNumber", "1\\2", "left empty in the results, or out"),
        ("fixed", "PatientAge", "45", "left empty in the results, or out"),
        ("fixed", "TimezoneOffsetFromUTC", "+9900", "left empty in the results, or out"),
        ("moving", "TimezoneOffsetFromUTC", "+9900", "left empty in the results, or out"),
        ("moving", "AcquisitionDate", "2024.1.1", "left empty in the results, or out"),
        ("fixed", "SpecificCharacterSet", "ISO-IR 100", "a character set that the standard does not know"),
    ],
)
def test_what_the_results_can_not_repeat_is_told_before_any_pixel_is_read(role, keyword, value, told):
    (warning,) = check(**{"first" if role == "fixed" else "second": {keyword: value}})
    assert warning.startswith(f"The {role} series (number {7 if role == 'fixed' else 9}) has ")
    assert warning.endswith(f"{told}: {keyword}.")


def test_times_that_another_zone_can_not_tell_are_told():
    times = {"AcquisitionDate": "00010101", "AcquisitionTime": "000000", "AcquisitionDateTime": "00010101000000"}
    (warning,) = check({"TimezoneOffsetFromUTC": "-0500"}, {"TimezoneOffsetFromUTC": "+0900", **times})
    assert warning == (
        "The moving series (number 9) has times that can't be told in the fixed series' time zone and are left out of "
        "the results: AcquisitionDate, AcquisitionTime."
    )
    assert check({"TimezoneOffsetFromUTC": "+0900"}, {"TimezoneOffsetFromUTC": "-0500", **times}) == ()


def test_names_of_another_character_set_than_the_declared_one_are_told(tmp_path):
    latin = {b"ISO_IR 100": b"ISO_IR 192", b"Canary^Test": b"M\xfcller^J\xf6rg"}
    fixed, moving = write_phantom_pair(tmp_path)
    for path in (*fixed, *moving):
        content = path.read_bytes()
        for old, new in latin.items():
            content = content.replace(old, new)
        path.write_bytes(content)
    stacks = stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)
    told = "has text of another character set than it declares, part of which can't be read: PatientName."
    expected = tuple(f"The {role} series (number 3) {told}" for role in ("fixed", "moving"))
    assert check_conformity(*stacks, "refuse") == expected


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """The phantom with masked dates and numbers in both images."""
    return phantom_registration(tmp_path_factory.mktemp("masked"), edit=bad_dates)


@pytest.mark.filterwarnings("ignore")
def test_values_that_break_the_standard_are_named_by_role_and_series(masked):
    fixed, moving = check_conformity(masked.fixed, masked.moving, "refuse")
    assert fixed.startswith("The fixed series (number 3) has values that break the standard and are left empty")
    assert all(keyword in fixed for keyword in ("StudyDate", "StudyTime", "PatientBirthDate"))
    assert moving.startswith("The moving series (number 3)")
    assert "RepetitionTime" in moving
    assert "***" not in fixed + moving


def write_all(registration, folder):
    provenance, settings = provenance_of(registration.fixed, registration.moving), Settings()
    write_deformable_registration(registration, provenance, settings, folder / "registration.dcm")
    write_registered_series(registration, provenance, settings, folder / "registered", provenance.uid("dsro"))
    write_montage(registration, provenance, settings, folder / "montage.dcm")
    write_quality_report(registration, registration.quality, [], provenance, settings, folder / "report.dcm")


@pytest.mark.filterwarnings("ignore")
def test_masked_values_are_written_empty_in_every_object(masked, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    with Publication(tmp_path / "out") as publication:
        write_all(masked, publication.staging)
        objects = publication.publish([missing])
    assert len(objects) == len(masked.fixed.frames) + 3
    for found in objects:
        ds = pydicom.dcmread(tmp_path / "out" / found.path)
        assert list(invalid(ds)) == []
        assert "***" not in str(ds)
        assert (ds.StudyDate, ds.StudyTime, ds.PatientBirthDate) == ("", "", "")


@pytest.mark.filterwarnings("ignore")
def test_kept_uids_are_repeated_as_they_are_in_every_reference(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    fixed, moving = write_phantom_pair(tmp_path / "in", edit=zeros)
    pair = stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)
    registration = registration_of(*pair, np.ones(pair[1].shape))
    assert len(check_conformity(*pair, "keep")) == 8
    with Publication(tmp_path / "out") as publication:
        write_all(registration, publication.staging)
        publication.publish([missing])
    series = [pydicom.dcmread(path) for path in (tmp_path / "out/dicom/registered").iterdir()]
    known = {frame.sop_instance_uid for stack in pair for frame in stack.frames}
    assert {ds.StudyInstanceUID for ds in series} == {pair[0].study_uid}
    for ds in series:
        for item in (*ds.SourceImageSequence, *ds.ReferencedImageSequence):
            assert item.ReferencedSOPInstanceUID in known
    report = pydicom.dcmread(tmp_path / "out/dicom/report.dcm")
    assert "007" in str(report)
