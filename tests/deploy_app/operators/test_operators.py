"""The operator graph, with steps that are not the application's."""

from types import SimpleNamespace

import pytest

from panreg.runtime import cuda_runtime  # noqa: F401  isort: skip - before anything imports MONAI
from holoscan.conditions import CountCondition
from monai.deploy.core import Application
from panreg.failures import Code, Failure
from panreg.operators import app as app_module
from panreg.operators import pairing_operator
from panreg.operators.step_operator import StepOperator, _places
from panreg.registration.bundle_model import _refusal
from panreg.settings import Settings

REFUSAL = Failure(Code.E_NO_MATCH, "Another series is needed.")


class Counting(StepOperator[int | None, int]):
    """Adds one; fails where it was told to."""

    error = None

    def step(self, taken):
        if self.error is not None:
            raise self.error
        return (taken or 0) + 1


class Three(Application):
    """Three steps, the second of which may fail."""

    def __init__(self, job, error=None):
        self.job, self.error = job, error
        super().__init__()

    def compose(self):
        one = Counting(self, CountCondition(self, 1), job=self.job, first=True, name="one")
        two = Counting(self, job=self.job, name="two")
        self.last = three = Counting(self, job=self.job, last=True, name="three")
        two.error = self.error
        self.add_flow(one, two, {("made", "taken")})
        self.add_flow(two, three, {("made", "taken")})


def outcome_and_times(error=None):
    times = {}
    manifest = SimpleNamespace(time=lambda name, seconds: times.update({name: seconds}))
    app = Three(SimpleNamespace(manifest=manifest), error)
    app.run()
    return app.last.outcome, times


def test_each_step_takes_what_the_one_before_made():
    outcome, times = outcome_and_times()
    assert outcome == 3
    assert list(times) == ["one", "two", "three"]


def test_a_failure_is_handed_on_and_the_steps_after_it_do_nothing():
    outcome, times = outcome_and_times(REFUSAL)
    assert outcome is REFUSAL
    assert list(times) == ["one", "two"]


def test_what_is_not_foreseen_is_told_by_its_kind_alone(caplog):
    outcome, _ = outcome_and_times(KeyError("Doe^Jane"))
    assert (outcome.code, outcome.message) == (Code.E_INTERNAL, "Something unforeseen went wrong (KeyError).")
    assert "two failed: KeyError at test_operators.py:" in caplog.text
    assert "Jane" not in caplog.text


def test_a_graph_that_ends_before_its_last_operator_is_no_success(monkeypatch):
    monkeypatch.setattr(app_module.RegistrationApp, "run", lambda app: None)
    with pytest.raises(RuntimeError, match="ended before"):
        app_module.register(SimpleNamespace())


def test_the_places_of_a_chain_of_causes_that_closes_upon_itself_are_told_once():
    first, second = RuntimeError("the patient's name"), KeyError("again")
    first.__cause__, second.__cause__ = second, first
    assert [place.split()[0] for place in _places(first)] == ["RuntimeError", "KeyError"]
    assert _refusal(first) is None


def test_too_little_space_for_the_results_is_said_at_pairing_before_any_pixel_is_read(monkeypatch):
    asked = []

    def require_space(size):
        asked.append(size)
        raise Failure(Code.E_OUTPUT, "The output needs more.")

    pair = SimpleNamespace(
        fixed=SimpleNamespace(shape=(166, 256, 256), warnings=()), moving=SimpleNamespace(warnings=())
    )
    pair.warnings = ()
    for name in ("describe_pair", "describe_geometry", "describe_inputs"):
        monkeypatch.setattr(pairing_operator, name, lambda *_: None)
    monkeypatch.setattr(pairing_operator, "choose_pair", lambda *_: pair)
    monkeypatch.setattr(pairing_operator, "read_stack", lambda _: pytest.fail("pixels were read"))
    manifest = SimpleNamespace(record=lambda **_: None, warn=lambda _: None)
    publication = SimpleNamespace(require_space=require_space)
    job = SimpleNamespace(settings=Settings(), manifest=manifest, publication=publication, input=None)
    taken = SimpleNamespace(stacks=(), scan=SimpleNamespace(skipped={}))
    with pytest.raises(Failure, match="needs more"):
        pairing_operator.PairingOperator.step(SimpleNamespace(job=job), taken)
    assert 2 * 166 * 256 * 256 + 30_000_000 < asked[0] < 80_000_000
