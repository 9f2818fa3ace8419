"""Weights files: their descriptions, what is no state dict, and which are taken where contrasts differ."""

import copy
import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from bundle import inferers
from bundle.expected_error import SIGNS, MapExpectedErrord
from bundle.gain import GainWeighting
from bundle.inferers import RecursiveInferer, prepare_pair
from bundle.lesions import REFILLS, RefillIgnoredd
from bundle.networks import PAN
from bundle.networks.cascade import Cascade
from bundle.smoothing import smooth
from bundle.weights import WeightsChoice, check_weights, content, load_frozen, recommended, start_from, suited
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from tests.configs import load
from torch import nn


class Intruder:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
@pytest.mark.property(13)
def test_weights_are_read_without_running_what_is_pickled_in_them(tmp_path, save):
    intruder = Intruder(tmp_path / "intruded")
    save(PAN().state_dict() | {"intruder": intruder}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="cannot be read as a PyTorch state dict"):
        check_weights(PAN(), str(tmp_path / "weights.pt"))
    assert not intruder.path.exists()


def test_what_a_training_goes_on_from_is_no_weights_and_the_sentence_names_those(tmp_path):
    path = tmp_path / "resume_checkpoint_epoch=3.pt"
    torch.save({"network": PAN().state_dict(), "trainer": {"iteration": 3}, "settings": {}}, path)
    for refuse in (check_weights, start_from):
        with pytest.raises(ValueError, match=r"goes on from, no weights: take model\.pt beside it, its best ones"):
            refuse(PAN(), str(path))


def test_weights_are_used_at_the_spacing_that_the_file_beside_them_names(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"spacing_mm": 1.5}))
    assert recommended(str(tmp_path / "mine.pt"), "spacing_mm") == 1.5
    assert recommended(str(tmp_path / "mine.pt"), "passes", 1) == 1
    assert recommended(str(tmp_path / "other.pt"), "spacing_mm") is None


def test_every_shipped_weights_file_is_described(bundle_root):
    weights = sorted((bundle_root / "models").glob("*.pt"))
    assert [path.stem for path in weights] == ["any_contrast", "hippocampus", "model", "one_person"]
    for path in weights:
        description = json.loads(path.with_suffix(".json").read_text())
        assert {"spacing_mm", "trained_at_mm", "trained_on", "command"} <= description.keys()
        assert {"seed", "steps", "licence"} <= description.keys()
        assert description["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stat().st_size < 25e6


def test_weights_are_loaded_frozen(tmp_path):
    torch.manual_seed(0)
    network = PAN(channels=(16, 32), heads=(2, 1))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    loaded = load_frozen(PAN(channels=(16, 32), heads=(2, 1)), str(tmp_path / "weights.pt"))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in network.state_dict().items())
    with pytest.raises(ValueError, match="belong to another network"):
        load_frozen(PAN(), str(tmp_path / "weights.pt"))


class Shift(nn.Module):
    """Stand for a network: move by as many voxels as its weight says."""

    def __init__(self, voxels=0.0):
        super().__init__()
        self.voxels = nn.Parameter(torch.tensor(voxels))

    def forward(self, pair):
        return torch.cat([pair[:, :1], self.voxels.expand(len(pair), 3, *pair.shape[2:])], 1)


@pytest.fixture
def two_weights(tmp_path):
    for name, voxels in (("usual", 1.0), ("other", 2.0)):
        torch.save(Shift(voxels).state_dict(), tmp_path / f"{name}.pt")
    (tmp_path / "usual.json").write_text(json.dumps({"across_contrasts": "other.pt", "one_contrast": 0.5}))
    return tmp_path


def pairs():
    """A pair of one contrast, and the same with the contrast of the fixed image turned around."""
    image = smooth(torch.rand(1, 1, 24, 20, 18, generator=torch.Generator().manual_seed(0)), 1.5)
    image = 0.5 + 0.1 * (image - image.min()) / (image.max() - image.min())
    return torch.cat([torch.cat([image, image], 1), torch.cat([image, 1 - image], 1)])


def alike(correlation):
    """What is measured of a pair whose images, and whose tissues, correlate so."""
    return {"contrast_correlation": correlation, "tissue_correlation": correlation}


def test_other_weights_are_taken_for_the_pairs_whose_contrasts_differ_and_for_no_other(two_weights):
    choice = WeightsChoice(Shift(), str(two_weights / "usual.pt"))
    with torch.no_grad():
        pred = RecursiveInferer(weights_choice=choice)(pairs(), Shift(1.0))
    assert pred[:, 1:].flatten(1).unique(dim=1).tolist() == [[1.0], [2.0]]
    assert choice.weights_for(alike(0.9)) == str(two_weights / "usual.pt")
    assert choice.weights_for(alike(0.1)) == str(two_weights / "other.pt")
    by_scanner = {"contrast_correlation": 0.3, "tissue_correlation": 0.6}  # T1 images of two scanners
    by_contrast = {"contrast_correlation": 0.6, "tissue_correlation": -0.1}  # a T1 and a FLAIR image
    untold = {"contrast_correlation": 0.3, "tissue_correlation": 0.0}  # a slab with little of a brain
    names = [Path(choice.weights_for(a)).name for a in (by_scanner, by_contrast, untold)]
    assert names == ["usual.pt", "other.pt", "usual.pt"]


@pytest.mark.parametrize("same_person", [True, False])
def test_two_like_scans_of_one_person_have_weights_of_their_own(two_weights, same_person):
    torch.save(Shift(3.0).state_dict(), two_weights / "person.pt")
    (two_weights / "person.json").write_text(json.dumps({"passes": 2}))
    description = json.loads((two_weights / "usual.json").read_text())
    description |= {"one_person": "person.pt", "one_person_from": 0.9}
    (two_weights / "usual.json").write_text(json.dumps(description))
    choice = WeightsChoice(Shift(), str(two_weights / "usual.pt"), same_person=same_person)
    names = [Path(choice.weights_for(alike(correlation))).name for correlation in (0.3, 0.7, 0.95)]
    assert names == ["other.pt", *(["other.pt", "person.pt"] if same_person else ["usual.pt", "usual.pt"])]
    changed = {"contrast_correlation": 0.95, "tissue_correlation": 0.1}
    assert Path(choice.weights_for(changed)).name == ("person.pt" if same_person else "other.pt")
    with torch.no_grad():
        pred = RecursiveInferer(weights_choice=choice)(pairs(), Shift(1.0))
    moved = [6.0, 2.0] if same_person else [1.0, 2.0]  # two passes of 3 voxels; the other network is loaded beside it
    assert pred[:, 1:].flatten(1).unique(dim=1).flatten().tolist() == moved
    assert choice.settings_for(alike(0.95), {"passes": 1}) == {"passes": 2 if same_person else 1}


def test_scans_of_one_person_look_alike_from_one_correlation_on_whoever_asks(two_weights, bundle_root):
    usual = two_weights / "usual.pt"
    (two_weights / "usual.json").write_text(json.dumps({"one_person": "person.pt"}))
    choice = WeightsChoice(Shift(), str(usual), same_person=True)
    from_here = GainWeighting().alike_from
    names = [Path(choice.weights_for(alike(correlation))).name for correlation in (from_here, from_here - 0.01)]
    assert names == ["person.pt", "usual.pt"]
    (two_weights / "usual.json").write_text(json.dumps({"one_person_from": 0.8}))
    for configs, workflow in ((["inference"], "inferer"), (["train", "evaluate"], "validate#inferer")):
        for weights, expected in ((usual, 0.8), (two_weights / "person.pt", from_here)):
            parser = load(bundle_root, configs)
            parser["ckpt"] = str(weights)
            assert parser.get_parsed_content(f"{workflow}#gain_weighting#alike_from") == expected


def test_the_other_weights_run_with_what_suits_them_unless_asked_otherwise(two_weights):
    (two_weights / "other.json").write_text(json.dumps({"gamma": 2.0, "passes": 3}))
    usual = {"across_contrasts": "other.pt", "one_contrast": 0.5, "gamma": 1.4}
    (two_weights / "usual.json").write_text(json.dumps(usual))
    for asked, expected in (({}, 3), ({"passes": None}, 3), ({"passes": 1}, 1), ({"passes": 2}, 2)):
        choice = WeightsChoice(Shift(), str(two_weights / "usual.pt"), asked=asked)
        inferer = RecursiveInferer(**suited(choice.usual, **asked), weights_choice=choice)
        same, differing = (inferer.for_pair(pair, Shift(1.0))[0] for pair in pairs().split(1))
        assert (same.passes, same.gamma) == (asked.get("passes") or 1, 1.4)
        assert (differing.passes, differing.gamma, differing.sharpening) == (expected, 2.0, 0.0)
    choice = WeightsChoice(Shift(), str(two_weights / "usual.pt"))
    settings = {"passes": 1, "gamma": 1.4, "affine": "rigid"}
    assert choice.settings_for(alike(0.9), settings) == settings
    assert choice.settings_for(alike(0.1), settings) == {"passes": 3, "gamma": 2.0, "affine": "rigid"}
    asked = WeightsChoice(Shift(), str(two_weights / "usual.pt"), asked={"passes": 1, "gamma": 1.4})
    assert asked.settings_for(alike(0.1), settings) == settings  # though it is what suits the usual ones


@pytest.mark.parametrize(
    ("setting", "value"), [("usual_share", 1.5), ("one_contrast", "low"), ("one_person_from", True)]
)
def test_a_description_that_says_what_cannot_be_is_refused(two_weights, setting, value):
    (two_weights / "usual.json").write_text(json.dumps({"across_contrasts": "other.pt", setting: value}))
    said = rf"{setting} in .*usual\.json is a number from -?\d to 1, not {json.dumps(value)}"
    with pytest.raises(ValueError, match=said):
        WeightsChoice(Shift(), str(two_weights / "usual.pt"))


def test_where_images_do_not_tell_the_fields_of_both_networks_are_averaged(two_weights):
    description = json.loads((two_weights / "usual.json").read_text()) | {"usual_share": 0.25, "one_person": "other.pt"}
    (two_weights / "usual.json").write_text(json.dumps(description))
    choice = WeightsChoice(Shift(), str(two_weights / "usual.pt"))
    with torch.no_grad():
        pred = RecursiveInferer(weights_choice=choice)(pairs(), Shift(1.0))
    assert pred[:, 1:].flatten(1).unique(dim=1).flatten().tolist() == [1.0, 0.75 * 2 + 0.25 * 1]
    both = choice.settings_for(alike(0.1), {})["averaged_with"]
    digest = hashlib.sha256((two_weights / "usual.pt").read_bytes()).hexdigest()
    assert both == {"weights": "usual.pt", "weights_sha256": digest, "share": 0.25}
    assert choice.settings_for(alike(0.9), {}) == {}
    one_person = WeightsChoice(Shift(), str(two_weights / "usual.pt"), same_person=True)
    assert one_person.weights_for(alike(0.1)) == str(two_weights / "other.pt")
    assert one_person.settings_for(alike(0.1), {}) == {}


def test_the_usual_network_runs_with_its_own_settings_beside_the_other(two_weights):
    (two_weights / "other.json").write_text(json.dumps({"gamma": 1.0, "passes": 3}))
    usual = {"across_contrasts": "other.pt", "one_contrast": 0.5, "usual_share": 0.5, "gamma": 2.0}
    (two_weights / "usual.json").write_text(json.dumps(usual))
    choice, seen = WeightsChoice(Shift(), str(two_weights / "usual.pt")), []

    class Watched(Shift):
        def forward(self, pair):
            seen.append(pair.clone())
            return super().forward(pair)

    pair = pairs()[1:]
    with torch.no_grad():
        pred = RecursiveInferer(gamma=2.0, weights_choice=choice)(pair, Watched(1.0))
    assert len(seen) == 1
    assert torch.allclose(seen[0], pair.square())
    assert (pred[:, 1:] == 0.5 * 3 * 2 + 0.5 * 1).all()


@pytest.mark.parametrize("enabled", [True, False])
def test_one_network_serves_all_pairs_where_no_other_weights_are_named_or_wanted(two_weights, enabled):
    usual = two_weights / ("other.pt" if enabled else "usual.pt")  # nothing describes other.pt
    choice = WeightsChoice(Shift(), str(usual), enabled=enabled)
    with torch.no_grad():
        pred = RecursiveInferer(weights_choice=choice)(pairs(), Shift(1.0))
    assert (pred[:, 1:] == 1).all()
    assert choice.weights_for(alike(0.1)) == str(usual)


def test_other_weights_are_read_when_they_are_needed_and_not_before(two_weights):
    (two_weights / "other.pt").unlink()
    choice = WeightsChoice(Shift(), str(two_weights / "usual.pt"))
    inferer = RecursiveInferer(weights_choice=choice)
    with torch.no_grad():
        inferer(pairs()[:1], Shift(1.0))
        with pytest.raises(FileNotFoundError, match=r"other\.pt"):
            inferer(pairs()[1:], Shift(1.0))


def test_a_pair_keeps_its_network_however_its_images_are_changed(two_weights):
    choice = WeightsChoice(Shift(), str(two_weights / "usual.pt"))
    settled, network = RecursiveInferer(weights_choice=choice).for_pair(pairs()[1:], Shift(1.0))
    with torch.no_grad():
        assert (settled(pairs()[:1], network)[:, 1:] == 2).all()


class Counted(Shift):
    """A network that counts its calls."""

    calls = 0

    def forward(self, pair):
        self.calls += 1
        return super().forward(pair)


def matched(known, **more):
    """A pair whose images, changed since, tell two contrasts, and what was said of them when they were matched."""
    image = MetaTensor(pairs()[1], affine=torch.eye(4))
    return {"image": image, "fixed": image[1:], "pred": torch.zeros(4, *image.shape[1:])} | known | more


@pytest.mark.parametrize(("correlation", "calls"), [(0.9, 3), (0.1, 0)])
def test_the_expected_error_is_that_of_the_network_that_found_the_field(two_weights, correlation, calls):
    choice, usual = WeightsChoice(Shift(), str(two_weights / "usual.pt")), Counted(1.0)
    calibration = {"offset": 0.0, **dict.fromkeys(SIGNS, 1.0)}
    found = MapExpectedErrord(usual, RecursiveInferer(weights_choice=choice), calibration)(
        matched({"quality": alike(correlation)})
    )
    assert usual.calls == calls
    assert ("notes" in found) == (calls == 0)


@pytest.mark.parametrize(("correlation", "calls"), [(0.9, REFILLS), (0.1, 0)])
def test_what_does_not_count_is_refilled_by_the_network_that_found_the_field(two_weights, correlation, calls):
    choice, usual = WeightsChoice(Shift(), str(two_weights / "usual.pt")), Counted(1.0)
    ignored = torch.zeros(pairs()[1].shape, dtype=torch.bool)
    ignored[0, 10:14, 8:12, 8:12] = True
    found = RefillIgnoredd(usual, RecursiveInferer(weights_choice=choice))(
        matched({"alike": alike(correlation)}, ignored=ignored)
    )
    assert usual.calls == calls
    assert found["alike"] == alike(correlation)


def test_a_workflow_goes_by_what_was_measured_of_each_pair_once(two_weights, monkeypatch):
    """A GPU might round it to the other side of the limit."""
    monkeypatch.setattr(inferers, "likeness", lambda *_: pytest.fail("measured again"))
    items = [{"image": pairs()[1], "alike": alike(value) | {"similarity_before": 0.5}} for value in (0.9, 0.1)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=torch.utils.data.DataLoader(items, batch_size=2),
        network=Shift(1.0),
        prepare_batch=prepare_pair,
        inferer=RecursiveInferer(weights_choice=WeightsChoice(Shift(), str(two_weights / "usual.pt"))),
    )
    evaluator.run()
    assert [float(output["pred"][1:].unique()) for output in evaluator.state.output] == [1.0, 2.0]


def test_the_inference_workflow_measures_what_its_choice_goes_by_before_the_network_runs(bundle_root):
    parser = ConfigParser()
    parser.read_config(str(bundle_root / "configs" / "inference.json"))
    assert parser["preprocessing#transforms"][-1]["_target_"] == "bundle.transforms.MeasureLikenessd"
    assert parser.get_parsed_content("evaluator#prepare_batch") is prepare_pair
    images, label, positional, named = prepare_pair({"image": pairs()})  # of a workflow without that transform
    assert (len(images), label, positional, named) == (2, None, (), {})


def test_a_training_starts_from_weights_of_any_device_and_a_cascade_from_those_of_one_network(tmp_path, monkeypatch):
    network = PAN(channels=(16, 16), heads=(2, 1))
    start = {name: torch.full_like(value, 0.25) for name, value in network.state_dict().items()}
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        torch.save(start, tmp_path / "gpu.pt")
    start_from(network, "")
    assert any((value != 0.25).any() for value in network.state_dict().values())
    cascade = Cascade(copy.deepcopy(network), 2)
    for one in (network, cascade):
        start_from(one, str(tmp_path / "gpu.pt"))
        assert all((value == 0.25).all() for value in one.state_dict().values())
    torch.save(cascade.state_dict(), tmp_path / "cascade.pt")
    start_from(Cascade(network, 2), str(tmp_path / "cascade.pt"))
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    for one in (network, cascade):
        with pytest.raises(ValueError, match="belong to another network"):
            start_from(one, str(tmp_path / "other.pt"))
    with pytest.raises(FileNotFoundError, match="weights"):
        start_from(network, str(tmp_path / "none.pt"))


def test_weights_are_named_by_what_they_hold(tmp_path):
    for name, value in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / f"{name}.pt").write_bytes(value)
    one, same, other = (content(str(tmp_path / f"{name}.pt")) for name in "abc")
    assert one == same != other
    assert content("") == ""
    with pytest.raises(FileNotFoundError):
        content(str(tmp_path / "none.pt"))
