import math
import re

import pytest
from bundle.plausibility import GAIN, LIMITS, OPTIONAL, verdict
from bundle.report import judge, read_bounds
from bundle.report.judgement import WORDS

GOOD = {name: low if low > 0 else high for name, (low, high) in LIMITS.items()}
GOOD |= {"similarity_before": 0.4, "similarity_after": 0.5}
LOOK = {"folding_percent": (None, 0.1), "foreground_similarity": (0.6, None)}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [-1e6, 1e6, math.nan])
def test_a_registration_failed_where_the_verdict_is_not_plausible_and_nowhere_else(name, value):
    quality = GOOD | {name: value}
    failed = judge(quality, LIMITS, {}).level == "failed"
    assert failed == (verdict(quality)["verdict"] == "not plausible")


DERIVED = {"similarity_gain": 0.1, "aligned_share": 0.8, "dice_after": 0.7}
ALL = GOOD | {"similarity_aligned": 0.4, "dice_after": 0.7}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("bounds", [(0.9, math.inf), (-math.inf, -0.9), (-math.inf, math.inf)])
@pytest.mark.parametrize("quality", [ALL, GOOD, ALL | {"dice_after": math.nan}, GOOD | {"similarity_before": math.nan}])
@pytest.mark.parametrize("dropped", [0.0, 1.0])
def test_the_verdict_agrees_with_the_judgement_whatever_is_bounded(name, bounds, quality, dropped):
    quality, limits = quality | {"field_dropped": dropped}, {**LIMITS, name: bounds}
    judgement, said = judge(quality, limits, {}), verdict(quality, limits)
    assert (judgement.level == "failed") == (said["verdict"] == "not plausible")
    assert len(said["limits_missed"]) == sum(finding.level == "failed" for finding in judgement.findings)


@pytest.mark.parametrize(("name", "value"), DERIVED.items())
def test_numbers_beside_the_table_of_limits_are_bounded_where_they_are_there_alone(name, value):
    beyond = {name: (value + 0.05, math.inf)}
    (missed,) = verdict(ALL, beyond)["limits_missed"]
    assert missed == f"{name} is {value:.4g}, below {value + 0.05:.4g}"
    assert verdict(ALL, {name: (value - 0.05, math.inf)})["verdict"] == "plausible"
    if name != "similarity_gain":
        assert verdict(GOOD, beyond) == {"verdict": "plausible", "limits_missed": []}


@pytest.mark.parametrize("name", WORDS)
def test_each_bound_has_a_sentence_of_its_own(name):
    quality = ALL | {"similarity_aligned": 0.25, name: 0.5}
    sentences = [judge(quality, {}, {name: b}).findings[0].sentence for b in [(0.6, None), (None, 0.4)]]
    assert sentences[0].endswith("; at least 0.6 is expected)")
    assert sentences[1].endswith("; at most 0.4 is expected)")
    assert sentences[0].split("(")[0] != sentences[1].split("(")[0]


@pytest.mark.parametrize(("gain", "less_alike"), [(0.379, False), (-0.2, True)])
def test_images_are_told_to_be_less_alike_than_before_where_they_are(gain, less_alike):
    quality = GOOD | {"similarity_after": 0.4 + gain}
    said = judge(quality, {"similarity_gain": (0.9, None)}, {}).findings[0].sentence
    assert said.startswith("The images are less alike than before.") == less_alike
    assert f"similarity_gain is {gain:.4g}; at least 0.9 is expected" in said


def test_images_less_alike_than_before_failed():
    quality = GOOD | {"similarity_after": 0.3}
    assert judge(quality, LIMITS, {}).findings[0].measure == "similarity_gain"
    assert verdict(quality)["verdict"] == "not plausible"


def test_between_both_bounds_somebody_should_look():
    judgement = judge(GOOD | {"folding_percent": 0.3}, LIMITS, LOOK)
    assert judgement.level == "look here"
    assert [finding.measure for finding in judgement.findings] == ["folding_percent"]
    assert "0.3" in judgement.findings[0].sentence
    assert "at most 0.1" in judgement.findings[0].sentence
    assert "Jacobian" in judgement.findings[0].look


@pytest.mark.parametrize("name", sorted({*LIMITS, "similarity_before", "similarity_after"}))
def test_a_number_that_could_not_be_measured_is_told_as_no_more_than_that(name):
    for quality in (GOOD | {name: math.nan}, {key: value for key, value in GOOD.items() if key != name}):
        (finding,) = judge(quality, LIMITS, {}).findings
        measure = "similarity_gain" if name.startswith("similarity") else name
        assert finding.sentence == f"{measure} could not be measured, so that nothing is known of it."
        (missed,) = verdict(quality)["limits_missed"]
        assert re.fullmatch(rf".*{name}.* was not measurable", missed)


def test_what_failed_comes_first_and_is_said_once():
    judgement = judge(
        GOOD | {"folding_percent": 3.0, "foreground_similarity": 0.65}, LIMITS, {**LOOK, "stretch": (None, 1.1)}
    )
    assert judgement.level == "failed"
    assert [f.measure for f in judgement.findings] == ["foreground_similarity", "folding_percent", "stretch"]


def test_within_all_bounds_it_is_good():
    judgement = judge(GOOD | {"folding_percent": 0.0}, LIMITS, LOOK)
    assert (judgement.level, judgement.findings) == ("good", ())


def test_a_dropped_field_is_to_be_looked_at():
    assert judge(GOOD | {"folding_percent": 0.0, "field_dropped": 1.0}, LIMITS, LOOK).level == "look here"


def test_overlap_counts_where_there_are_labels_alone():
    bounds = {"dice_after": (0.5, None)}
    assert judge(GOOD, {}, bounds).level == "good"
    assert judge(GOOD | {"dice_after": 0.4}, {}, bounds).level == "look here"
    assert judge(GOOD | {"dice_after": math.nan}, {}, bounds).level == "look here"


@pytest.mark.parametrize(
    ("aligned", "dropped", "level"),
    [(0.3, 0.0, "look here"), (0.25, 0.0, "good"), (0.3, 1.0, None), (None, 0.0, "good")],
)
def test_images_that_the_alignment_alone_made_as_alike_may_be_of_one_person(aligned, dropped, level):
    quality = GOOD | {"folding_percent": 0.0, "field_dropped": dropped}
    quality |= {} if aligned is None else {"similarity_aligned": aligned}
    found = judge(quality, LIMITS, {"aligned_share": (None, 0.56)})
    named = [finding for finding in found.findings if finding.measure == "aligned_share"]
    assert bool(named) == (level == "look here")
    assert level is None or found.level == level
    assert not named or "--same_person" in named[0].sentence


def test_every_measure_with_a_limit_has_words():
    assert LIMITS.keys() | GAIN.keys() | set(OPTIONAL) == WORDS.keys()


def test_bounds_are_read_as_json_has_them():
    assert read_bounds({"stretch": [None, 1.2]}) == {"stretch": (-math.inf, 1.2)}


@pytest.mark.parametrize("bounds", [{"strech": [0, 1]}, {"stretch": [2, 1]}, {"stretch": [1]}, {"stretch": "ab"}])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="threshold"):
        read_bounds(bounds)
