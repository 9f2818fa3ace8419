"""The command line: ``python -m bundle COMMAND``."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import fire

COMMANDS = ("register", "apply", "prepare", "phantom", "demo", "benchmark")


Command = Callable[..., Any] | dict[str, Callable[..., Any]]


def load(name: str) -> Command:
    """Import a command only when it is asked for: a typing error should not cost the import of torch."""
    command: Command = getattr(importlib.import_module(f"bundle.commands.{name}"), name)
    return command


def main() -> None:
    """Run one command; a bad input ends in one sentence and exit code 2."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(f"usage: python -m bundle {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        raise SystemExit(0 if name in ("-h", "--help") else 2)
    try:
        command, arguments = load(name), sys.argv[2:]
        if isinstance(command, dict) and "--help" not in arguments and all(a.startswith("-") for a in arguments[:1]):
            arguments = [next(iter(command)), *arguments]  # the first of several commands may go without its name
        fire.Fire(command, command=arguments, name=f"python -m bundle {name}", serialize=lambda _: None)
    except Exception as error:
        sentence = bad_input(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        raise SystemExit(2) from error


def bad_input(error: BaseException | None) -> str | None:
    """Find the sentence about the user's input in a chain of exceptions: MONAI wraps what a transform raises."""
    while error is not None:
        if isinstance(error, ValueError | OSError):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    main()
