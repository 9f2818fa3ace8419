"""The inference workflow from Python: what it does to the program that calls it."""

import logging

import monai.bundle
import pytest
from bundle import inference
from bundle.inference import infer, infer_pair


def levels():
    return {name: logging.getLogger(name).level for name in inference.LEVELS}


@pytest.fixture
def workflow(monkeypatch):
    """In place of MONAI's workflow: what it was made with, and what levels it ran at; it fails where told to."""

    class Workflow:
        made_with, ran_at, failing = None, None, False

        def __init__(self, configs, **overrides):
            Workflow.made_with = overrides
            self.parser = self

        def initialize(self):
            pass

        finalize = initialize

        def run(self):
            Workflow.ran_at = levels()
            if self.failing:
                raise ValueError("bad")

        def get_parsed_content(self, name):
            state = {"batch": [{"moving": 1, "quality": 0}], "output": [{"quality": 2}]}
            return type(name, (), {"state": type("State", (), state)})

    monkeypatch.setattr(monai.bundle, "ConfigWorkflow", Workflow)
    return Workflow


@pytest.mark.parametrize("failing", [False, True])
def test_a_run_is_quiet_and_leaves_the_loggers_of_the_program_as_they_were(workflow, monkeypatch, failing):
    for name, level in zip(inference.LEVELS, (logging.DEBUG, logging.NOTSET), strict=True):
        monkeypatch.setattr(logging.getLogger(name), "level", level)
    before, workflow.failing = levels(), failing
    try:
        infer()
    except ValueError:
        assert failing
    assert workflow.ran_at == inference.LEVELS
    assert levels() == before


def test_a_pair_is_registered_in_memory_and_what_was_found_is_returned(workflow):
    pair = {"name": "pair", "moving": "m.nii", "fixed": "f.nii"}
    assert infer_pair(pair, affine="none") == {"moving": 1, "quality": 2}
    assert workflow.made_with["dataset#data"] == [pair]
    assert workflow.made_with["affine"] == "none"
    assert not workflow.made_with["save"]
    assert not workflow.made_with["tabulate"]
