"""What went wrong in one sentence, wherever it is wrapped."""

import re
import sys
from collections.abc import Iterator
from types import TracebackType

__all__ = ["bad_input", "causes", "end_with_sentence"]


def causes(error: BaseException | None, contexts: bool = True) -> Iterator[BaseException]:
    """Yield an exception, its cause, the cause of that, and so on; each once, since a chain may close upon itself.

    What was being handled when an exception was raised (``contexts``) counts as its cause where it has no other.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (error.__context__ if contexts else None)


def bad_input(error: BaseException | None) -> str | None:
    """Find the sentence about the user's input in a chain of exceptions: MONAI wraps what a transform raises."""
    for cause in causes(error):
        if "Original Traceback" in str(cause):  # a worker process of a DataLoader hands over text alone
            return _first_in(str(cause))
        if isinstance(cause, ValueError | OSError):
            return str(cause)
    return None


def _first_in(traceback: str) -> str | None:
    """Find the sentence in a printed traceback, where the first exception of a chain comes first."""
    found = re.search(r"^(?:ValueError|OSError|FileNotFoundError|PermissionError): (.+)$", traceback, re.MULTILINE)
    return found[1] if found else None


def end_with_sentence() -> None:
    """Let a process that an exception ends say last what was wrong with its input, below the traceback.

    The wrappers of ``python -m monai.bundle run`` otherwise leave the sentence in the middle of a long traceback.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name.startswith("monai.bundle") and sys.excepthook is sys.__excepthook__:
        sys.excepthook = _say_last  # in that process alone: an application has ways of its own


def _say_last(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, traceback)
    sentence = bad_input(error)
    if sentence:
        print(f"error: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
