"""What ``--help`` shows: commands with a line each, and the options of one as they are typed."""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from bundle.options import placeholders

__all__ = ["first_line", "help_text", "listed"]

WIDTH = 100
SECTION = re.compile(r"^(Args|Returns|Raises|Example|Source):$", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)


def first_line(function: Callable[..., Any]) -> str:
    """Say what a command does: the first line of its docstring, without marks."""
    return _plain((inspect.getdoc(function) or "").partition("\n")[0])


def listed(commands: Mapping[str, str]) -> str:
    """List commands with what each does, a line or more for each."""
    width = max(map(len, commands)) + 2
    return "\n".join(_entry(f"  {name:{width}}", text, " " * (width + 2)) for name, text in commands.items())


def help_text(function: Callable[..., Any], name: str) -> str:
    """Lay out what a command does and takes, by its docstring and its parameters.

    Args:
        function: the command, with a docstring in Google's style.
        name: what is typed to call it.
    """
    description, *rest = SECTION.split(inspect.getdoc(function) or "")
    sections = dict(zip(rest[::2], rest[1::2]))
    meanings = {key: _plain(text) for key, text in ENTRY.findall(sections.get("Args", ""))}
    options: dict[bool, list[str]] = {True: [], False: []}
    needed = []
    for key, parameter in inspect.signature(function).parameters.items():
        option = f"--{key.rstrip('_')} {placeholders(function)[key]}"
        if is_needed := parameter.default is parameter.empty:
            needed.append(option)
        options[is_needed].append(f"  {option}{_default(parameter.default)}")
        options[is_needed].append(_entry(" " * 6, meanings.get(key, ""), " " * 6))
    parts = [_entry("usage: ", " ".join([name, *needed, "[options]" if options[False] else ""]), " " * 7)]
    parts += [_entry("", _plain(paragraph), "") for paragraph in description.strip().split("\n\n")]
    for title, lines in (("needed:", options[True]), ("options:", options[False])):
        parts += ["\n".join([title, *lines])] if lines else []
    if "Returns" in sections:
        parts.append("returns (--json prints it):\n" + _entry("  ", _plain(sections["Returns"]), "  "))
    return "\n\n".join(parts)


def _default(value: Any) -> str:
    """Say what an option is without being given; nothing where it is left open, which its text tells of."""
    if value is inspect.Parameter.empty or value is None:
        return ""
    if isinstance(value, tuple | list):
        return f"  (default: {','.join(map(str, value))})"
    return f"  (default: {str(value).lower() if isinstance(value, bool) else value})"


def _plain(text: str) -> str:
    """Write text of a docstring in one line, without its marks."""
    return " ".join(text.replace("``", "").split())


def _entry(first: str, text: str, others: str) -> str:
    """Break text into lines that begin as given; paths and options stay whole."""
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False).rstrip()
