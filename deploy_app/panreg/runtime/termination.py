"""What happens when somebody asks the process to end (SIGTERM): the engine would leave within seconds, as it stands.

Import this before any library that starts threads: the signal is kept from all of them, and one thread waits for it.
Until something is written the process then ends at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from panreg.failures import Code

__all__ = ["listening"]

ASKED = {signal.SIGTERM}
_actions: list[Callable[[], object]] = [lambda: os._exit(Code.E_TERMINATED.exit_code)]


@contextmanager
def listening(act: Callable[[], None]) -> Iterator[None]:
    """Within the context, call something, in a thread of its own, when the process is asked to end.

    After it the process is left to end by itself.
    """
    _actions.append(act)
    try:
        yield
    finally:
        _actions.append(lambda: None)


def _wait() -> None:
    signal.sigwait(ASKED)
    _actions[-1]()


signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
threading.Thread(target=_wait, name="termination", daemon=True).start()
