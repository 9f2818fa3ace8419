"""How far a command is, and how long it still takes: one line that changes on a terminal, now and then one in a log."""

import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any, Generic, TypeVar

from tqdm import tqdm

__all__ = ["RESAMPLING", "WRITING", "Progress", "Stages", "millions"]

QUICK = 5.0  # seconds; what takes no longer leaves nothing in a log
LOGGED = 30.0  # seconds between two lines of a log
REFRESHED = 0.5  # seconds between two looks at the clock
CUSTOM = 5.0  # expected seconds after which the pace of this machine counts as much as the one expected
OVERDUE = 0.1  # of what a stage has taken: what it goes on to take when it was expected to be over

RESAMPLING, WRITING = 1.2, 0.9  # seconds of one busy core for a million voxels: what ``Stages`` may expect

T = TypeVar("T")
Shown = TypeVar("Shown", bound="_Shown")


def millions(shape: Iterable[int]) -> float:
    """Count the voxels of a grid, in millions."""
    return math.prod(shape) / 1e6


def _is_terminal() -> bool:
    return bool(getattr(sys.stderr, "isatty", lambda: False)())


def _size() -> dict[str, int]:
    """The size that tqdm is told of a terminal which does not say its own, and where it would print nothing."""
    try:
        return {} if os.get_terminal_size(sys.stderr.fileno()).columns else {"ncols": 80, "nrows": 24}
    except (OSError, ValueError):
        return {"ncols": 80, "nrows": 24}


class _Log:
    """Lines of a log, on the standard error: the first after ``QUICK`` seconds, then one every ``LOGGED``."""

    open = 0  # of them, in this process: one within another is silent

    def __init__(self, title: str) -> None:
        self.title, self.start = title, time.monotonic()
        self.last = self.start + QUICK - LOGGED
        self.is_inner = _Log.open > 0
        _Log.open += 1

    def write(self, done: str, left: float | None, at_once: bool = False) -> None:
        """Write a line if it is time for one; ``at_once`` if it is not too early for any."""
        now = time.monotonic()
        due = now - self.start >= QUICK if at_once else now - self.last >= LOGGED
        if due and not self.is_inner:
            self.last = now
            sys.stderr.write(f"{self.title}: {done}, {_clock(now - self.start)} so far{_about(left)}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Let another one speak."""
        _Log.open -= 1


class _Shown:
    """What is shown until it is closed, or its context ends: a line on a terminal, or those of a log."""

    bar: "tqdm[Any] | None"
    log: _Log | None

    def __enter__(self: Shown) -> Shown:
        """Do nothing more: it is shown from the start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End, whatever happened."""
        self.close()

    def close(self) -> None:
        """End."""
        for way in (self.bar, self.log):
            if way is not None:
                way.close()


class Progress(_Shown, Generic[T]):
    """Progress through steps of about the same length.

    Args:
        steps: to iterate over; left out where ``update`` counts them.
        total: how many; by default the length of ``steps``.
        done: how many are done already.
        title: what the command does.
        unit: what a step is.
        leave: leave the line on a terminal when all is done.

    Example:
        >>> [square**2 for square in Progress([1, 2, 3], title="squaring")]
        [1, 4, 9]
    """

    def __init__(
        self,
        steps: Iterable[T] = (),
        total: int | None = None,
        done: int = 0,
        title: str = "",
        unit: str = "step",
        leave: bool = True,
    ) -> None:
        self.steps, self.unit, self.done, self.before = steps, unit, done, done
        self.total = len(steps) if total is None and isinstance(steps, Sized) else total
        self.now = ""
        bar = {"total": self.total, "initial": done, "desc": title, "unit": unit, "leave": leave}
        self.bar = tqdm(**bar, **_size()) if _is_terminal() else None
        self.log = None if self.bar is not None else _Log(title)
        self.start = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        """Count the steps while they are taken."""
        with self:
            for step in self.steps:
                yield step
                self.update()

    def say(self, what: str) -> None:
        """Name what is being done now."""
        self.now = what
        if self.bar is not None:
            self.bar.set_postfix_str(what)

    def update(self) -> None:
        """Count a step."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()
        elif self.log is not None:
            each = (time.monotonic() - self.start) / (self.done - self.before)
            left = None if self.total is None else each * (self.total - self.done)
            of = "" if self.total is None else f" of {self.total}"
            now = f" ({self.now})" if self.now else ""
            self.log.write(f"{self.done}{of} {self.unit}s{now}", left)


class Stages(_Shown):
    """Progress through a few stages of unequal length.

    What is left is what the remaining stages are expected to take, times how much slower this machine was in those that
    are over. In a stage the line follows the clock.

    Args:
        title: what the command does.
        stage: the first one.
        expected: seconds by name of stage on some machine: their proportions count.

    Example:
        >>> with Stages("inverting", "reading", {"reading": 0.1, "solving": 3.0}) as stages:
        ...     stages.begin("solving")
    """

    def __init__(self, title: str, stage: str, expected: Mapping[str, float] | None = None) -> None:
        self.title, self.stage, self.expected = title, stage, {stage: 1.0, **(expected or {})}
        self.begun = self.start = time.monotonic()
        self.pace_of = [0.0, 0.0]  # of the stages that are over: seconds expected, seconds taken
        self.over: set[str] = set()
        self.lock, self.ended = threading.Lock(), threading.Event()
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far{postfix}"
        self.bar = tqdm(total=100, desc=title, leave=False, bar_format=layout, **_size()) if _is_terminal() else None
        self.log = None if self.bar is not None else _Log(title)
        self.clock = threading.Thread(target=self._follow, daemon=True)
        self.clock.start()

    def close(self) -> None:
        """End."""
        self.ended.set()
        self.clock.join()
        super().close()

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Expect other seconds of the stages, as more becomes known."""
        with self.lock:
            self.expected |= seconds

    def begin(self, stage: str) -> None:
        """Begin a stage; the one before is over."""
        now = time.monotonic()
        with self.lock:
            self.over.add(self.stage)
            self.pace_of[0] += self.expected[self.stage]
            self.pace_of[1] += now - self.begun
            self.stage, self.begun = stage, now
        self._show(at_once=True)

    def left(self) -> float:
        """Estimate the seconds to the end."""
        pace = (self.pace_of[1] + CUSTOM) / (self.pace_of[0] + CUSTOM)
        taken = time.monotonic() - self.begun
        coming = sum(seconds for name, seconds in self.expected.items() if name not in {*self.over, self.stage})
        return max(pace * self.expected.get(self.stage, 0.0) - taken, OVERDUE * taken) + pace * coming

    def _follow(self) -> None:
        while not self.ended.wait(REFRESHED):
            self._show()

    def _show(self, at_once: bool = False) -> None:
        with self.lock:
            left, so_far = self.left(), time.monotonic() - self.start
            if self.log is not None:
                self.log.write(self.stage, left, at_once)
            elif self.bar is not None:
                self.bar.set_description_str(f"{self.title}: {self.stage}", refresh=False)
                self.bar.set_postfix_str(_about(left).removeprefix(", "), refresh=False)
                self.bar.n = round(100 * so_far / max(so_far + left, 1e-9))
                self.bar.refresh()


def _clock(seconds: float) -> str:
    return str(tqdm.format_interval(seconds))


def _about(left: float | None) -> str:
    return "" if left is None else f", about {_clock(round(left))} left"
