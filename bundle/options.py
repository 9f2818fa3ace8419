"""Options mean what they say: read by the annotation of the parameter they are for, and never guessed at."""

import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["as_text", "check_fill", "check_flags", "check_numbers", "nearest", "normalise", "parsers", "placeholders"]
__all__ += ["suggestion"]

MARKS = "#@%$"  # in MONAI's configs, of a level, a reference, a macro and an expression
LARGEST = 3.4e38  # that every reader takes for a finite float32
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def normalise(function: Callable[..., Any], arguments: Sequence[str], name: str) -> list[str]:
    """Bring the arguments of a command into one form, ``--parameter=value``, and refuse what it does not take.

    Understood: ``--parameter value``, ``--parameter=value``, ``-p value`` where one parameter alone starts with that
    letter, ``--flag`` and ``--noflag`` for a bool, dashes for underscores, and what a command cannot do without in its
    order, without names. ``--from`` is the parameter ``from_``: Python has the word for itself.

    Args:
        function: the command; its annotations say what its parameters take.
        arguments: from the command line.
        name: what messages call the command.

    Raises:
        ValueError: an unknown parameter, one given twice or without its value, one missing, or an argument too many.
    """
    types = _types(function)
    given: dict[str, str] = {}
    loose: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not _is_option(argument):
            loose.append(argument)
            continue
        key, equals, value = argument.partition("=")
        parameter, negated = _find(key, types, name)
        if negated:
            if equals:
                raise ValueError(f"{key} takes no value: give --{parameter} or {key}.")
            value = "false"
        elif not equals and rest and _is_value(rest[0], types[parameter]):
            value = rest.pop(0)
        elif not equals and (types[parameter] == Sequence[bool] or _is_flag(types[parameter])):
            value = "true"
        elif not equals:
            raise ValueError(f"--{parameter} takes a value (one that starts with a dash as --{parameter}=VALUE).")
        if parameter in given:
            raise ValueError(f"--{parameter} is given twice.")
        given[parameter] = value
    given |= _by_place(function, loose, given, name)
    return [f"--{parameter}={value}" for parameter, value in given.items()]


def parsers(function: Callable[..., Any]) -> dict[str, Callable[[str], Any]]:
    """Make for each parameter the function that reads its text, by its annotation: Fire's ``SetParseFns`` takes them.

    Text stays text, and so does what may be a path or a list of paths in Python. Known are ``str``, ``bool``, ``int``,
    ``float``, a ``Sequence`` of one of them, and None beside it, for which all but text take the word ``none``.
    """
    return {parameter: _parser(parameter, annotation) for parameter, annotation in _types(function).items()}


def placeholders(function: Callable[..., Any]) -> dict[str, str]:
    """Name for each parameter what stands in its value's place in a help text: ``NUMBER``, or ``NUMBER,...``."""
    found = {}
    for parameter, annotation in _types(function).items():
        kind, is_sequence, _ = _kind(parameter, annotation)
        found[parameter] = PLACEHOLDERS[kind] + (",..." if is_sequence else "")
    return found


def check_flags(**flags: Any) -> None:
    """Refuse what is neither true nor false: the text 'false' would count as true.

    Raises:
        ValueError: a flag that is no bool (or 0 or 1).
    """
    for name, value in flags.items():
        if isinstance(value, str) or value not in (True, False):
            raise ValueError(f"{name} takes True or False, spelt like that, not '{value}'.")


def check_numbers(**numbers: Any) -> None:
    """Refuse what is no finite number; None passes, for a setting that may be left out.

    Raises:
        ValueError: text, a bool, NaN, or another thing that is no number.
    """
    for name, value in numbers.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"{name} takes a number, not '{value}'.")


def check_fill(fill: float | None, name: str = "fill") -> None:
    """Refuse what an image of 32-bit numbers cannot be filled with; None passes.

    Raises:
        ValueError: no finite number, or one beyond their range.
    """
    check_numbers(**{name: fill})
    if fill is not None and abs(fill) > LARGEST:
        raise ValueError(f"{name} must lie within ±3.4e38, the range of 32-bit numbers, not {fill:g}.")


def as_text(text: str) -> str:
    r"""Write text so that MONAI's configs take it as it stands: they turn each ``#`` into ``::``, in any text.

    Text with one of their marks becomes an expression in which they are escaped.

    Example:
        >>> print(as_text("/data/run#1"))
        $'/data/run\x231'
    """
    if not set(MARKS) & set(text):
        return text
    return "$" + re.sub(f"[{MARKS}]", lambda mark: rf"\x{ord(mark[0]):02x}", ascii(text))


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Find the word that a misspelt one was meant to be: case, dashes, blanks and underscores count for nothing."""
    plain = {_plain(w): w for w in words}
    found = difflib.get_close_matches(_plain(word), plain, 1, cutoff)
    begun = [w for p, w in plain.items() if p.startswith(_plain(word))]
    return plain[found[0]] if found else begun[0] if len(begun) == 1 and word else None


def suggestion(word: str, words: Iterable[str], otherwise: str, prefix: str = "") -> str:
    """Say which of the words was meant, or something else where none is like it."""
    meant = nearest(word, words)
    return f"did you mean {prefix}{meant}?" if meant else otherwise


def _plain(word: str) -> str:
    return re.sub(r"[\s_-]", "", word).lower()


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function)
    return {parameter: hints[parameter] for parameter in inspect.signature(function).parameters}


def _is_option(argument: str) -> bool:
    """Tell an option from a value; a negative number is a value."""
    return re.match(r"--.|-[A-Za-z]", argument) is not None


def _is_value(argument: str, annotation: Any) -> bool:
    """Tell a value from what stands after a parameter without one: another option, or after a flag any other word."""
    if not _is_flag(annotation):
        return not _is_option(argument)
    return argument.strip().lower() in YES + NO + (() if annotation is bool else ("none",))


def _is_flag(annotation: Any) -> bool:
    """Tell whether a parameter is a bool, or one that may be left open."""
    return annotation in (bool, bool | None)


def _find(key: str, types: dict[str, Any], name: str) -> tuple[str, bool]:
    """Find the parameter that an option names, and whether it is negated."""
    word = key.lstrip("-").replace("-", "_")
    if word in types:
        return word, False
    if f"{word}_" in types:  # a word of Python's own: from
        return f"{word}_", False
    positive = re.sub("^no_?", "", word)
    if positive != word and _is_flag(types.get(positive)):
        return positive, True
    if len(word) == 1:
        begun = [parameter for parameter in types if parameter.startswith(word)]
        if len(begun) == 1:
            return begun[0], False
        if begun:
            raise ValueError(f"{key} may be any of {', '.join(f'--{parameter}' for parameter in begun)}: write it out.")
    raise ValueError(
        f"{name} has no option {key}: {suggestion(word, [t.rstrip('_') for t in types], f'see {name} --help', '--')}"
    )


def _by_place(function: Callable[..., Any], loose: Sequence[str], given: dict[str, str], name: str) -> dict[str, str]:
    """Give the arguments without a name to the parameters without a default, in their order."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    if len(loose) > len(needed):
        raise ValueError(
            f"{name} does not know what to do with '{loose[len(needed)]}': give options as --name value, and a value "
            "with blanks in quotes."
        )
    if len(loose) < len(needed):
        raise ValueError(f"{name} needs {' and '.join(f'--{parameter}' for parameter in needed[len(loose) :])}.")
    return dict(zip(needed, loose))


def _kind(parameter: str, annotation: Any) -> tuple[type, bool, bool]:
    """Tell what an annotation is of, whether of a sequence of such, and whether None may stand in its place."""
    is_union = get_origin(annotation) in (UnionType, Union)  # Python 3.10 makes the second of a default None
    kinds = get_args(annotation) if is_union else (annotation,)
    if any(get_origin(kind) is os.PathLike for kind in kinds):  # files: commas may be part of their names
        return str, False, NoneType in kinds
    sequences = [kind for kind in kinds if get_origin(kind) is Sequence]
    kind = get_args(sequences[0])[0] if sequences else next(k for k in kinds if k is not NoneType)
    if kind not in READERS:
        raise TypeError(f"No text can be read as {annotation}, which {parameter} takes.")
    return kind, bool(sequences), NoneType in kinds


def _parser(parameter: str, annotation: Any) -> Callable[[str], Any]:
    """Make the function that reads the text given for a parameter."""
    kind, is_sequence, may_be_none = _kind(parameter, annotation)
    one, many, read = READERS[kind]

    def parse(text: str) -> Any:
        if may_be_none and kind is not str and text.lower() == "none":
            return None
        if not text.strip():
            raise ValueError(f"--{parameter} is empty.")
        try:
            return [read(part) for part in _parts(text)] if is_sequence else read(text)
        except ValueError:
            what = f"{many} with commas between them" if is_sequence else one
            raise ValueError(f"--{parameter} takes {what}, not '{text}'.") from None

    return parse


def _parts(text: str) -> list[str]:
    """Take apart ``1,2,3``, with or without brackets around it, blanks after commas and quotes around words."""
    inner = text.strip()
    if inner[0] + inner[-1] in ("[]", "()"):
        inner = inner[1:-1]
    return [part.strip().strip("'\"") for part in inner.rstrip(",").split(",")]


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text.strip()):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text.strip()):
        raise ValueError
    if not math.isfinite(float(text)):
        raise ValueError
    return float(text)


def _flag(text: str) -> bool:
    if text.strip().lower() not in YES + NO:
        raise ValueError
    return text.strip().lower() in YES


READERS: dict[type, tuple[str, str, Callable[[str], Any]]] = {  # what messages call one of the kind, and several
    str: ("text", "words", str),
    bool: ("true or false", "true or false", _flag),
    int: ("a whole number", "whole numbers", _whole),
    float: ("a number", "numbers", _number),
}
PLACEHOLDERS = {str: "TEXT", bool: "true|false", int: "WHOLE_NUMBER", float: "NUMBER"}  # of the same kinds
