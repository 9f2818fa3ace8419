"""Progress on a terminal and in a log."""

import re
import time

import pytest
from bundle import progress
from bundle.progress import Progress, Stages


class Stream:
    """What was written to the standard error so far."""

    def __init__(self, capsys):
        self.capsys, self.text = capsys, ""

    def getvalue(self):
        self.text += self.capsys.readouterr().err
        return self.text


@pytest.fixture
def log(monkeypatch, capsys):
    """A log in which time goes a hundred times as fast."""
    monkeypatch.setattr(progress, "QUICK", 0.05)
    monkeypatch.setattr(progress, "LOGGED", 0.3)
    monkeypatch.setattr(progress, "REFRESHED", 0.02)
    return Stream(capsys)


@pytest.fixture
def terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    return Stream(capsys)


def slowly(steps, seconds):
    for step in steps:
        time.sleep(seconds)
        yield step


def test_a_quick_command_leaves_nothing_in_a_log(log):
    assert list(Progress(range(5), title="squaring")) == list(range(5))
    with Stages("inverting", "reading") as stages:
        stages.expect({"solving": 1.0})
        stages.begin("solving")
    assert log.getvalue() == ""


def test_a_log_gets_a_line_now_and_then_with_what_is_done_and_what_is_left(log):
    for _ in slowly(Progress(range(40), title="preparing", unit="image"), 0.02):
        pass
    lines = log.getvalue().splitlines()
    assert 2 <= len(lines) <= 5
    assert re.fullmatch(r"preparing: \d+ of 40 images, 00:00 so far, about 00:0\d left", lines[0])


def test_a_log_names_what_is_being_done(log):
    with Progress(total=2, title="comparing", unit="registration") as bar:
        bar.say("greedy")
        time.sleep(0.1)
        bar.update()
    assert log.getvalue().startswith("comparing: 1 of 2 registrations (greedy), ")


def test_what_was_done_before_does_not_count_as_fast(log, monkeypatch):
    monkeypatch.setattr(progress, "_clock", lambda seconds: f"{seconds:.1f}")
    with Progress(total=12, done=10, title="training") as bar:
        time.sleep(0.6)
        bar.update()
    left = float(re.search(r"11 of 12 steps, .* about ([\d.]+) left", log.getvalue())[1])
    assert left >= 0.5


def test_progress_within_progress_is_silent_in_a_log(log):
    with Stages("registering", "network"):
        for _ in slowly(Progress(range(10), title="optimising"), 0.02):
            pass
    assert "optimising" not in log.getvalue()
    assert "registering: network" in log.getvalue()
    for _ in slowly(Progress(range(10), title="afterwards"), 0.02):
        pass
    assert "afterwards" in log.getvalue()


def test_a_long_stage_goes_on_saying_so(log):
    with Stages("registering", "network", {"network": 0.1}):
        time.sleep(1.2)
    assert 3 <= log.getvalue().count("registering: network") <= 5


def test_the_rest_is_what_was_expected_times_the_pace_so_far(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Stages("registering", "aligning", {"aligning": 45.0, "network": 20.0, "writing": 10.0}) as stages:
        assert stages.left() == 75
        now[0] = 15
        assert stages.left() == 60
        now[0] = 95  # twice as slow: (95 + 5) / (45 + 5)
        stages.begin("network")
        assert stages.left() == 60
        now[0] = 105
        assert stages.left() == 50
        stages.expect({"network": 40.0})
        assert stages.left() == 90


def test_an_overdue_stage_never_promises_the_end_at_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Stages("registering", "network", {"network": 10.0}) as stages:
        now[0] = 100
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
