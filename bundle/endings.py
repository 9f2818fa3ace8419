"""How a command ends when it is not let finish: by a signal, or where nobody reads what it prints any more."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Any, TextIO

__all__ = ["ended_in_words", "printing_on"]

SIGNALS = ("SIGTERM", "SIGHUP")  # of timeout, scancel and docker stop, and of a closed terminal
BY_SIGNAL = 128  # exit codes are this and the signal's number, as shells have them


@contextmanager
def ended_in_words() -> Iterator[None]:
    """Have signals end what runs within as an error would, so that what it has half written is removed.

    It ends in one sentence, and with the exit code that shells give. Processes that are forked from here end as usual.

    Raises:
        SystemExit: at a signal.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise SystemExit(_told(number))

    present = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in present if signal.getsignal(number) == signal.SIG_DFL}
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(_told(signal.SIGINT)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(number: int) -> int:
    """Say what ended the command; the exit code."""
    print(f"error: ended by {signal.Signals(number).name} before it was done.", file=sys.stderr)  # noqa: T201
    return BY_SIGNAL + number


@contextmanager
def printing_on() -> Iterator[None]:
    """Let what runs within print on where whoever read it has gone, as ``head`` goes: results are worth more."""
    with redirect_stdout(_Outlet(sys.stdout)), redirect_stderr(_Outlet(sys.stderr)):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


class _Outlet:
    """A stream that leads nowhere once its reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self._lead_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        """What the stream still holds goes there, too, when the process ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
