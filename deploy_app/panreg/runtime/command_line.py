"""The command line, looked at before the SDK does, which would end the process with a code of its own."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from panreg.failures import Code, Failure

__all__ = ["look_at"]

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print before it ends the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line; argparse's message may hold paths."""
        raise _not_understood([])


def look_at(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[Path | None, Failure | None]:
    """Find the output folder and what is wrong with the command line or the folders that it names.

    Args:
        arguments: of the process, its own name first.
        environ: with HOLOSCAN_INPUT_PATH and its like, for the folders that the command line does not name.

    Returns:
        The output folder, None where none can be made; and E_INTERNAL for a command line that is not understood,
        E_NO_INPUT, E_WEIGHTS or E_OUTPUT for folders that are not there, are none, or have an empty name, as of a
        variable that was lost (it would be the current folder); None where nothing is wrong.
    """
    try:
        options, unknown = _parser(environ).parse_known_args(list(arguments[1:]))
    except Failure as failure:
        return None, failure
    fault = _not_understood(unknown) if unknown else _fault(options)
    can_be_made = options.output.strip() and (os.path.isdir(options.output) or not os.path.exists(options.output))
    return Path(options.output) if can_be_made else None, fault


def _fault(options: argparse.Namespace) -> Failure | None:
    """Find what is wrong with the folders, the first of it; the work and the output folder may be made later."""
    for place, name, variable, code in (
        (options.input, "input", "INPUT_PATH, -i", Code.E_NO_INPUT),
        (options.model, "models", "MODEL_PATH, -m", Code.E_WEIGHTS),
        (options.workdir, "work", "WORKDIR, -w", Code.E_OUTPUT),
        (options.output, "output", "OUTPUT_PATH, -o", Code.E_OUTPUT),
    ):
        if not place.strip() and name != "work":  # that one may be left to the application
            return Failure(code, f"The {name} folder's name is empty: name a folder (HOLOSCAN_{variable}).")
        if not os.path.exists(place) and name in ("input", "models"):
            message = f"The {name} folder isn't there: mount it, or name another (HOLOSCAN_{variable})."
            return Failure(code, message)
        if os.path.exists(place) and not os.path.isdir(place):
            return Failure(code, f"The {name} folder is a file: name a folder (HOLOSCAN_{variable}).")
    return None


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Make a parser of the SDK's options."""
    parser = _Parser("deploy_app", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in (("input", "input"), ("output", "output"), ("model", "models")):
        place = environ.get(f"HOLOSCAN_{name.upper()}_PATH", default)
        parser.add_argument(f"-{name[0]}", f"--{name}", default=place, help=f"{name} folder")
    parser.add_argument("-w", "--workdir", default=environ.get("HOLOSCAN_WORKDIR", ""), help="folder to stage in")
    parser.add_argument("-l", "--log-level", type=str.upper, choices=LEVELS, default="WARN", help="what is logged")
    parser.add_argument("-t", "--triton-server-netloc", help="not used")
    return parser


def _not_understood(unknown: Sequence[str]) -> Failure:
    options = [word for word in unknown if re.fullmatch(r"--?[A-Za-z][A-Za-z-]*", word)]
    named = f" ({', '.join(options)})" if options else ""
    message = f"The command line is not understood{named}: it takes -i, -o, -m, -w and -l, each with a value."
    return Failure(Code.E_INTERNAL, message)
