"""What the stages of a registration are expected to take."""

import json

import numpy as np
import pytest
from bundle.spatial import Grid
from bundle.stages import MEETING_STEPS, STAGES, _network_sides, expected_seconds
from monai.bundle import ConfigParser


def seconds(**settings):
    return expected_seconds(1.3, 1.3, 5.3, {"affine": "affine"} | settings)


def test_every_stage_is_expected_to_take_some_time():
    assert tuple(seconds()) == STAGES
    assert min(seconds().values()) > 0


@pytest.mark.parametrize(
    ("settings", "stage", "factor"),
    [
        ({"passes": 2}, "network", 2),
        ({"cascades": 3}, "network", 3),
        ({"same_person": True}, "network", 1.4),  # docs/accuracy.md: what changed is refined
        ({"symmetric": True}, "network", 7.6),  # four passes, halves of fields, three steps both ways
        ({"optimise": 10}, "network", 4),  # docs/accuracy.md: a step takes three tenths of a pass
    ],
)
def test_more_work_is_expected_to_take_longer(settings, stage, factor):
    assert seconds(**settings)[stage] == pytest.approx(factor * seconds()[stage])


def test_headers_need_no_alignment_and_an_inverse_takes_its_time():
    assert seconds(affine="none")[STAGES[0]] < seconds(affine="rigid")[STAGES[0]] < seconds()[STAGES[0]]
    assert seconds(inverse=True)[STAGES[2]] > seconds()[STAGES[2]]


def test_more_runs_of_the_network_are_expected_after_it():
    network = seconds()["network"]
    for settings, runs in (({"expected_error": True}, 3), ({"refilled": True}, 2)):
        assert seconds(**settings)[STAGES[2]] - seconds()[STAGES[2]] == pytest.approx(runs * network)
        assert seconds(**settings)["network"] == network
    assert seconds(optimise=10)["network"] == pytest.approx(4 * network)


def test_the_networks_grid_is_guessed_with_its_margin_and_multiple():
    fixed = Grid((90, 120, 120), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert _network_sides(fixed, 4 / 3) == (144, 192, 192)
    assert _network_sides(fixed, None) == (96, 128, 128)


def test_the_steps_where_both_ways_meet_are_those_of_the_inference_workflow(bundle_root):
    config = json.loads((bundle_root / "configs" / "inference.json").read_text())
    assert f"max(@optimise, {MEETING_STEPS}) if @symmetric" in config["inferer"]["optimiser"]["iterations"]


@pytest.mark.parametrize(("asked", "symmetric", "done"), [(0, False, 0), (0, True, MEETING_STEPS), (7, True, 7)])
def test_the_settings_noted_with_a_result_say_how_many_steps_were_optimised(bundle_root, asked, symmetric, done):
    parser = ConfigParser()
    parser.read_config(str(bundle_root / "configs" / "inference.json"))
    parser["optimise"], parser["symmetric"] = asked, symmetric
    assert parser.get_parsed_content("settings#optimise") == done
