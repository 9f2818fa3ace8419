import math

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from panreg.objects.quality_report import MEASUREMENTS, QUALITY, write_quality_report
from panreg.objects.required_attributes import missing
from panreg.settings import Settings
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    provenance_of,
    registration_of,
    stack_of,
    write_phantom_pair,
)

NUMBERS = {
    **{"similarity_before": 0.6123456789012345, "similarity_aligned": 0.7, "similarity_after": 0.97},
    **{"folding_percent": 1 / 3, "log_jacobian_sd": 0.25, "mean_displacement_mm": 1.5, "max_displacement_mm": 6.2},
    **{"grid_error_mean_mm": 1.25e-5, "grid_error_max_mm": 0.125},
}
UNITS = {"similarity": "1", "folding": "%", "log": "1", "mean": "mm", "max": "mm", "grid": "mm"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    fixed, moving = write_phantom_pair(tmp_path_factory.mktemp("pair"))
    return stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE)


def write(pair, path, numbers=NUMBERS, departures=(), warnings=()):
    registration = registration_of(*pair, np.zeros(MOVING_SHAPE), warnings=warnings)
    return write_quality_report(registration, numbers, departures, provenance_of(*pair), Settings(), path)


def group_of(path):
    (group,) = srread(path).content.get_image_measurement_groups()
    return group


def comments(path):
    items = group_of(path)[0].ContentSequence
    return [str(item.TextValue) for item in items if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"]


def test_every_number_reads_back_with_its_code_and_unit(pair, tmp_path):
    measurements = group_of(write(pair, tmp_path / "report.dcm")).get_measurements()
    read = {item.name.value: item for item in measurements}
    assert len(read) == len(measurements) == len(NUMBERS)
    for name, value in NUMBERS.items():
        item = read[MEASUREMENTS[name][0]]
        assert item.value == pytest.approx(value, rel=1e-10)
        assert item.name.scheme_designator == "99PANREG"
        assert (item.unit.value, item.unit.scheme_designator) == (UNITS[name.split("_")[0]], "UCUM")


def test_codes_and_meanings_fit_their_value_representations():
    assert all(len(code) <= 16 and len(meaning) <= 64 for code, meaning, _ in MEASUREMENTS.values())
    assert len({code for code, _, _ in MEASUREMENTS.values()}) == len(MEASUREMENTS)


@pytest.mark.hazard("growth is read from noise")
def test_every_report_says_what_volume_change_may_not_be_read_from_the_field(pair, tmp_path):
    for departures in ((), ("folding_percent is 3.",)):
        said = comments(write(pair, tmp_path / "report.dcm", departures=departures))
        assert any(comment.startswith("Volume change: ") and "noise" in comment for comment in said)


def test_the_document_is_complete_preliminary_and_unverified(pair, tmp_path):
    ds = pydicom.dcmread(write(pair, tmp_path / "report.dcm"))
    assert ds.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert (ds.CompletionFlag, ds.PreliminaryFlag, ds.VerificationFlag) == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (ds.Modality, ds.SeriesNumber) == ("SR", 907)


def test_all_instances_of_both_images_are_evidence(pair, tmp_path):
    report = srread(write(pair, tmp_path / "report.dcm"))
    fixed, moving = pair
    assert {item[2] for item in report.get_evidence()} == {*fixed.sop_instance_uids, *moving.sop_instance_uids}
    assert {item[0] for item in report.get_evidence(current_procedure_only=True)} == {fixed.study_uid}


def test_the_observer_is_the_device_of_this_version_and_these_weights(pair, tmp_path):
    (context,) = srread(write(pair, tmp_path / "report.dcm")).content.get_observer_contexts()
    assert context.observer_type.meaning == "Device"
    assert context.observer_identifying_attributes.uid == provenance_of(*pair).device_uid


@pytest.mark.property(19)
def test_a_good_result_says_so_and_carries_the_label(pair, tmp_path):
    path = write(pair, tmp_path / "report.dcm")
    (evaluation,) = group_of(path).get_qualitative_evaluations(QUALITY)
    assert (evaluation.name.value, evaluation.value.value) == ("QUALITY", "QUALITY_OK")
    texts = comments(path)
    assert "AI-derived, research use only, not for primary diagnosis" in texts
    assert {"Fixed: MR, series 3, 24 slices", "Moving: MR, series 3, 28 slices"} <= set(texts)
    assert not [text for text in texts if text.startswith(("Limit", "Warning", "Not measurable"))]
    assert "FLAGGED" not in pydicom.dcmread(path).SeriesDescription


@pytest.mark.hazard("a poor registration is trusted")
def test_a_flagged_result_says_which_limit_and_repeats_the_warnings(pair, tmp_path):
    departures, warnings = ["folding is 0.9 %, above 0.5 %"], ("The weights were not trained on this contrast.",)
    path = write(pair, tmp_path / "report.dcm", departures=departures, warnings=warnings)
    (evaluation,) = group_of(path).get_qualitative_evaluations(QUALITY)
    assert evaluation.value.value == "QUALITY_FLAGGED"
    assert "Limit not met: folding is 0.9 %, above 0.5 %" in comments(path)
    assert "Warning: The weights were not trained on this contrast." in comments(path)
    assert pydicom.dcmread(path).SeriesDescription.startswith("FLAGGED")


def test_what_could_not_be_measured_is_said_in_words_and_what_is_absent_is_left_out(pair, tmp_path):
    numbers = {"similarity_before": math.nan, "similarity_after": 0.9}
    path = write(pair, tmp_path / "report.dcm", numbers)
    assert [item.name.value for item in group_of(path).get_measurements()] == ["NCC_AFTER"]
    assert f"Not measurable: {MEASUREMENTS['similarity_before'][1]}" in comments(path)


@pytest.mark.hazard("patient data leaks")
def test_the_text_holds_nothing_of_the_patient(pair, tmp_path):
    document = str(pydicom.dcmread(write(pair, tmp_path / "report.dcm")).ContentSequence)
    for canary in ("Canary", "PAT-1", "19700101", "20240110", "20230105"):
        assert canary not in document


def test_two_runs_write_equal_bytes(pair, tmp_path):
    one, two = (write(pair, tmp_path / name).read_bytes() for name in ("one.dcm", "two.dcm"))
    assert one == two


def test_nothing_that_the_standard_requires_is_missing(pair, tmp_path):
    assert missing(pydicom.dcmread(write(pair, tmp_path / "report.dcm"))) == []


def test_reports_that_say_something_else_have_other_uids(pair, tmp_path):
    """A segmentation more in the input changes no field, but what the report warns of."""
    texts = ((), ("Segmentation 1 was not propagated.",), ())
    reports = [
        pydicom.dcmread(write(pair, tmp_path / f"{n}.dcm", warnings=warnings)) for n, warnings in enumerate(texts)
    ]
    assert reports[0].SOPInstanceUID == reports[2].SOPInstanceUID != reports[1].SOPInstanceUID
    assert reports[0].SeriesInstanceUID == reports[2].SeriesInstanceUID != reports[1].SeriesInstanceUID
