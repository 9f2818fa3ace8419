"""What went wrong in one sentence, wherever it is wrapped."""

import errno
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

__all__ = ["OutcomeError", "PairsFailedError", "bad_input", "causes", "end_with_sentence", "unwrapped"]

FULL = ("could not be written, as the disk or your share of it is full", "free some of it, or write elsewhere")
MEANINGS = {
    errno.ENOENT: ("does not exist", "check the path"),
    errno.EISDIR: ("is a folder where a file is needed", "name a file"),
    errno.ENOTDIR: ("is a file, or lies below one, where a folder is needed", "name another place"),
    errno.EEXIST: ("exists already, and is a file where a folder is needed", "name another place"),
    errno.EACCES: ("may not be read or written by you", "ask for the right to it, or name another place"),
    errno.EPERM: ("may not be read or written by you", "ask for the right to it, or name another place"),
    errno.EROFS: ("lies on a disk that can only be read", "write elsewhere"),
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: ("is larger than the system lets a file be", "write elsewhere, or raise the limit (ulimit -f)"),
    errno.ENAMETOOLONG: ("has too long a name", "name another place"),
    errno.EMFILE: ("could not be opened, as too many files are open", "raise the limit (ulimit -n)"),
}
"""What the system's numbers mean, and what to do."""

KINDS = ("ValueError", "OSError", *(f"{kind}Error" for kind in ("FileNotFound", "Permission", "IsADirectory")))
KINDS += ("NotADirectoryError", "FileExistsError")


class OutcomeError(ValueError):
    """How a run ended whose code did what it should: its sentence says all, and a traceback would say nothing."""


class PairsFailedError(OutcomeError):
    """Some pairs of a run, or registrations of a comparison, failed; the message counts them."""


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
    return _found(error)[0]


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise what a transform raised about the user's input, not MONAI's RuntimeError around it.

    Raises:
        ValueError: the input cannot be used; the message says why.
        OSError: a file cannot be read or written, a FileNotFoundError among them.
    """
    try:
        yield
    except RuntimeError as error:
        for cause in causes(error, contexts=False):
            if isinstance(cause, ValueError | OSError):
                raise cause  # noqa: B904  # it is the cause of the other
        raise


def _found(error: BaseException | None) -> tuple[str | None, bool]:
    """Find the sentence in a chain of exceptions, and tell whether it says all, so that a traceback would say nothing.

    So it is of what the bundle raises in so many words, and of what the system says of a file that it names.
    """
    for cause in causes(error):
        if "Original Traceback" in str(cause):  # a worker process of a DataLoader hands over text alone
            return _first_in(str(cause)), False
        if isinstance(cause, OSError) and cause.errno is not None:
            file = cause.filename2 or cause.filename
            return _of_the_system(cause.errno, cause.strerror or "", file), file is not None
        if isinstance(cause, ValueError | OSError):
            return str(cause), _is_worded_here(cause)
    return None, False


def _is_worded_here(error: BaseException) -> bool:
    """Tell whether the bundle raised an exception by a statement of its own, not by what it called or by accident."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    frame, line = frames[-1]
    of_the_bundle = frame.f_globals.get("__name__", "").split(".")[0] == "bundle"
    return of_the_bundle and linecache.getline(frame.f_code.co_filename, line).lstrip().startswith("raise ")


def _of_the_system(number: int, text: str, file: Any) -> str:
    """Say what the system's number means for a file, and what to do."""
    meaning, advice = MEANINGS.get(number, (f"could not be read or written ({text})", "check its place and its disk"))
    return f"The file or folder {f'({file}) ' if file else ''}{meaning}: {advice}."


def _first_in(traceback: str) -> str | None:
    """Find the sentence in a printed traceback, where the first exception of a chain comes first."""
    found = re.search(rf"^(?:{'|'.join(KINDS)}): (.+)$", traceback, re.MULTILINE)
    if not found:
        return None
    system = re.fullmatch(r"\[Errno (\d+)\] (.+?)(?:: '(.+)')?", found[1])
    return _of_the_system(int(system[1]), system[2], system[3]) if system else found[1]


def end_with_sentence() -> None:
    """Let a process that an exception ends say last what was wrong with its input, below the traceback if one helps.

    The wrappers of ``python -m monai.bundle run`` otherwise leave the sentence in the middle of a long traceback.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    is_monais = spec is not None and spec.name.startswith("monai.bundle")
    if is_monais and getattr(sys.excepthook, "func", None) is not _say_last:  # an application has ways of its own
        sys.excepthook = partial(_say_last, sys.excepthook)


def _say_last(
    shown_by: Callable[..., Any], kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Show an exception as it was shown before, unless the sentence says all, and then the sentence."""
    sentence, says_all = _found(error)
    if not says_all and not any(isinstance(cause, OutcomeError) for cause in causes(error)):
        shown_by(kind, error, trace)
    if sentence:
        print(f"error: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
