"""One patient or two: identifiers that identify nobody, and bodies that can't be one."""

import pytest
from header_stacks import stack
from panreg.failures import Code, Failure
from panreg.pairing.identity import check_patient, identifier

PLACEHOLDERS = [
    "***",
    "*",
    "ANON",
    "anon^anon",
    "Anonymous",
    "ANONYMIZED",
    "de-identified",
    "0000",
    "0",
    "XXXX",
    "x x x",
]
PLACEHOLDERS += [
    "unknown",
    "N/A",
    "None",
    "NULL",
    "---",
    "1111",
    "12345",
    "00012345",
    "Patient ID",
    "removed",
    "000-ANON",
]
PLACEHOLDERS += ["Anonyme", "undefined", "REMOVED BY CTP", "MRN", "anonimo", "anónimo", "unspecified", "missing"]
PLACEHOLDERS += ["not known", "n.v.", "pseudonymized", "Anonymous Male", "ANON1", "ANONYMIZED01", "PHI_REMOVED"]
PLACEHOLDERS += ["PHI removed", "desconocido", "sconosciuto", "onbekend", "okänd", "匿名", "QA", "phantom", "John Doe"]
PLACEHOLDERS += ["ANON-0017", "Doe^Jane", "999", "000999", "1234", "Anonymisé 2", "NotSet", "ＡＮＯＮ"]
NAMES = ["PAT-1", "Subject 3", "sub-01", "4711", "A1", "Anonow^Ivan", "Nan^Li", "7f3e", "0070", "山田^太郎", "김^희중"]
NAMES += ["7", "0001", "0012", "0013", "0123", "11", "Low^Joan", "Patient 12", "Test^Anna"]


@pytest.mark.parametrize("value", [None, "", "   ", "\0", *PLACEHOLDERS])
def test_a_placeholder_identifies_nobody(value):
    assert identifier(value) is None


@pytest.mark.parametrize("value", NAMES)
def test_what_may_be_one_patients_alone_is_an_identifier(value):
    assert identifier(f" {value} ") == value


def pair(first=None, second=None, patient="PAT-1", date="20230105", **both):
    one = stack("first", patient=patient, **(both | (first or {})))
    other = stack("second", study="two", date=date, patient=patient, **(both | (second or {})))
    return one, other


def told(*stacks, mode="strict", conflict="refuse"):
    return check_patient(*stacks, mode, conflict)


def refusal(*stacks, **options):
    with pytest.raises(Failure) as info:
        told(*stacks, **options)
    assert info.value.code is Code.E_PATIENT
    return info.value.message


@pytest.mark.parametrize("value", ["***", "ANON", "0000", "XXXX", "   "])
@pytest.mark.hazard("two patients are aligned")
def test_two_images_with_one_placeholder_are_not_of_one_identified_patient(value):
    message = refusal(*pair(patient=value))
    assert "fixed and moving" in message
    assert "PANREG_PATIENT_CHECK=allow_unidentified" in message
    (warning,) = told(*pair(patient=value), mode="allow_unidentified")
    assert "can't be checked" in warning


def test_the_sentence_says_which_image_lacks_an_identifier():
    one, other = pair(second={"PatientID": "***"})
    assert "(moving)" in refusal(one, other)
    assert "(fixed)" in refusal(other, one)


UNIDENTIFIED = [
    ({"PatientWeight": 70}, {"PatientWeight": 80}, "PatientWeight"),  # 10 kg apart
    ({"PatientWeight": 12}, {"PatientWeight": 16}, "PatientWeight"),  # a quarter of the larger
    ({"PatientSize": 1.62}, {"PatientSize": 1.80}, "PatientSize"),
    ({"PatientAge": "034Y"}, {"PatientAge": "061Y"}, "PatientAge"),
    ({"PatientName": "Low^Jane"}, {"PatientName": "Roe^Mary"}, "PatientName"),
]


@pytest.mark.parametrize(("one", "other", "named"), UNIDENTIFIED)
@pytest.mark.hazard("two patients are aligned")
def test_bodies_that_differ_are_refused_where_no_identifier_says_that_they_are_one(one, other, named):
    stacks = pair(one, other, patient="***")
    message = refusal(*stacks, mode="allow_unidentified")
    assert named in message
    assert "PANREG_PATIENT_CONFLICT=warn" in message
    warnings = told(*stacks, mode="allow_unidentified", conflict="warn")
    assert any(named in warning for warning in warnings)
    for value in (*one.values(), *other.values()):
        assert str(value) not in message + "".join(warnings)


def test_bodies_that_differ_much_are_a_warning_where_an_identifier_says_that_they_are_one():
    assert told(*pair({"PatientWeight": 70}, {"PatientWeight": 80})) == ()
    for one, other in (({"PatientWeight": 60}, {"PatientWeight": 85}), ({"PatientSize": 1.6}, {"PatientSize": 1.75})):
        (warning,) = told(*pair(one, other))
        assert next(iter(one)) in warning
    assert told(*pair({"PatientName": "Low^Jane"}, {"PatientName": "Low^J."})) == ()  # names are misspelt


@pytest.mark.parametrize(("one", "other"), [(100, 112), (20, 28)])
def test_a_weight_that_differs_much_in_kg_or_as_a_share_alone_is_no_doubt_of_an_identifier(one, other):
    warnings = told(*pair({"PatientWeight": one}, {"PatientWeight": other}))
    assert not any("over" in warning for warning in warnings)


@pytest.mark.parametrize(("years", "doubted"), [(3, False), (4, True), (0, False), (-1, True)])
def test_ages_may_be_two_years_off_what_passed_between_the_studies_and_no_more(years, doubted):
    """A year and five days."""
    warnings = told(*pair({"PatientAge": f"{40 + years:03d}Y"}, {"PatientAge": "040Y"}))
    assert [("PatientAge by over 2 years" in warning) for warning in warnings] == [True] * doubted


@pytest.mark.parametrize(("born", "counts"), [("19001231", False), ("19010101", True)])
def test_birth_dates_count_from_the_twentieth_century_on(born, counts):
    stacks = pair({"PatientBirthDate": born}, {"PatientBirthDate": "19700101"})
    if counts:
        assert "differ in PatientBirthDate" in refusal(*stacks)
    else:
        assert told(*stacks) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"PatientWeight": 50}, {"PatientWeight": 95}),
        ({"PatientSize": 1.5}, {"PatientSize": 1.9}),
        ({"PatientAge": "034Y"}, {"PatientAge": "061Y"}),
    ],
)
@pytest.mark.hazard("two patients are aligned")
def test_another_name_and_another_body_are_refused_in_spite_of_one_patient_id(one, other):
    stacks = pair(one | {"PatientName": "Roe^Mary"}, other | {"PatientName": "Poe^Anna"}, patient="7")
    message = refusal(*stacks)
    for named in (*one, "PatientName", "PANREG_PATIENT_CONFLICT=warn"):
        assert named in message
    (warning,) = told(*stacks, conflict="warn")
    assert next(iter(one)) in warning
    for value in ("Roe", "Poe", *one.values(), *other.values()):
        assert str(value) not in message + warning
    masked = pair(one | {"PatientName": "Anonymous"}, other | {"PatientName": "Poe^Anna"}, patient="7")
    assert told(*masked) == (warning,)


def test_a_new_name_alone_makes_no_other_patient():
    married = pair({"PatientName": "Roe^Mary"}, {"PatientName": "Poe^Mary", "PatientWeight": 71}, PatientWeight=78)
    assert all("PatientName" not in warning for warning in told(*married))


def test_what_one_body_may_do_is_accepted_without_an_identifier():
    growing = pair({"PatientSize": 1.1, "PatientWeight": 20}, {"PatientSize": 1.0, "PatientWeight": 17}, patient="***")
    assert len(told(*growing, mode="allow_unidentified")) == 1
    aged = pair({"PatientAge": "035Y"}, {"PatientAge": "034Y"}, patient="***")
    assert len(told(*aged, mode="allow_unidentified")) == 1
    unsaid = pair({"PatientWeight": 0, "PatientSize": ""}, {"PatientWeight": 80, "PatientSize": 1.8}, patient="***")
    assert len(told(*unsaid, mode="allow_unidentified")) == 1
    near = pair({"PatientWeight": 70}, {"PatientWeight": 76}, patient="***")
    assert any("5 kg" in warning for warning in told(*near, mode="allow_unidentified"))


@pytest.mark.parametrize("day", ["19000101", "19700101", "00010101"])
def test_ages_are_not_compared_across_a_placeholder_of_a_study_date(day):
    aged = pair({"PatientAge": "035Y", "StudyDate": day}, {"PatientAge": "034Y"})
    assert told(*aged) == ()


@pytest.mark.parametrize("patient", ["PAT-1", "***"])
def test_sex_and_birth_date_refuse_always_and_their_placeholders_never(patient):
    for keyword, one, other in (("PatientSex", "M", "F"), ("PatientBirthDate", "19700101", "19710101")):
        message = refusal(*pair({keyword: one}, {keyword: other}, patient), mode="allow_unidentified")
        assert message == f"Fixed and moving differ in {keyword}: they may be of two patients."
    for keyword, one, other in (("PatientBirthDate", "19700101", "19000101"), ("PatientBirthDate", "19700101", "***")):
        told(*pair({keyword: one}, {keyword: other}, patient), mode="allow_unidentified")
    assert len(told(*pair({"PatientSex": "M"}, {"PatientSex": "***"}, "PAT-1"))) == 0


def test_headers_of_an_archive_without_any_body_are_checked_by_what_they_have():
    blank = dict.fromkeys(("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "PatientWeight"), "")
    assert len(told(*pair(blank, blank, patient="***"), mode="allow_unidentified")) == 1


@pytest.mark.parametrize("value", ["999", "12345", "ANON-17"])
def test_a_trivial_number_identifies_within_one_study_and_tells_two_patients_apart_anywhere(value):
    one, other = pair(patient=value)
    assert "PatientID" in refusal(one, other)
    same = stack("same", study="one", number=4, patient=value)
    assert told(one, same) == ()
    assert "differ in PatientID" in refusal(one, stack("b", study="one", patient="ANON-18"), mode="allow_unidentified")
    assert refusal(*(stack(name, study="one", patient="***") for name in "ab"))
