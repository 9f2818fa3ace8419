import json
import math

import pytest
from bundle.plausibility import LIMITS
from bundle.report import judge
from bundle.results import as_thresholds, bounds_of
from bundle.weights import WeightsChoice
from torch import nn


def test_the_limits_of_plausibility_are_those_of_what_failed(tmp_path):
    failed, look_here = bounds_of(str(tmp_path / "model.pt"), {"look_here": {"stretch": [None, 1.1]}})
    assert failed == LIMITS
    assert look_here == {"stretch": (-math.inf, 1.1)}


def test_limits_of_the_weights_come_before_the_shipped_ones(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"limits": {"stretch": [0, 1.6]}}))
    thresholds = {"failed": {"folding_percent": [None, 2]}, "look_here": {"stretch": [None, 1.1]}}
    failed, look_here = bounds_of(str(tmp_path / "model.pt"), thresholds)
    assert failed["stretch"] == (0.0, 1.6)
    assert failed["folding_percent"] == (-math.inf, 2.0)
    assert look_here == {}


def test_a_limit_that_was_asked_for_holds_whatever_the_weights_have_of_their_own(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"limits": {"stretch": [0, 1.6], "folding_percent": [0, 3]}}))
    failed, _ = bounds_of(str(tmp_path / "model.pt"), {"failed": {"stretch": [None, 1.3]}})
    assert failed["stretch"] == (-math.inf, 1.3)
    assert failed["folding_percent"] == (0.0, 3.0)


def test_the_shipped_thresholds_lie_within_the_limits(bundle_root):
    config = json.loads((bundle_root / "configs" / "inference.json").read_text())
    failed, look_here = bounds_of(str(bundle_root / "models" / "model.pt"), config["thresholds"])
    assert look_here
    for name, (low, high) in look_here.items():
        least, greatest = failed.get(name, (-math.inf, math.inf))
        assert least <= low
        assert high <= greatest


def test_bounds_of_the_weights_are_looked_at_unless_asked_for_otherwise(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"look_here": {"aligned_share": [None, 0.5], "stretch": [0, 1.1]}}))
    look_here = bounds_of(str(tmp_path / "model.pt"), {"look_here": {"stretch": [None, 1.3]}})[1]
    assert look_here == {"aligned_share": (-math.inf, 0.5), "stretch": (-math.inf, 1.3)}
    assert bounds_of(str(tmp_path / "other.pt"), {})[1] == {}


ALIKE = {  # what the aligned images of a pair correlate by, and the weights that are taken for one person's
    "two T1 images": ({"contrast_correlation": 0.7, "tissue_correlation": 0.6}, "any_contrast.pt"),
    "T1 and FLAIR": ({"contrast_correlation": 0.5, "tissue_correlation": -0.2}, "any_contrast.pt"),
    "two like scans": ({"contrast_correlation": 0.97, "tissue_correlation": 0.9}, "one_person.pt"),
    "too little shown to tell": ({"contrast_correlation": 0.3, "tissue_correlation": 0.0}, "any_contrast.pt"),
}


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("same_person", [True, False])
@pytest.mark.parametrize(("alike", "of_one_person"), ALIKE.values(), ids=ALIKE)
def test_images_registered_as_two_peoples_may_be_one_persons_whichever_weights_were_taken(
    bundle_root, alike, of_one_person, same_person, enabled
):
    usual = str(bundle_root / "models" / "model.pt")
    choice = WeightsChoice(nn.Identity(), usual, enabled=enabled, same_person=same_person)
    weights = choice.weights_for(alike)
    if enabled and same_person:
        assert weights.endswith(of_one_person)
    elif enabled:
        assert weights.endswith("any_contrast.pt" if alike["tissue_correlation"] < 0 else "model.pt")
    _, look_here = bounds_of(weights, {}, choice)
    assert look_here == ({} if same_person else {"aligned_share": (-math.inf, 0.56)})
    quality = {"similarity_before": 0.3, "similarity_aligned": 0.42, "similarity_after": 0.5622}
    sentences = [f.sentence for f in judge(quality, {}, look_here).findings if f.measure == "aligned_share"]
    assert [sentence.count("--same_person") for sentence in sentences] == ([] if same_person else [1])


def test_what_the_weights_taken_ask_to_be_looked_at_comes_before_what_the_usual_ones_do(tmp_path):
    described = {"across_contrasts": "other.pt", "one_contrast": 0.5, "look_here": {"aligned_share": [None, 0.5]}}
    (tmp_path / "usual.json").write_text(json.dumps(described))
    choice, other = WeightsChoice(nn.Identity(), str(tmp_path / "usual.pt")), str(tmp_path / "other.pt")
    assert bounds_of(other, {}, choice)[1] == {"aligned_share": (-math.inf, 0.5)}
    (tmp_path / "other.json").write_text(json.dumps({"look_here": {"aligned_share": [None, 0.6]}}))
    assert bounds_of(other, {}, choice)[1] == {"aligned_share": (-math.inf, 0.6)}
    asked = {"look_here": {"aligned_share": [None, 0.7]}}
    one = WeightsChoice(nn.Identity(), str(tmp_path / "usual.pt"), same_person=True)
    assert bounds_of(other, {}, one)[1] == {}
    assert {bounds_of(other, asked, c)[1]["aligned_share"] for c in (choice, one)} == {(-math.inf, 0.7)}


def test_bounds_are_noted_as_thresholds_that_say_the_same(tmp_path):
    given = {"failed": {"stretch": [None, 1.3]}, "look_here": {"foreground_dice": [0.912345678, None]}}
    bounds = bounds_of(str(tmp_path / "model.pt"), given)
    noted = json.loads(json.dumps(as_thresholds(bounds)))
    assert noted["failed"]["stretch"] == given["failed"]["stretch"]
    assert noted["look_here"] == given["look_here"]
    assert bounds_of(str(tmp_path / "model.pt"), noted) == bounds


@pytest.mark.parametrize("thresholds", [{"look here": {}}, {"failed": {"folding": [0, 1]}}])
def test_thresholds_that_are_none_are_refused(tmp_path, thresholds):
    with pytest.raises(ValueError, match=r"thresholds has the keys|threshold is of one of"):
        bounds_of(str(tmp_path / "model.pt"), thresholds)
