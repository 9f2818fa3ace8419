import logging
import random
import warnings
from dataclasses import replace

import canaries
import numpy as np
import pytest
from choosing import CURRENT, PRIOR, SETTINGS, THIRD, choose, refused
from header_stacks import ROOT, stack
from panreg.failures import Code, Failure
from panreg.ingest.scan import scan
from panreg.ingest.stacks import find_stacks
from panreg.limits import Limits
from panreg.pairing.choice import choose_pair
from panreg.pairing.dates import day_of
from panreg.pairing.naming import HOW_TO_CHOOSE, describe
from panreg.settings import PairSettings
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from synthetic import FIXED_AFFINE, uid, write_series


# ---------------------------------------------------------------------------------------------------------- series UIDs
def test_series_uids_name_both_images():
    pair = choose(CURRENT, PRIOR, THIRD, fixed_series_uid=PRIOR.series_uid, moving_series_uid=THIRD.series_uid)
    assert (pair.fixed, pair.moving, pair.rule) == (PRIOR, THIRD, "series_uid")


def test_one_series_uid_suffices_where_one_other_candidate_is_left():
    pair = choose(CURRENT, THIRD, moving_series_uid=CURRENT.series_uid)
    assert (pair.fixed, pair.moving) == (THIRD, CURRENT)
    pair = choose(CURRENT, THIRD, fixed_series_uid=CURRENT.series_uid)
    assert (pair.fixed, pair.moving) == (CURRENT, THIRD)
    assert refused(CURRENT, PRIOR, THIRD, fixed_series_uid=PRIOR.series_uid).code is Code.E_AMBIGUOUS


def test_a_series_uid_that_is_not_in_the_input_matches_nothing_even_where_dates_would_decide():
    assert refused(CURRENT, PRIOR, fixed_series_uid="1.2.3").code is Code.E_NO_MATCH


@pytest.mark.property(2)
def test_a_series_of_two_stacks_is_ambiguous_unless_a_rule_tells_which():
    echoes = [stack(f"echo{n}", series="echoes", EchoNumbers=n) for n in (1, 2)]
    uids = {"fixed_series_uid": echoes[0].series_uid, "moving_series_uid": CURRENT.series_uid}
    assert refused(*echoes, CURRENT, **uids).code is Code.E_AMBIGUOUS
    pair = choose(*echoes, CURRENT, **uids, series={"fixed": {"EchoNumbers": 2}})
    assert (pair.fixed, pair.moving) == (echoes[1], CURRENT)
    assert refused(*echoes, CURRENT, **uids, series={"fixed": {"EchoNumbers": 3}}).code is Code.E_NO_MATCH


def test_where_the_only_image_is_damaged_the_sentence_says_how():
    message = refused(stack("bad", refusal=Failure(Code.E_UID_COLLISION, "Series 3: two studies."))).message
    assert "holds 1 image stack" in message
    assert "That one is damaged: Series 3: two studies." in message


def test_one_series_uid_for_both_images_is_the_same_image_twice():
    uids = {"fixed_series_uid": CURRENT.series_uid, "moving_series_uid": CURRENT.series_uid}
    assert refused(CURRENT, **uids).code is refused(CURRENT, PRIOR, **uids).code is Code.E_SAME
    assert refused(CURRENT, fixed_series_uid=CURRENT.series_uid).code is Code.E_NO_INPUT


def test_where_there_is_no_pair_the_sentence_says_what_was_left_out():
    with pytest.raises(Failure) as info:
        choose_pair([CURRENT], SETTINGS, ROOT, {"not_dicom": 2, "deflated": 40})
    assert info.value.code is Code.E_NO_INPUT
    assert (
        "Files that were left out: deflated: 40, not dicom: 2. Deflated files must be stored in" in info.value.message
    )


# ---------------------------------------------------------------------------------------------------------------- rules
NORMALISED = stack("norm", number=6, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"], SeriesDescription="T1 Head norm")


@pytest.mark.parametrize(
    "rule",
    [
        {"SeriesDescription": "NORM$"},
        {"ImageType": "norm"},
        {"ImageType": ["norm", "PRIMARY"]},
        {"ImageType": ["PRIMARY", "!OTHER"]},
        {"SeriesNumber": {"min": 5.5, "max": 6}},
        {"SeriesNumber": {"min": 4}},
        {"SeriesNumber": 6},
        {"Modality": "^MR$", "SeriesNumber": 6},
    ],
)
def test_rules_tell_series_apart_in_the_selectors_vocabulary(rule):
    for stacks in ([NORMALISED, CURRENT], [CURRENT, NORMALISED]):
        pair = choose(*stacks, series={"moving": rule})
        assert (pair.fixed, pair.moving, pair.rule) == (CURRENT, NORMALISED, "series_rules")


@pytest.mark.parametrize("condition", ["", ".*", ["!ANY"], {"min": -1e9}, 0])
@pytest.mark.parametrize("keyword", ["ContrastBolusAgent", "Laterality", "StationName"])
def test_an_absent_or_empty_attribute_never_matches(keyword, condition):
    stacks = [stack("a", Laterality=""), stack("b", Laterality="")]
    assert refused(*stacks, series={"fixed": {keyword: condition}}).code is Code.E_NO_MATCH


def test_the_match_for_fixed_is_removed_before_moving_is_sought():
    rules = {"fixed": {"SeriesNumber": 3}, "moving": {"SeriesNumber": {"max": 4}}}
    pair = choose(CURRENT, PRIOR, THIRD, series=rules)
    assert (pair.fixed, pair.moving) == (CURRENT, PRIOR)


def test_one_rule_leaves_the_other_image_to_the_only_other_candidate():
    assert choose(CURRENT, THIRD, series={"fixed": {"SeriesNumber": 5}}).moving is CURRENT
    assert refused(CURRENT, PRIOR, THIRD, series={"fixed": {"SeriesNumber": 5}}).code is Code.E_AMBIGUOUS


def test_a_rule_that_matches_several_or_none_is_refused_even_where_dates_would_decide():
    assert refused(CURRENT, PRIOR, series={"fixed": {"Modality": "MR"}}).code is Code.E_AMBIGUOUS
    assert refused(CURRENT, PRIOR, series={"fixed": {"Modality": "CT"}}).code is Code.E_NO_MATCH


# ---------------------------------------------------------------------------------------------------------------- dates
def test_of_two_studies_the_later_is_fixed_or_the_prior_by_order():
    pair = choose(PRIOR, CURRENT)
    assert (pair.fixed, pair.moving, pair.rule) == (CURRENT, PRIOR, "dates")
    assert choose(PRIOR, CURRENT, order="prior_is_fixed").fixed is PRIOR


def test_the_acquisitions_day_counts_before_the_studys():
    moment = {"AcquisitionDateTime": "20200101235959.5+0100", "AcquisitionDate": ""}
    first = stack("first", study="one", date="20240101", **moment)
    second = stack("second", study="two", date="20240101", AcquisitionDate="20210101")
    assert choose(first, second).fixed is second
    again = stack("again", study="one", date="20240101", AcquisitionDate="20200101", SeriesDate="20250101")
    assert choose(again, second).fixed is second  # a series made anew later is no later image


PLACEHOLDERS = ["19000101", "00010101", "18581117", "19010101", "19040101", "19700101", "19800101", "99991231", "***"]


@pytest.mark.parametrize("day", PLACEHOLDERS)
@pytest.mark.parametrize("keyword", ["AcquisitionDate", "AcquisitionDateTime"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.hazard("the wrong image moves")
def test_a_placeholder_s_day_is_none_and_the_next_counts(keyword, day):
    dates = {"date": "20240110", "AcquisitionDate": ""}
    without = stack("without", study="one", **(dates | {keyword: f"{day}101500" if "Time" in keyword else day}))
    assert day_of(without).isoformat() == "2024-01-10"
    for stacks in ([PRIOR, without], [without, PRIOR]):
        assert choose(*stacks, order="prior_is_fixed").fixed is PRIOR
    assert day_of(stack("a", study="two", date=day)) is None
    assert refused(CURRENT, stack("none", study="two", date=day)).code is Code.E_AMBIGUOUS


@pytest.mark.parametrize(
    ("first", "opposite"),
    [({"AcquisitionDate": "20220101"}, "StudyDate"), ({"AcquisitionDateTime": "20220101101500"}, "AcquisitionDate")],
)
@pytest.mark.hazard("the wrong image moves")
@pytest.mark.property(2)
def test_dates_that_contradict_each_other_are_refused(first, opposite):
    odd = stack("odd", study="one", date="20240110", number=3, **first)
    counted = " and ".join(sorted({*first, "AcquisitionDate"}))
    sentence = (
        f"By {opposite} another of the two image stacks (series 3, MR, 4 slices; series 4, MR, 4 slices) is the "
        f"earlier than by {counted}: {HOW_TO_CHOOSE}."
    )
    for stacks in ([odd, PRIOR], [PRIOR, odd]):
        assert (refused(*stacks).code, refused(*stacks).message) == (Code.E_AMBIGUOUS, sentence)
    uids = {"fixed_series_uid": odd.series_uid, "moving_series_uid": PRIOR.series_uid}
    assert choose(odd, PRIOR, **uids).fixed is odd


def test_a_study_that_began_before_midnight_contradicts_nothing():
    night = stack("night", study="one", date="20240110", AcquisitionDate="20240111", SeriesDate="20240111")
    for day, later in (("20240112", True), ("20240110", False), ("20240109", False)):
        other = stack("other", study="two", date=day)
        assert (choose(night, other).fixed is other) is later


@pytest.mark.parametrize(
    "second",
    [
        {"study": "two", "date": "20240110"},  # the same day, whatever the time
        {"study": "one", "date": "20230105"},  # one study
        {"study": "two", "date": ""},
        {"study": "two", "date": "", "AcquisitionDateTime": "2023"},  # no full day
        {"study": "two", "date": "", "AcquisitionDateTime": "20231345"},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.hazard("the wrong image moves")
@pytest.mark.property(2)
def test_equal_days_one_study_and_an_absent_date_are_never_guessed(second):
    other = stack("second", AcquisitionTime="235900", **second)
    for stacks in ([CURRENT, other], [other, CURRENT]):
        assert refused(*stacks).code is Code.E_AMBIGUOUS


def test_three_dated_candidates_are_ambiguous():
    assert refused(CURRENT, PRIOR, stack("x", study="three", date="20220101")).code is Code.E_AMBIGUOUS


# ----------------------------------------------------------------------------------------------------------- candidates
def test_fewer_than_two_candidates_are_no_input_and_the_message_tells_of_grouping():
    thin, localizer = stack("thin", slices=3), stack("scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    own = stack("own", study="two", date="20230105", ImageType=["DERIVED", "PRIMARY", "REGISTERED"])
    failure = refused(CURRENT, thin, localizer, own)
    assert failure.code is Code.E_NO_INPUT
    assert "holds 1 image stack" in failure.message
    assert "one job" in failure.message
    assert refused().code is Code.E_NO_INPUT


def test_the_default_needs_sixteen_slices():
    stacks = [stack("a", slices=16), stack("b", study="two", date="20230105", slices=15)]
    with pytest.raises(Failure) as info:
        choose_pair(stacks, PairSettings(), ROOT)
    assert info.value.code is Code.E_NO_INPUT


def test_a_series_below_min_slices_is_named_as_such():
    thin = stack("thin", study="two", date="20230105", number=8, slices=3)
    failure = refused(CURRENT, thin)
    assert failure.code is Code.E_NO_INPUT
    assert "below 4 slices, PANREG_MIN_SLICES: series 8, MR, 3 slices" in failure.message
    named = refused(CURRENT, THIRD, thin, moving_series_uid=thin.series_uid)
    assert named.code is Code.E_TOO_FEW
    assert "PANREG_MIN_SLICES: series 8, MR, 3 slices" in named.message
    assert named.message.startswith("The moving image")


def test_a_folder_or_a_rule_that_holds_a_thin_series_alone_says_so_and_beside_a_whole_one_nothing():
    whole, other = stack("w", number=3, folder="fixed"), stack("o", number=4, folder="moving")
    thin = stack("thin", number=8, slices=3, folder="fixed")
    assert choose(whole, other, thin).fixed is whole
    assert refused(other, stack("o2", number=5, folder="moving"), thin).code is Code.E_TOO_FEW
    loose, left, right = stack("l", number=8, slices=3), stack("a", number=3), stack("b", number=4)
    assert refused(left, right, loose, series={"fixed": {"SeriesNumber": 8}}).code is Code.E_TOO_FEW


def test_a_damaged_stack_stays_a_candidate_and_fails_with_its_own_code_when_chosen():
    damaged = stack("bad", study="two", date="20230105", refusal=Failure(Code.E_MISSING_SLICES, "2 slices missing."))
    assert refused(CURRENT, damaged).code is Code.E_MISSING_SLICES
    assert refused(CURRENT, PRIOR, damaged).code is Code.E_AMBIGUOUS  # and doesn't leave the other two to the dates
    uids = {"fixed_series_uid": CURRENT.series_uid, "moving_series_uid": PRIOR.series_uid}
    assert choose(CURRENT, PRIOR, damaged, **uids).moving is PRIOR


def test_different_modalities_match_only_if_allowed():
    ct = stack("ct", study="two", date="20230105", modality="CT")
    assert refused(CURRENT, ct).code is Code.E_NO_MATCH
    assert choose(CURRENT, ct, allow_cross_modality=True).moving is ct


def test_a_different_laterality_is_a_warning():
    left, right = stack("l", Laterality="L"), stack("r", study="two", date="20230105", Laterality="R")
    assert any("Laterality" in warning for warning in choose(left, right).warnings)
    assert not choose(CURRENT, PRIOR).warnings


def test_text_burned_into_the_pixels_is_a_warning():
    shown = stack("r", study="two", date="20230105", BurnedInAnnotation="YES")
    (warning,) = choose(CURRENT, shown).warnings
    assert warning.startswith("The moving series (number 3) has text burned into its pixels")
    assert "report.html" in warning


# -------------------------------------------------------------------------------------------------------------- patient
@pytest.mark.parametrize(
    ("keyword", "one", "other"),
    [
        ("PatientID", "PAT-1", "PAT-2"),
        ("PatientID", "pat-1", "PAT-1"),
        ("IssuerOfPatientID", "HOSPITAL A", "HOSPITAL B"),
        ("PatientBirthDate", "19700101", "19700102"),
        ("PatientSex", "F", "M"),
    ],
)
@pytest.mark.parametrize("mode", ["strict", "allow_unidentified"])
@pytest.mark.parametrize("by", ["dates", "series_uid"])
@pytest.mark.hazard("two patients are aligned")
@pytest.mark.property(1)
def test_different_patients_are_never_registered(keyword, one, other, mode, by):
    first, second = stack("first", **{keyword: one}), stack("second", study="two", date="20230105", **{keyword: other})
    uids = {"fixed_series_uid": first.series_uid, "moving_series_uid": second.series_uid} if by == "series_uid" else {}
    failure = refused(first, second, patient_check=mode, **uids)
    assert failure.code is Code.E_PATIENT
    assert failure.code.exit_code == 20
    assert failure.message == f"Fixed and moving differ in {keyword}: they may be of two patients."  # no value


@pytest.mark.hazard("two patients are aligned")
def test_one_image_of_another_patient_inside_a_stack_is_enough():
    mixed = stack("mixed", study="two", date="20230105")
    mixed.frames[2].header.PatientSex = "M"
    assert refused(CURRENT, mixed).code is Code.E_PATIENT


def test_a_stack_of_two_patients_is_refused_as_such():
    mixed = stack("mixed", study="two", date="20230105", refusal=Failure(Code.E_TWO_PATIENTS, "Two patients."))
    mixed.frames[2].header.PatientID = "PAT-2"
    assert refused(CURRENT, mixed).code is Code.E_TWO_PATIENTS


def test_another_patient_is_told_before_a_damaged_stack():
    broken = stack("b", "two", "20230105", patient="PAT-2", refusal=Failure(Code.E_NO_GEOMETRY, "No geometry."))
    assert refused(CURRENT, broken).code is Code.E_PATIENT


def test_padding_and_what_only_one_image_tells_make_no_other_patient():
    other = stack("o", study="two", date="20230105", patient=" PAT-1 ", PatientBirthDate="", IssuerOfPatientID="A")
    assert choose(CURRENT, other).fixed is CURRENT


@pytest.mark.parametrize("identified", ["", "PAT-1", "***", "ANON"])
def test_an_absent_patient_id_is_refused_unless_unidentified_images_are_allowed(identified):
    first, second = stack("a", patient=identified), stack("b", study="two", date="20230105", patient="")
    assert refused(first, second).code is Code.E_PATIENT
    assert any("PatientID" in warning for warning in choose(first, second, patient_check="allow_unidentified").warnings)
    other_sex = stack("c", study="two", date="20230105", patient="", PatientSex="F")
    assert refused(first, other_sex, patient_check="allow_unidentified").code is Code.E_PATIENT


# ------------------------------------------------------------------------------------------------------------ any order
CASES = {
    "dates": ([CURRENT, PRIOR], {}),
    "uids": ([CURRENT, PRIOR, THIRD], {"fixed_series_uid": THIRD.series_uid, "moving_series_uid": PRIOR.series_uid}),
    "rules": ([CURRENT, PRIOR, THIRD], {"series": {"fixed": {"SeriesNumber": 4}, "moving": {"SeriesNumber": 3}}}),
    "equal dates": ([CURRENT, stack("twin", study="two", date="20240110", number=3)], {}),
    "one study": ([CURRENT, THIRD], {}),
    "three": ([CURRENT, PRIOR, THIRD], {}),
    "two stacks in a series": (
        [*(stack(f"e{n}", series="e", number=8, EchoNumbers=n) for n in (1, 2)), CURRENT],
        {"fixed_series_uid": uid("series", "e"), "moving_series_uid": CURRENT.series_uid},
    ),
    "another patient": ([CURRENT, stack("other", study="two", date="20230105", patient="PAT-2")], {}),
}


def answer(stacks, settings):
    """What came out, in words that no object's identity enters."""
    try:
        pair = choose(*stacks, **settings)
    except Failure as failure:
        return failure.code, failure.message
    return pair.rule, pair.fixed.sop_instance_uids, pair.moving.sop_instance_uids, pair.warnings


@pytest.mark.parametrize("case", CASES)
@pytest.mark.hazard("the wrong image moves")
@pytest.mark.property(2)
def test_shuffled_and_renamed_files_get_the_same_answer(case):
    stacks, settings = CASES[case]
    expected = answer(stacks, settings)
    for seed in range(20):
        chance = random.Random(seed)
        renamed = [
            replace(s, frames=tuple(replace(f, path=ROOT / f"{chance.random()}.dcm") for f in s.frames)) for s in stacks
        ]
        chance.shuffle(renamed)
        assert answer(renamed, settings) == expected


def test_the_message_of_ambiguity_lists_what_a_person_can_find_and_no_description():
    secret = [stack(f"s{n}", number=n, SeriesDescription="Doe^Jane", Modality="MR") for n in (7, 8)]
    message = refused(*secret).message
    assert "series 7, MR, 4 slices" in message
    assert "series 8, MR, 4 slices" in message
    assert "Doe" not in message
    assert "Doe" not in describe(stack("odd", Modality="DOE JANE"))


def test_renamed_moved_and_shuffled_files_get_the_same_answer_from_the_scan_on(tmp_path):
    pixels = np.ones((4, 5, 6))
    paths = write_series(tmp_path / "in", pixels, FIXED_AFFINE, name="current", date="20240110")
    paths += write_series(tmp_path / "in", pixels, FIXED_AFFINE, name="prior", date="20230105")
    answers = set()
    for seed in range(20):
        chance = random.Random(seed)
        chance.shuffle(paths)
        places = [tmp_path / "in" / str(chance.randrange(3)) / f"{chance.random()}" for _ in paths]
        for path, place in zip(paths, places):
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
        paths = places
        answers.add(answer(find_stacks(scan(tmp_path / "in", Limits())), {"root": tmp_path / "in"}))
    ((rule, fixed, moving, _),) = answers
    assert (rule, fixed[0], moving[0]) == ("dates", uid("current", 0), uid("prior", 0))


@pytest.mark.filterwarnings("ignore:The value length")
def test_malformed_identifying_values_are_told_nowhere(tmp_path, capfd, caplog):
    def malformed(ds, k):
        canaries.plant(ds)
        for keyword in ("PatientID", "IssuerOfPatientID", "SeriesDescription"):
            ds[keyword] = RawDataElement(Tag(keyword), "LO", 80, canaries.MARK.encode() * 20, 0, False, True)
        for keyword in ("PatientBirthDate", "AcquisitionDate", "SeriesNumber", "Modality"):
            ds[keyword] = RawDataElement(Tag(keyword), "LO", 8, canaries.MARK.encode() * 2, 0, False, True)

    paths = write_series(tmp_path, np.ones((4, 5, 6)), FIXED_AFFINE, name="a", study="s", edit=malformed)
    write_series(tmp_path, np.ones((4, 5, 6)), FIXED_AFFINE, name="b", study="s", edit=malformed)
    assert canaries.MARK.encode() * 20 in paths[0].read_bytes()
    capfd.readouterr()
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _, message = answer(find_stacks(scan(tmp_path, Limits())), {"series": {"fixed": {"SeriesDescription": "a"}}})
    told = [message, caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in said)]
    assert canaries.found("\n".join(told)) == []
    assert not said


# --------------------------------------------------------------------------------------------------------- a real study
def test_two_series_of_a_real_study_are_ambiguous_until_a_rule_or_a_uid_decides(siemens_study, siemens_study_folder):
    stacks = find_stacks(siemens_study)
    volumes = [stack for stack in stacks if len(stack.frames) >= 16]
    (norm,) = [stack for stack in volumes if "NORM" in stack.header.ImageType]
    (plain,) = [stack for stack in volumes if stack is not norm]
    with pytest.raises(Failure) as info:
        choose_pair(stacks, PairSettings(), siemens_study_folder)
    assert info.value.code is Code.E_AMBIGUOUS
    for settings in (
        PairSettings(moving_series_uid=norm.series_uid),
        PairSettings(series={"moving": {"ImageType": ["NORM"]}}),
        PairSettings(series={"fixed": {"ImageType": ["!NORM"]}}),
    ):
        pair = choose_pair(stacks, settings, siemens_study_folder)
        assert (pair.fixed, pair.moving) == (plain, norm)
