"""What happens when somebody asks the process to end: the engine would leave within seconds, as it stands.

A platform asks by SIGTERM, Ctrl+C by SIGINT, a terminal that is closed by SIGHUP. Import this before any library that
starts threads: the signals are kept from all of them, and one thread waits for them. Until something is written the
process then ends at once. What the process was started to ignore, as by nohup, asks for nothing.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["exit_code", "listening"]

Action = Callable[[signal.Signals], object]
ASKED = {
    asked for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(asked) is not signal.SIG_IGN
}


def exit_code(asked: signal.Signals) -> int:
    """The exit code of a process that a signal ended, as a shell tells it: 143, 130 or 129."""
    return 128 + asked


_actions: list[Action] = [lambda asked: os._exit(exit_code(asked))]


@contextmanager
def listening(act: Action) -> Iterator[None]:
    """Within the context, call something with the signal, in a thread of its own, when the process is asked to end.

    After it the process is left to end by itself.
    """
    _actions.append(act)
    try:
        yield
    finally:
        _actions.append(lambda asked: None)


def _wait() -> None:
    asked = signal.Signals(signal.sigwait(ASKED))
    _actions[-1](asked)


signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
threading.Thread(target=_wait, name="termination", daemon=True).start()
