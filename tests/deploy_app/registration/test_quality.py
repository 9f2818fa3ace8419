import math

import pytest
import torch
from bundle.metrics import folding_percent
from bundle.plausibility import LIMITS
from bundle.plausibility import verdict as bundle_verdict
from panreg.failures import Code, Failure
from panreg.registration.quality import MEASURES, enforce, page_bounds, suited, verdict, within_one_frame
from panreg.settings import QualityGate, load_settings, variables

GATE = QualityGate(on_failure="fail")
GOOD = {"similarity_before": 0.4, "similarity_after": 0.4}  # each at its limit
GOOD |= {name: getattr(GATE, setting) for setting, name in MEASURES.items()}


def test_a_result_at_its_limits_passes():
    assert verdict(GOOD, GATE) == []
    assert enforce([], GATE) == ()


BEYOND = [("similarity_after", 0.399), ("volume_ratio", 0.99 / GATE.max_volume_ratio), ("volume_ratio", -1.0)]
BEYOND += [
    (name, getattr(GATE, setting) * (0.99 if setting.startswith("min") else 1.01)) for setting, name in MEASURES.items()
]
BEYOND += [(name, math.nan) for name in GOOD]


@pytest.mark.parametrize(("name", "value"), BEYOND)
@pytest.mark.hazard("a poor registration is trusted")
def test_each_broken_limit_is_named_and_alone(name, value):
    broken = verdict(GOOD | {name: value}, GATE)
    assert len(broken) == 1
    assert name in broken[0]


@pytest.mark.parametrize("setting", MEASURES)
def test_each_limit_is_a_setting_that_its_sentence_names(setting):
    (broken,) = verdict(GOOD | {MEASURES[setting]: math.nan}, GATE)
    assert f"(PANREG_QUALITY_{setting.upper()})" in broken
    assert f"PANREG_QUALITY_{setting.upper()}" in variables()
    loose = GATE.model_copy(update={setting: 0.0 if setting.startswith("min") else 1e9})
    value = 1e-9 if setting.startswith("min") else 1e8
    assert verdict(GOOD | {MEASURES[setting]: value}, loose) == []


def test_within_one_frame_of_reference_half_of_the_stretch_is_allowed():
    narrow = within_one_frame(GATE)
    assert narrow == GATE.model_copy(update={"max_stretch": pytest.approx(1.1)})
    (broken,) = verdict(GOOD | {"stretch": 1.15}, narrow)
    assert "stretch is 1.15, above the limit of 1.1" in broken
    assert verdict(GOOD | {"stretch": 1.15}, GATE) == []


def test_limits_that_the_weights_have_of_their_own_take_the_place_of_the_gates():
    gate = suited(GATE, {"foreground_similarity": [0.5, None], "foreground_log_jacobian_sd": [0, 0.52]})
    assert gate == GATE.model_copy(update={"min_similarity": 0.5, "max_log_jacobian_sd": 0.52})
    assert suited(GATE, {}) == GATE


@pytest.mark.parametrize("value", ["0.99", "0.7"])  # the second is the default's
@pytest.mark.parametrize("by", ["environment", "file"])
@pytest.mark.hazard("a poor registration is trusted")
def test_a_limit_that_somebody_set_holds_whatever_limits_the_weights_have(tmp_path, by, value):
    path, environ = tmp_path / "app.yaml", {}
    path.write_text("panreg:\n  quality: {on_failure: fail}\n")
    if by == "file":
        path.write_text(f"panreg:\n  quality: {{min_similarity: {value}}}\n")
    else:
        environ["PANREG_QUALITY_MIN_SIMILARITY"] = value
    gate = within_one_frame(load_settings(path, environ).quality)
    limits = {"foreground_similarity": [0.5, None], "foreground_log_jacobian_sd": [0, 0.52]}
    assert suited(gate, limits).min_similarity == float(value)
    assert suited(gate, limits).max_log_jacobian_sd == 0.52
    assert page_bounds(gate) == {"foreground_similarity": [float(value), None], "stretch": [None, pytest.approx(1.1)]}


def test_the_limits_are_those_that_the_bundle_judges_by():
    bounded = {name: getattr(QualityGate(), setting) for setting, name in MEASURES.items()}
    for name, (low, high) in LIMITS.items():
        assert bounded[name] == (high if math.isfinite(high) else low)
        assert not math.isfinite(low) or not math.isfinite(high) or low == pytest.approx(1 / high)
    assert set(bounded) - set(LIMITS) == {"grid_error_max_mm", "grid_error_p99_mm"}


OF_THE_BUNDLE = [("folding_percent", 0.1), *(one for one in BEYOND if not one[0].startswith("grid_error"))]


@pytest.mark.parametrize(("name", "value"), OF_THE_BUNDLE)
def test_a_result_passes_where_the_bundle_calls_it_plausible(name, value):
    quality = GOOD | {name: value}
    assert (bundle_verdict(quality)["verdict"] == "plausible") == (verdict(quality, GATE) == [])


@pytest.mark.parametrize("name", GOOD)
def test_a_number_that_was_not_measured_meets_no_limit(name):
    (broken,) = verdict({k: v for k, v in GOOD.items() if k != name}, GATE)
    assert name in broken
    assert "could not be measured" in broken
    assert "nan" not in broken


def test_a_broken_limit_fails_or_is_flagged_as_the_gate_says():
    broken = verdict(GOOD | {"folding_percent": 3, "grid_error_max_mm": 1.7}, GATE)
    with pytest.raises(Failure, match=r"folding_percent is 3, .*grid_error_max_mm is 1.7") as info:
        enforce(broken, GATE)
    assert info.value.code is Code.E_QUALITY
    assert info.value.code.exit_code == 50
    flagged = enforce(broken, QualityGate(on_failure="flag"))
    assert len(flagged) == 2
    assert all(sentence.startswith("Quality: ") for sentence in flagged)


@pytest.mark.property(12)
def test_a_fold_in_a_field_trips_the_gate_in_both_modes():
    ddf = torch.zeros(1, 3, 12, 12, 12)
    smooth = GOOD | {"folding_percent": folding_percent(ddf)}
    ddf[:, 0, 4:6] = 3.0  # two planes pulled beyond the next ones
    folded = GOOD | {"folding_percent": folding_percent(ddf)}
    assert verdict(smooth, GATE) == []
    (broken,) = verdict(folded, GATE)
    with pytest.raises(Failure, match="folding_percent is"):
        enforce([broken], GATE)
    assert enforce([broken], QualityGate(on_failure="flag")) == (f"Quality: {broken}",)
