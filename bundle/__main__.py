"""The command line: ``pan-registration COMMAND``, or ``python -m bundle COMMAND`` in a checkout."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import fire
from bundle.failures import bad_input
from bundle.io.files import utf8
from bundle.io.plain import plain
from bundle.options import normalise, parsers, suggestion
from bundle.start import load_monai, spin_briefly, without_collections

COMMANDS = (
    *("register", "apply", "apply_points", "invert", "compose", "convert", "jacobian"),
    *("prepare", "phantom", "demo", "benchmark", "report", "root"),
)

PLAIN = ("root",)  # need no MONAI

Command = Callable[..., Any] | dict[str, Callable[..., Any]]


def load(name: str) -> Command:
    """Import a command only when it is asked for: a typing error should not cost the import of torch."""
    if name != "benchmark":  # which trains, and times others
        spin_briefly()
    with without_collections():
        if name not in PLAIN:
            load_monai()
        command: Command = getattr(importlib.import_module(f"bundle.commands.{name}"), name)
    return command


def program() -> str:
    """Name what was typed to get here."""
    name = Path(sys.argv[0]).stem
    return name if name == "pan-registration" else "python -m bundle"


def main() -> None:
    """Run one command; a bad input ends in one sentence and exit code 2."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        meant = "" if not name or name.startswith("-") else f" ({name}: {suggestion(name, COMMANDS, 'unknown')})"
        options = "[--help] [--quiet] [--json]"
        print(f"usage: {program()} {{{','.join(COMMANDS)}}} {options}{meant}", file=sys.stderr)
        raise SystemExit(0 if name in ("-h", "--help") else 2)
    try:
        run(name, sys.argv[2:])
    except Exception as error:
        sentence = bad_input(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        raise SystemExit(2) from error


def run(name: str, arguments: Sequence[str]) -> None:
    """Hand a command to Fire, its arguments checked first: Fire would find out about a wrong one after the work.

    What follows ``--`` is Fire's own. Two options are common to all commands: with ``--quiet`` nothing is printed but
    an error, with ``--json`` what the command returns is, as JSON on the standard output, and the rest of its words go
    to the standard error.
    """
    arguments = [utf8(argument) for argument in arguments]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    arguments, fires = arguments[:cut], arguments[cut:]
    quiet, as_json = (option in arguments for option in ("--quiet", "--json"))
    arguments = [argument for argument in arguments if argument not in ("--quiet", "--json")]
    with _output(quiet, as_json):
        result = _fire(name, arguments, fires)
    if as_json:
        print(json.dumps(plain(result), indent=4))


def _fire(name: str, arguments: list[str], fires: list[str]) -> Any:
    """Find the function, check its arguments, and have Fire call it; what it returns."""
    command = load(name)
    helped = "-h" in arguments or "--help" in arguments
    line: list[str] = []
    function = None if isinstance(command, dict) else command
    if isinstance(command, dict):
        if arguments and not arguments[0].startswith("-"):
            line.append(arguments.pop(0))
            if line[0] not in command:
                raise ValueError(f"{name} has no '{line[0]}': {suggestion(line[0], command, f'see {name} --help')}")
        elif not helped and "--help" not in fires:
            line.append(next(iter(command)))  # the first of several commands may go without its name
        function = command.get(line[0]) if line else None
    if helped:
        line.append("--help")
    elif callable(function):
        if not {"-h", "--help"} & set(fires):
            line += normalise(function, arguments, " ".join([name, *line]))
        fire.decorators.SetParseFns(**parsers(function))(function)
    return fire.Fire(command, command=[*line, *fires], name=f"{program()} {name}", serialize=lambda _: None)


@contextmanager
def _output(quiet: bool, as_json: bool) -> Iterator[None]:
    """Send what a command prints nowhere if it is to be quiet, to the standard error if JSON is asked for."""
    with ExitStack() as stack:
        if quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stderr(nowhere))
            stack.enter_context(redirect_stdout(nowhere))
        elif as_json:
            stack.enter_context(redirect_stdout(sys.stderr))
        yield


if __name__ == "__main__":
    main()
