"""The bundle's sentences, as the application says them, and its workflow, as the application runs it."""

import logging
import re
import sys

import pytest
import torch
from application import ROOT
from bundle.weights import check_finite
from monai.bundle import ConfigParser
from panreg.failures import Code
from panreg.registration import bundle_model
from panreg.registration.bundle_model import BundleModel, _refusal, as_text, by_settings
from panreg.settings import variables

SOURCES = ROOT / "bundle"


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("let --affine center, rigid or affine bring", "let PANREG_AFFINE=center, rigid or affine bring"),
        ("start from --affine center or --initial_transform.", "start from PANREG_AFFINE=center."),
        ("The images share no space.", "The images share no space."),
    ],
)
def test_options_of_the_command_line_become_settings(sentence, said):
    assert by_settings(sentence) == said


@pytest.mark.parametrize("text", ["/models#1", "Every object says: for @#research 100 %.", "@label", "$label", "it's"])
def test_text_reaches_the_bundle_as_it_stands(text):
    assert ConfigParser({"label": 1, "text": [as_text(text)]}).get_parsed_content("text") == [text]


def test_no_sentence_of_the_registration_names_an_option_that_the_application_lacks():
    found = []
    files = [SOURCES / "affine.py", SOURCES / "inferers.py"]
    for path in (*files, *SOURCES.glob("transforms/*.py"), *SOURCES.glob("spatial/*.py")):
        text = re.sub(r'"\n\s*f?"', "", path.read_text())
        found += re.findall(r'"([^"\n]*--[a-z][^"\n]*)"', text)
    assert found
    for sentence in map(by_settings, found):
        assert "--" not in sentence
        assert set(re.findall(r"PANREG_[A-Z_]+", sentence)) <= set(variables())


def test_weights_that_diverged_are_a_fault_of_the_installation_and_not_of_the_images():
    with pytest.raises(ValueError, match="diverged") as info:
        check_finite(torch.tensor([0.0, float("nan")]), "/opt/a folder/models/model.pt")
    wrapped = RuntimeError("MONAI")
    wrapped.__cause__ = info.value
    failure = _refusal(wrapped)
    assert (failure.code, failure.code.exit_code) == (Code.E_WEIGHTS, 70)
    assert "its weights (model.pt) have diverged" in failure.message
    assert _refusal(ValueError("The images share no space.")).code is Code.E_NO_MATCH


def test_the_engine_is_quiet_for_one_run_and_no_longer(monkeypatch, tmp_path, caplog):
    logger, ran_at = logging.getLogger("ignite"), []

    class Workflow:
        def __init__(self, *_, **__):
            logging.getLogger("monai.bundle.workflows").warning("Logging file is set to False, skipping logging.")

        def initialize(self):
            pass

        def run(self):
            ran_at.append(logger.level)
            raise RuntimeError("a defect")

    monkeypatch.setattr(bundle_model, "ConfigWorkflow", Workflow)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(logger, "level", logging.INFO)
    model = BundleModel.__new__(BundleModel)
    model.root = tmp_path
    with pytest.raises(RuntimeError, match="a defect"):
        model.register(None, None, {})
    assert (ran_at, logger.level) == ([logging.CRITICAL], logging.INFO)
    assert not caplog.records
