import math

import pytest
import torch
from bundle.metrics import folding_percent
from failures import Code, Failure
from quality import enforce, verdict
from settings import QualityGate

GATE = QualityGate(on_failure="fail", max_folding_percent=0.5, max_displacement_mm=60, max_grid_error_mm=0.5)
GOOD = {
    **{"similarity_before": 0.4, "similarity_after": 0.4, "folding_percent": 0.5},
    **{"max_displacement_mm": 60.0, "grid_error_max_mm": 0.5, "grid_error_p99_mm": 0.2},
}


def test_a_result_at_its_limits_passes():
    assert verdict(GOOD, GATE) == []
    assert enforce([], GATE) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("similarity_after", 0.399),
        ("folding_percent", 0.51),
        ("max_displacement_mm", 60.1),
        ("grid_error_max_mm", 0.51),
        ("grid_error_p99_mm", 0.21),
        *((name, math.nan) for name in GOOD),
    ],
)
def test_each_broken_limit_is_named_and_alone(name, value):
    broken = verdict(GOOD | {name: value}, GATE)
    assert len(broken) == 1
    assert name in broken[0]


@pytest.mark.parametrize("name", GOOD)
def test_a_number_that_was_not_measured_meets_no_limit(name):
    assert len(verdict({k: v for k, v in GOOD.items() if k != name}, GATE)) == 1


def test_a_broken_limit_fails_or_is_flagged_as_the_gate_says():
    broken = verdict(GOOD | {"folding_percent": 3, "grid_error_max_mm": 0.7}, GATE)
    with pytest.raises(Failure, match=r"folding_percent is 3, .*grid_error_max_mm is 0.7") as info:
        enforce(broken, GATE)
    assert info.value.code is Code.E_QUALITY
    assert info.value.code.exit_code == 50
    flagged = enforce(broken, QualityGate(on_failure="flag"))
    assert len(flagged) == 2
    assert all(sentence.startswith("Quality: ") for sentence in flagged)


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
