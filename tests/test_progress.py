"""Progress on a terminal and in a log."""

import io
import re
import time
from types import SimpleNamespace

import pytest
from bundle import progress
from bundle.progress import Progress, Stages
from bundle.stages import EngineProgress
from ignite.engine import Engine
from monai.handlers import StatsHandler


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def slowly(self, steps, seconds):
        for step in steps:
            self.now += seconds
            yield step


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def log(monkeypatch, clock):
    """What is written to a log while the clock goes."""
    stream = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What was written to a terminal, asked for once."""
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    return SimpleNamespace(getvalue=lambda: capsys.readouterr().err)


def test_a_quick_command_leaves_nothing_in_a_log(log, clock):
    assert list(clock.slowly(Progress(range(5), title="squaring"), 0.9)) == list(range(5))
    with Stages("inverting", "reading") as stages:
        stages.expect({"solving": 1.0})
        clock.now += 4
        stages.begin("solving")
    assert log.getvalue() == ""


def test_a_log_gets_a_line_now_and_then_with_what_is_done_and_what_is_left(log, clock):
    for _ in clock.slowly(Progress(range(40), title="preparing", unit="image"), 3):
        pass
    assert log.getvalue().splitlines() == [
        "preparing: 2 of 40 images, 00:06 so far, about 01:54 left",
        "preparing: 12 of 40 images, 00:36 so far, about 01:24 left",
        "preparing: 22 of 40 images, 01:06 so far, about 00:54 left",
        "preparing: 32 of 40 images, 01:36 so far, about 00:24 left",
    ]


def test_a_log_names_what_is_being_done(log, clock):
    with Progress(total=2, title="comparing", unit="registration") as bar:
        bar.say("greedy")
        clock.now += 7
        bar.update()
    assert log.getvalue().startswith("comparing: 1 of 2 registrations (greedy), ")


def test_what_was_done_before_does_not_count_as_fast(log, clock):
    with Progress(total=12, done=10, title="training") as bar:
        clock.now += 60
        bar.update()
    assert log.getvalue() == "training: 11 of 12 steps, 01:00 so far, about 01:00 left\n"


def test_progress_within_progress_is_silent_in_a_log(log, clock):
    with Stages("registering", "network") as stages:
        for _ in clock.slowly(Progress(range(10), title="optimising"), 5):
            pass
        stages.begin("writing")
    assert "optimising" not in log.getvalue()
    assert "registering: writing" in log.getvalue()
    for _ in clock.slowly(Progress(range(10), title="afterwards"), 5):
        pass
    assert "afterwards" in log.getvalue()


def test_an_engine_that_fails_silences_nothing_after_it(log, clock):
    def fail(engine, batch):
        raise RuntimeError("no")

    engine = Engine(fail)
    for handler in (EngineProgress("training"), StatsHandler(iteration_log=False)):
        handler.attach(engine)
    with pytest.raises(RuntimeError, match="no"):
        engine.run([0], max_epochs=1)
    for _ in clock.slowly(Progress(range(10), title="afterwards"), 5):
        pass
    assert "afterwards" in log.getvalue()


def test_a_long_stage_goes_on_saying_so(log, clock, monkeypatch):
    monkeypatch.setattr(progress, "REFRESHED", 1e-3)
    with Stages("registering", "network", {"network": 100.0}):
        for lines in range(1, 4):
            clock.now += progress.LOGGED
            assert soon(lambda n=lines: log.getvalue().count("registering: network") == n)


def soon(condition):
    """Wait for what another thread does, which nearly always has at once."""
    return any(condition() or time.sleep(0.01) for _ in range(3000))


def test_the_rest_is_what_was_expected_times_the_pace_so_far(clock):
    with Stages("registering", "aligning", {"aligning": 45.0, "network": 20.0, "writing": 10.0}) as stages:
        assert stages.left() == 75
        clock.now = 15
        assert stages.left() == 60
        clock.now = 95  # twice as slow: (95 + 5) / (45 + 5)
        stages.begin("network")
        assert stages.left() == 60
        clock.now = 105
        assert stages.left() == 50
        stages.expect({"network": 40.0})
        assert stages.left() == 90


def test_an_overdue_stage_never_promises_the_end_at_once(clock):
    with Stages("registering", "network", {"network": 10.0}) as stages:
        clock.now = 100
        assert stages.left() == pytest.approx(10)


def test_on_a_terminal_one_line_changes_and_goes_away(terminal):
    with Stages("registering", "network", {"network": 0.1, "writing": 0.1}) as stages:
        stages.begin("writing")
    text = terminal.getvalue()
    assert "\n" not in text
    assert "registering: writing" in text
    assert re.search(r"so far, about 00:0\d left", text)
    assert text.split("\r")[-2].strip() == ""


def test_on_a_terminal_steps_have_a_bar(terminal):
    assert list(Progress([3, 4], title="preparing", unit="image")) == [3, 4]
    assert "preparing: 100%" in terminal.getvalue()


def test_the_clock_stops_when_the_work_fails(log):
    with pytest.raises(RuntimeError), Stages("registering", "network") as stages:
        raise RuntimeError
    assert not stages.clock.is_alive()
