"""Options of ``python -m monai.bundle run``, which override keys of the configs."""

import inspect
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pydoc import locate
from typing import Any

import monai.bundle
from bundle.failures import OutcomeError
from bundle.options import as_text, suggestion
from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS as TRACKING

__all__ = ["check_overrides"]

OF_MONAI = ("_meta_", "imports", "workflow_name", "workflow_type")
NOTES = "resumption"  # it notes the options of a training, and takes none
TO_RUN = {"run_id": "run", "init_id": "initialize", "final_id": "finalize"}
MARKED = re.compile("#|[@%]::")  # MONAI reads # as ::, and @:: and %:: as the way to another key, in any text
OTHER_KEY = re.compile(r"[@%](?:\w|#|::)+|#")  # in an expression, where a # stands beside those of references
OPTION = re.compile(r"--?(\+?[A-Za-z_][^=]*)(?:=(.*))?", re.DOTALL)
WAY = re.compile("#|::")  # from a key to one below it


def check_overrides(arguments: Sequence[str] | None = None) -> None:
    """Refuse an option of ``python -m monai.bundle run`` that overrides nothing, and text that MONAI would change.

    MONAI adds a key that the configs do not have: ``--epoch 3`` would train as many epochs as before. Nor
    does a key change anything whose only user one of the configs replaces: ``--alpha`` where another loss takes over. A
    key, new or not, that another one refers to (``@name``, ``%name``), or that is to be run, stands. So it is below the
    first level of a key, where a component takes what it has a parameter for, and a section that is handed on as a
    whole whatever it is given. Of a way to a key that breaks off before its end MONAI itself says so, before this runs.

    MONAI merges (``+``) in config files alone.

    MONAI passes over None, too, which ``'$None'`` stands for. A file of options (``--args_file``) may hold it.

    A ``#`` in text, of a path say, becomes ``::``, in an option and in a config alike: another folder would be written.

    Args:
        arguments: the command line after ``python -m monai.bundle``; None for this process's own, if it is one.

    Raises:
        OutcomeError: a key that nothing refers to, whether a config has it or not; one that its component does not
            take; None; a key to merge; text that would not stay as it is; what is to be run and is not there.
    """
    if arguments is None:
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        arguments = sys.argv[1:] if spec is not None and spec.name.startswith("monai.bundle") else ()
    if not arguments or arguments[0] not in ("run", "run_workflow"):
        return
    own = [*inspect.signature(monai.bundle.run).parameters]
    given, loose = _options(arguments[1:])
    _refuse_merging([key for key in given if key.startswith("+")])
    _refuse_none([key for key, value in given.items() if value is None and key not in own])
    given = dict(zip(own, loose)) | given
    if "args_file" in given:
        given = dict(ConfigParser.load_config_file(given["args_file"])) | given
    given = {key: value for key, value in given.items() if value is not None}  # MONAI's own, or of a file
    if "config_file" not in given:
        return
    parser = ConfigParser()
    parser.read_config(given["config_file"])  # what a config replaces is gone, and refers to nothing
    config = parser.config
    read = {*own, *_of_tracking(given.get("tracking")), *OF_MONAI}
    read |= {str(given.get(name, default)) for name, default in TO_RUN.items()}
    if "run_id" in given:  # MONAI would say so once all else is done
        _check_run(str(given["run_id"]), parser, given)
    text = json.dumps([{k: v for k, v in config.items() if k != NOTES}, given], default=str)
    for key in given:
        _check(WAY.split(key)[0], read, config, text)
    for key, value in {**config, **given}.items():
        if key not in own and key != NOTES:
            _check_texts(key, value)
    _check_below({key: value for key, value in given.items() if WAY.split(key)[0] not in read}, parser, text)


def _options(words: Sequence[str]) -> tuple[dict[str, Any], list[Any]]:
    """Read names and values as Fire does, and the values without a name."""
    from fire.parser import DefaultParseValue  # here: an application that uses the configs may lack it

    given: dict[str, Any] = {}
    loose: list[Any] = []
    rest = list(words[: words.index("--")] if "--" in words else words)
    while rest:
        word = rest.pop(0)
        found = OPTION.fullmatch(word)
        if found is None:
            loose.append(DefaultParseValue(word))
            continue
        name, value = found[1].replace("-", "_"), found[2]
        if value is None and rest and not OPTION.fullmatch(rest[0]):
            value = rest.pop(0)
        if value is None:  # --noamp is amp=False, as --amp is amp=True
            given[name.removeprefix("no")] = not name.startswith("no")
        else:
            given[name] = DefaultParseValue(value)
    return given, loose


def _refuse_none(keys: Sequence[str]) -> None:
    """Refuse options that are given None: MONAI takes them for not given, and the configs' values stand."""
    if keys:
        raise OutcomeError(
            f"MONAI passes over --{keys[0]} None, so that it would change nothing: give --{keys[0]} '$None', or leave "
            "it out."
        )


def _refuse_merging(keys: Sequence[str]) -> None:
    """Refuse keys to merge, which MONAI would add under that name."""
    if keys:
        raise OutcomeError(
            f"MONAI merges (+) in config files alone, so that --{keys[0]} would change nothing: give --{keys[0][1:]} "
            f'all of it, or write "{keys[0]}" into a config of your own.'
        )


def _of_tracking(tracking: Any) -> Sequence[str]:
    """Name the keys that experiment tracking adds to the configs."""
    if tracking is None:
        return ()
    settings = tracking if isinstance(tracking, dict) else TRACKING.get(tracking)
    return [*(settings or ConfigParser.load_config_file(tracking)).get("configs", ())]


def _check(name: str, read: Collection[str], config: Collection[str], text: str) -> None:
    """Refuse a key of the first level that MONAI does not read, nor what the configs and options say refers to."""
    if name in read or re.search(rf"[@%]{re.escape(name)}\b", text):
        return
    if name in config:
        raise OutcomeError(f"Nothing in these configs takes --{name}, so that it would change nothing: leave it out.")
    advice = suggestion(name, {*config, *read}, "the keys stand in the config files", "--")
    raise OutcomeError(f"No config has a key for --{name}, so that it would change nothing: {advice}")


def _check_below(given: Mapping[str, Any], parser: ConfigParser, text: str) -> None:
    """Check keys below the first level in their order: a section that is given may have others than the configs'."""
    for key, value in given.items():
        if len(WAY.split(key)) > 1:
            _check_key(key, parser, text)
        with suppress(KeyError, IndexError, TypeError, ValueError):  # MONAI has said why it cannot override it
            parser[key] = value


def _check_key(key: str, parser: ConfigParser, text: str) -> None:
    """Refuse a key below the first level that is new and that neither a component nor anything else would take."""
    *way, name = WAY.split(key)
    section, prefix = parser.get("::".join(way)), f"--{'#'.join(way)}#"
    if not isinstance(section, dict) or name in section:
        return  # an entry of a list is there, or else MONAI has said that it is not
    if ConfigComponent.is_instantiable(section):
        target, known = _parameters(section, parser)
        if known is not None and name not in known:
            advice = suggestion(name, known, f"it takes {', '.join(known)}", prefix)
            raise OutcomeError(f"{target} takes no '{name}' as --{key} gives it: {advice}")
        return
    ways = [way[:length] for length in range(1, len(way) + 1)]
    handed_on = any(ConfigComponent.is_instantiable(parser.get("::".join(one))) for one in ways)
    handed_on |= any(re.search(rf"[@%]{_any_way(one)}(?!\w|#|::)", text) for one in ways)
    if way[0] == NOTES or not (handed_on or re.search(rf"[@%]{_any_way([*way, name])}\b", text)):
        advice = suggestion(name, section, f"it has {', '.join(section) or 'no keys'}", prefix)
        raise OutcomeError(f"No config has a key for --{key}, so that it would change nothing: {advice}")


def _any_way(keys: Sequence[str]) -> str:
    """Write the pattern of a reference to a key, which may have either mark between its parts."""
    return "(?:#|::)".join(map(re.escape, keys))


def _parameters(component: Mapping[str, Any], parser: ConfigParser) -> tuple[str, Sequence[str] | None]:
    """Name the target of a component and what it takes; None if it takes anything, or does not tell."""
    target = component["_target_"]
    if not isinstance(target, str) or target.startswith(("$", "@", "%")):
        return str(target), None
    try:
        found = inspect.signature(locate(ConfigComponent(component, locator=parser.locator).resolve_module_name()))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # nothing there, or written in C
        return target, None
    kinds = {name: parameter.kind for name, parameter in found.parameters.items()}
    if inspect.Parameter.VAR_KEYWORD in kinds.values():
        return target, None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return target, [*(name for name, kind in kinds.items() if kind in by_name), *ConfigComponent.non_arg_keys]


def _check_run(name: str, parser: ConfigParser, given: Mapping[str, Any]) -> None:
    """Refuse to run what neither the configs nor the options have."""
    if name in parser or WAY.split(name)[0] in given:
        return
    known = [key for key, value in parser.config.items() if value == "%run"]
    advice = suggestion(name, [*known, "run"], f"they have {' and '.join(known or ['run'])}")
    raise OutcomeError(f"These configs have no '{name}' to run: {advice}")


def _check_texts(key: str, value: Any) -> None:
    """Refuse text that MONAI would change before anything reads it."""
    for text in _texts(value):
        meant = _as_meant(text)
        if meant != text:
            raise OutcomeError(
                f"MONAI reads {key}, '{text}', otherwise than it stands, since it has a mark of its configs (#, @::, "
                f'%::): name a place without one, or give "{meant}".'
            )


def _as_meant(text: str) -> str:
    """Write text so that MONAI takes it as it stands, if it does not already; references and macros stay."""
    if text.startswith(("@", "%")):
        return text
    if text.startswith("$"):
        return OTHER_KEY.sub(lambda found: r"\x23" if found[0] == "#" else found[0], text)
    return as_text(text) if MARKED.search(text) else text


def _texts(value: Any) -> Iterator[str]:
    """Find the text of an option or of a config, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
