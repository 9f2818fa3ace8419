"""The command line: ``pan-registration COMMAND``, or ``python -m bundle COMMAND`` in a checkout."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from itertools import takewhile
from pathlib import Path
from typing import Any

import fire
from bundle import __version__
from bundle.endings import ended_in_words, printing_on
from bundle.failures import bad_input
from bundle.io.files import utf8
from bundle.io.plain import plain
from bundle.options import normalise, parsers, suggestion
from bundle.start import load_monai, spin_briefly, without_collections
from bundle.usage import first_line, help_text, listed

COMMANDS = {
    "register": "Align a moving image to a fixed one.",
    "apply": "Resample an image of the moving side onto the fixed image's grid.",
    "apply_points": "Carry points or a surface from the moving image to the fixed one, or the other way round.",
    "invert": "Invert a transform: from points of the moving image to points of the fixed one.",
    "compose": "Make one transform of several, in the order in which an image passes them: nearest to the moving image "
    "first.",
    "convert": "Write a transform in the form of another tool; what each form holds is in docs/transforms.md.",
    "jacobian": "Write the Jacobian determinant of a transform at the voxels of the fixed image.",
    "prepare": "Bring a folder or a dataset.json of raw images onto one grid, aligned to one of them.",
    "phantom": "Make a small data set of synthetic labelled heads, with no download.",
    "demo": "Register two synthetic heads on different grids, the moving one oblique, or two images given.",
    "benchmark": "Measure what the bundle costs, and how it does beside other methods.",
    "report": "Write one page of a training (curves, pictures), or of benchmark accuracy or an evaluation (tables, "
    "spread).",
    "root": "Print the bundle root, the folder with configs and models, for MONAI's --bundle_root; and return it.",
}
"""The commands, and the first lines of their docstrings, so that a list of them imports none."""

COMMON = "--quiet", "--json"  # options of all commands
HELP = "-h", "--help"

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


def overview() -> str:
    """Lay out the commands, and what all of them take."""
    return (
        f"usage: {program()} COMMAND [options]\n\n{listed(COMMANDS)}\n\n"
        f"{program()} COMMAND --help shows what a command takes. All take --quiet (nothing but errors is printed)\n"
        "and --json (what the command returns is printed as JSON, and all else to the standard error)."
    )


def main() -> None:
    """Run one command; a bad input ends in one sentence and exit code 2, a signal in that of shells."""
    with printing_on(), ended_in_words():
        _run_command()


def _run_command() -> None:
    words = sys.argv[1:]
    common = [*takewhile(COMMON.__contains__, words)]
    words = words[len(common) :]
    if words[:1] == ["help"]:  # as --help after what follows
        words = [*words[1:], "--help"]
    name = words[0] if words else ""
    if name in (*HELP, "--version"):
        print(f"pan-registration {__version__}" if name == "--version" else overview())
        raise SystemExit(0)
    if not name:
        print(overview(), file=sys.stderr)
        raise SystemExit(2)
    if name not in COMMANDS:
        is_option = name.startswith("-")
        meant = "options stand after the command" if is_option else suggestion(name, COMMANDS, "unknown")
        usage = f"usage: {program()} {{{','.join(COMMANDS)}}} [--help] [--quiet] [--json]"
        print(f"{usage} ({name}: {meant})", file=sys.stderr)
        raise SystemExit(2)
    try:
        run(name, [*common, *words[1:]])
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
    quiet, as_json = (option in arguments for option in COMMON)
    arguments = [argument for argument in arguments if argument not in COMMON]
    with _output(quiet, as_json):
        result = _fire(name, arguments, fires)
    if as_json:
        print(json.dumps(plain(result), indent=4))


def _fire(name: str, arguments: list[str], fires: list[str]) -> Any:
    """Find the function, check its arguments, and have Fire call it; what it returns. Or show its help, and end."""
    command = load(name)
    is_helped = any(word in (*arguments, *fires) for word in HELP)
    line: list[str] = []
    if isinstance(command, dict):
        if not arguments or arguments[0].startswith("-"):
            kinds = listed({key: first_line(function) for key, function in command.items()})
            if not is_helped:
                raise ValueError(f"{name} needs the name of one of its commands, before all options:\n\n{kinds}")
            print(f"usage: {program()} {name} COMMAND [options]\n\n{COMMANDS[name]}\n\n{kinds}")
            raise SystemExit(0)
        line.append(arguments.pop(0))
        if line[0] not in command:
            raise ValueError(f"{name} has no '{line[0]}': {suggestion(line[0], command, f'see {name} --help')}")
    function = command[line[0]] if isinstance(command, dict) else command
    if is_helped:
        print(help_text(function, " ".join([program(), name, *line])))
        raise SystemExit(0)
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
