from datetime import datetime, timezone

import numpy as np
import pydicom
import pytest
from panreg.dicom.elements import PATIENT_STUDY_OPTIONAL, copy_elements, invalid
from panreg.dicom.times import timezone_of
from panreg.failures import Code, Failure
from panreg.objects.modules import describe_equipment, describe_series, new_object, save
from pydicom import Dataset, config
from synthetic import FIXED_AFFINE, SOP_CLASSES, provenance_of, stack_of, write_series

NAMES = {
    "ISO_IR 100": "Müller^Jörg",
    "ISO_IR 144": "Иванов^Пётр",
    "ISO_IR 192": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "GB18030": "Wang^XiaoDong=王^小东",
    ("", "ISO 2022 IR 87"): "Yamada^Tarou=山田^太郎=やまだ^たろう",
}


def fixed_stack(folder, edit=None):
    return stack_of(write_series(folder / "fixed", np.zeros((3, 4, 5)), FIXED_AFFINE, edit=edit), FIXED_AFFINE)


def begin(fixed, **changes):
    return new_object(SOP_CLASSES["MR"], "test", fixed, provenance_of(fixed, fixed, **changes))


def named(character_set):
    """A slice whose identifying texts, also one in a sequence, are in a character set."""
    name = NAMES[character_set]
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "7", name.split("=")[-1].replace("^", " ")

    def edit(ds, k):
        ds.SpecificCharacterSet = list(character_set) if isinstance(character_set, tuple) else character_set
        ds.PatientName, ds.StudyDescription = name, other.IssuerOfPatientID
        ds.OtherPatientIDsSequence = [other]

    return edit


def values(ds):
    issuer = ds.OtherPatientIDsSequence[0].IssuerOfPatientID
    return ds.PatientName, ds.StudyDescription, issuer, ds.PatientID


@pytest.mark.parametrize("character_set", NAMES)
@pytest.mark.hazard("names are garbled")
@pytest.mark.property(7)
def test_texts_keep_their_bytes_in_the_character_set_of_the_fixed_image(tmp_path, character_set):
    fixed = fixed_stack(tmp_path, named(character_set))
    target = begin(fixed)
    save(target, tmp_path / "x.dcm")
    written, source = pydicom.dcmread(tmp_path / "x.dcm"), pydicom.dcmread(fixed.frames[0].path)
    assert written.SpecificCharacterSet == source.SpecificCharacterSet
    assert written.OtherPatientIDsSequence[0].get_item("IssuerOfPatientID").value == (
        source.OtherPatientIDsSequence[0].get_item("IssuerOfPatientID").value
    )
    for keyword in ("PatientName", "StudyDescription"):
        assert written.get_item(keyword).value == source.get_item(keyword).value
    assert values(written) == values(source)


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 144"])
@pytest.mark.property(7)
def test_text_that_the_character_set_cannot_hold_turns_the_whole_object_to_utf_8(tmp_path, character_set):
    fixed = fixed_stack(tmp_path, named(character_set))
    before = values(pydicom.dcmread(fixed.frames[0].path))
    target = begin(fixed)
    target.SeriesDescription = "REGISTERED: Череп Schädel 頭"
    save(target, tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert written.SeriesDescription == "REGISTERED: Череп Schädel 頭"
    assert values(written) == before
    assert fixed.header.SpecificCharacterSet == character_set


@pytest.mark.parametrize("character_set", [None, "", "ISO_IR 6", ["", "ISO 2022 IR 87"]])
def test_latin_letters_are_never_written_under_a_character_set_without_them(tmp_path, character_set):
    """Without a first value the set is ASCII, whatever readers guess."""
    fixed = fixed_stack(tmp_path, declaring(character_set))
    target = begin(fixed)
    fixed.header.SeriesDescription = "Schädel"
    describe_series(target, "REGISTERED", fixed)
    save(target, tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert written.SeriesDescription == "REGISTERED: Schädel"


def declaring(character_set):
    """A slice whose patient has a name of ASCII letters, in a character set; None for none."""

    def edit(ds, k):
        ds.SpecificCharacterSet = character_set
        if character_set is None:
            del ds.SpecificCharacterSet

    return edit


@pytest.mark.parametrize("character_set", [None, "ISO_IR 6"])
@pytest.mark.parametrize("keyword", ["ImageComments", "DerivationDescription", "SegmentLabel"])
def test_our_own_letters_are_declared_where_the_fixed_image_declares_none(tmp_path, character_set, keyword):
    """A label of the settings, the name of what was drawn: with them, what the image had is declared, too."""
    fixed = fixed_stack(tmp_path, declaring(character_set))
    fixed.header.PatientName = "Müller^Jörg"  # which it writes in Latin-1, and doesn't say so
    target, segment = begin(fixed), Dataset()
    place = target if keyword != "SegmentLabel" else segment
    setattr(place, keyword, "nicht für Diagnose")
    target.SegmentSequence = [segment]
    save(target, tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert written.PatientName == "Müller^Jörg"
    assert (written if keyword != "SegmentLabel" else written.SegmentSequence[0])[keyword].value == "nicht für Diagnose"


@pytest.mark.parametrize("character_set", [None, "ISO_IR 6"])
def test_what_was_copied_alone_keeps_its_bytes_undeclared(tmp_path, character_set):
    fixed = fixed_stack(tmp_path, declaring(character_set))
    fixed.header.PatientName = "Müller^Jörg"
    save(begin(fixed), tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert written.get("SpecificCharacterSet") == character_set
    assert "Müller^Jörg".encode("latin-1") in (tmp_path / "x.dcm").read_bytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spelt", "character_set"),
    [
        *(("ISO-IR 100", "ISO_IR 100"), ("ISO_IR_100", "ISO_IR 100"), ("ISO-IR 144", "ISO_IR 144")),
        *(("utf-8", "ISO_IR 192"), (["", "ISO-2022 IR 87"], ("", "ISO 2022 IR 87"))),
    ],
)
@pytest.mark.hazard("names are garbled")
@pytest.mark.property(7)
def test_text_of_a_misspelt_character_set_that_was_understood_is_utf_8(tmp_path, spelt, character_set):
    fixed = fixed_stack(tmp_path, named(character_set))
    before = values(fixed.header)
    fixed.frames[0].header.SpecificCharacterSet = spelt
    save(begin(fixed), tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert values(written) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.property(7)
def test_a_name_in_a_misspelt_character_set_is_read_from_its_file_and_kept(tmp_path):
    fixed = fixed_stack(tmp_path, named("ISO_IR 100"))
    path = fixed.frames[0].path
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO-IR 100"))
    fixed = stack_of([frame.path for frame in fixed.frames], FIXED_AFFINE)
    save(begin(fixed), tmp_path / "x.dcm")
    assert pydicom.dcmread(tmp_path / "x.dcm").SpecificCharacterSet == "ISO_IR 192"
    assert "Müller^Jörg".encode() in (tmp_path / "x.dcm").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_a_character_set_that_nobody_knows_is_not_declared_and_bytes_are_kept(tmp_path):
    fixed = fixed_stack(tmp_path, declaring("ISO_IR 100"))
    for frame in fixed.frames:
        frame.header.SpecificCharacterSet, frame.header.PatientName = "ISO_IR 999", "Müller^Jörg"
    save(begin(fixed), tmp_path / "x.dcm")
    assert "SpecificCharacterSet" not in pydicom.dcmread(tmp_path / "x.dcm")
    assert "Müller^Jörg".encode("latin-1") in (tmp_path / "x.dcm").read_bytes()


OPTIONAL = {
    **{"IssuerOfPatientID": "Clinic", "PatientIdentityRemoved": "YES", "DeidentificationMethod": "Names taken out"},
    **{"TypeOfPatientID": "TEXT", "LongitudinalTemporalInformationModified": "MODIFIED", "StudyDescription": "Head"},
    **{"PatientAge": "045Y", "PatientSize": "1.8", "PatientWeight": "80", "PregnancyStatus": 4},
    "TimezoneOffsetFromUTC": "+0100",
}
SEQUENCES = (
    *("IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "DeidentificationMethodCodeSequence"),
    "IssuerOfAccessionNumberSequence",
)


def test_whose_patient_it_is_and_what_was_taken_out_is_kept(tmp_path):
    """Without the issuer an ID may be another's; without the rest nobody knows that the images were de-identified."""

    def edit(ds, k):
        for keyword, value in OPTIONAL.items():
            setattr(ds, keyword, value)
        for keyword in SEQUENCES:
            item = Dataset()
            item.CodeMeaning = keyword
            setattr(ds, keyword, [item])

    save(begin(fixed_stack(tmp_path, edit)), tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert {keyword: written.get(keyword) for keyword in OPTIONAL} == OPTIONAL
    assert [written[keyword].value[0].CodeMeaning for keyword in SEQUENCES] == list(SEQUENCES)
    assert set(PATIENT_STUDY_OPTIONAL) == {*OPTIONAL, *SEQUENCES}


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SeriesDescription", "x" * 65),
        ("RescaleSlope", "1.23456789012345678"),
        ("BodyPartExamined", "head"),
        ("ContentDate", "2024.01.10"),
        ("PatientAge", "45"),
        ("SeriesInstanceUID", "1.2.a"),
        ("RescaleIntercept", 1 / 3),
        ("PatientID", ["A1", "B2"]),
        ("PatientName", ["A1", "B2"]),
        ("AccessionNumber", ["1", "2"]),
        ("ImageType", "DERIVED"),
        ("PixelSpacing", ["1", "2", "3"]),
        ("TimezoneOffsetFromUTC", "+9900"),
    ],
)
def test_a_value_that_the_standard_forbids_is_refused_by_name_and_without_the_value(tmp_path, keyword, value):
    target = begin(fixed_stack(tmp_path))
    setattr(target, keyword, value)
    with pytest.raises(Failure, match=keyword) as refused:
        save(target, tmp_path / "x.dcm")
    assert refused.value.code is Code.E_OUTPUT
    assert str(value) not in str(refused.value)
    assert not (tmp_path / "x.dcm").exists()


def test_a_forbidden_value_in_a_sequence_is_refused_too(tmp_path):
    target, item = begin(fixed_stack(tmp_path)), Dataset()
    item.CodeMeaning = "x" * 65
    target.DerivationCodeSequence = [item]
    with pytest.raises(Failure, match="CodeMeaning"):
        save(target, tmp_path / "x.dcm")


def test_pydicom_keeps_the_strictness_it_had(tmp_path):
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    target = begin(fixed_stack(tmp_path))
    save(target, tmp_path / "x.dcm")
    target.BodyPartExamined = "head"
    with pytest.raises(Failure):
        save(target, tmp_path / "y.dcm")
    assert (config.settings.reading_validation_mode, config.settings.writing_validation_mode) == before


def test_type_2_attributes_are_empty_where_the_fixed_image_has_none(tmp_path):
    def edit(ds, k):
        del ds.PatientName, ds.PatientSex, ds.StudyID, ds.ReferringPhysicianName

    target = begin(fixed_stack(tmp_path, edit))
    save(target, tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert {written[k].is_empty for k in ("PatientName", "PatientSex", "StudyID", "ReferringPhysicianName")} == {True}
    assert "IssuerOfPatientID" not in written
    assert written.PatientID == "PAT-1"


@pytest.mark.parametrize(
    ("keyword", "values", "is_valid"),
    [
        *(
            ("StudyDescription", ["HEAD", "NECK"], False),
            ("StudyDescription", "", True),
            ("StudyDescription", None, True),
        ),
        *(("ImageType", ["A", "B", "C"], True), ("ImageType", ["A"], False), ("ScanOptions", ["A"], True)),
        *(("PixelSpacing", ["1", "1"], True), ("PixelSpacing", ["1"], False), ("ContourData", list("123456"), True)),
        *(("ContourData", list("12345"), False), ("ReferencedSOPInstanceUID", ["1.2", "1.3"], False)),
        *(("ImageComments", "a\\b", True), ("OtherPatientIDs", ["1", "2"], True), ("PatientName", ["A", "B"], False)),
    ],
)
def test_an_element_has_as_many_values_as_the_standard_lets_it_have(keyword, values, is_valid):
    ds = Dataset()
    setattr(ds, keyword, values)
    assert list(invalid(ds)) == ([] if is_valid else [keyword])
    ds.add_new(0x00091001, "LO", ["a", "b"])  # of a private element nobody knows it
    assert list(invalid(ds)) == ([] if is_valid else [keyword])


def test_text_with_a_backslash_is_not_repeated_where_there_is_one_value(tmp_path):
    def edit(ds, k):
        ds.StudyDescription, ds.AccessionNumber, ds.IssuerOfPatientID = "HEAD\\NECK", "1\\2", "A\\B"

    save(begin(fixed_stack(tmp_path, edit)), tmp_path / "x.dcm")
    written = pydicom.dcmread(tmp_path / "x.dcm")
    assert "StudyDescription" not in written
    assert "IssuerOfPatientID" not in written
    assert written["AccessionNumber"].is_empty


@pytest.mark.parametrize(
    ("offset", "minutes"),
    [
        *(("+0000", 0), ("-0500", -300), ("+0545", 345), (" +0545 ", 345), ("+1400", 840), ("-1200", -720)),
        *((offset, None) for offset in ("", "-0000", "+9900", "+1401", "-1201", "+0060", "0100", "+1", "+0100\\+0200")),
    ],
)
def test_a_time_zone_is_one_that_a_place_on_earth_may_have(tmp_path, offset, minutes):
    fixed = fixed_stack(tmp_path, lambda ds, k: setattr(ds, "TimezoneOffsetFromUTC", offset))
    zone, target = timezone_of(fixed.header), begin(fixed)
    save(target, tmp_path / "x.dcm")
    assert (zone and zone.utcoffset(None).total_seconds() / 60) == minutes
    assert (target.get("TimezoneOffsetFromUTC") or "").strip() == (offset.strip() if minutes is not None else "")


def test_an_optional_value_that_breaks_the_standard_is_left_out_and_a_long_decimal_is_rounded():
    source, target = Dataset(), Dataset()
    source.PatientAge, source.PatientWeight, source.PatientSize = "45", "71.1234567890123456", "1.80"
    copy_elements(target, source, ["PatientAge", "PatientWeight", "PatientSize"])
    assert "PatientAge" not in target
    assert len(str(target.PatientWeight)) <= 16
    assert float(target.PatientWeight) == pytest.approx(71.1234567890123)
    assert str(target["PatientSize"].value) == "1.80"


def test_a_change_of_the_object_leaves_the_fixed_header_alone(tmp_path):
    fixed = fixed_stack(tmp_path)
    target = begin(fixed)
    target.SpecificCharacterSet, target.PatientID = "ISO_IR 192", "OTHER"
    assert (fixed.header.SpecificCharacterSet, fixed.header.PatientID) == ("ISO_IR 100", "PAT-1")


def test_times_are_written_in_the_time_zone_of_the_fixed_image_and_none_is_added(tmp_path):
    clock = datetime(2024, 5, 17, 22, 30, tzinfo=timezone.utc)
    plain = begin(fixed_stack(tmp_path / "a"), clock=clock)
    assert "TimezoneOffsetFromUTC" not in plain
    assert (plain.ContentDate, plain.ContentTime) == ("20240517", "223000")
    fixed = fixed_stack(tmp_path / "b", lambda ds, k: setattr(ds, "TimezoneOffsetFromUTC", "+0530"))
    zoned = begin(fixed, clock=clock)
    describe_equipment(zoned, provenance_of(fixed, fixed, clock=clock), "test")
    assert zoned.TimezoneOffsetFromUTC == "+0530"
    assert (zoned.ContentDate, zoned.ContentTime) == ("20240518", "040000")
    assert zoned.ContributingEquipmentSequence[0].ContributionDateTime == "20240518040000"
