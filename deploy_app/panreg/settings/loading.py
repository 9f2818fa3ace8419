"""Read the settings: ``app.yaml`` (section ``panreg``), overridden by the environment (``PANREG_…``)."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from panreg.failures import Code, Failure
from panreg.settings.model import Settings
from panreg.values import REFUSED
from pydantic import ValidationError
from pydantic_core import ErrorDetails

__all__ = ["load_settings", "settings_file", "variables"]

APP_YAML = Path(__file__).parents[2] / "app.yaml"
TABLES = {"series_numbers", "padding"}  # by key: the defaults stay of the keys that nobody names
SECTION = "panreg"
OTHERS = {"application", "resources", "extensions"}
"""Sections of the same file that are not ours: the first two are the packager's, the third is the engine's."""


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings: the defaults, changed by the file, changed by the environment.

    A variable is ``PANREG_`` and the setting's name, with its section before it but for ``pair``:
    ``PANREG_FIXED_SERIES_UID``, ``PANREG_QUALITY_ON_FAILURE``, ``PANREG_SERIES_NUMBERS_DSRO``. What nobody knows is
    refused, and so is an empty variable: a misspelt or lost choice must not let another rule choose. What somebody set
    can be told from a default of the same value (``model_fields_set``).

    Args:
        path: ``app.yaml``, whose section ``panreg`` is read: it may hold nothing, but has to be there; None for the
            defaults.
        environ: of the process; what does not begin with ``PANREG_`` is left alone.

    Raises:
        Failure: E_INTERNAL, as for weights that don't fit: the installation is wrong, not the input.
    """
    document = _merged(Settings().model_dump(include=TABLES), _read(path))
    settings, known = _validated(document), variables()
    for name in sorted(name for name in environ if name.startswith("PANREG_")):
        if name not in known:
            raise _refusal(name, f"is not known{_suggestion(name, known, 'PANREG_')}")
        change: Any = environ[name]
        for key in reversed(known[name]):
            change = {key: change}
        document = _merged(document, change)
        settings = _validated(document)
    _check_series_numbers(settings)  # of file and environment together: one may correct the other
    return settings


def _check_series_numbers(settings: Settings) -> None:
    """Refuse a number that two series have: the setting that is no default is named first."""
    numbers, defaults = settings.series_numbers, Settings().series_numbers
    ordered = sorted(numbers, key=lambda name: numbers[name] == defaults[name])
    for name in ordered:
        for other in ordered[ordered.index(name) + 1 :]:
            if numbers[name] == numbers[other]:
                owner = f"series_numbers.{other} (PANREG_SERIES_NUMBERS_{other.upper()})"
                raise _refusal(f"series_numbers.{name}", f"takes another number than {owner}")


def settings_file(environ: Mapping[str, str]) -> Path:
    """Find ``app.yaml``: where HOLOSCAN_CONFIG_PATH says, or beside the application.

    Raises:
        Failure: E_INTERNAL: the variable is empty.
    """
    place = environ.get("HOLOSCAN_CONFIG_PATH", str(APP_YAML))
    if not place.strip():
        message = "HOLOSCAN_CONFIG_PATH is empty: name the settings file, or unset it for the application's own."
        raise Failure(Code.E_INTERNAL, message)
    return Path(place)


def variables() -> dict[str, tuple[str, ...]]:
    """All environment variables, each with the keys of its setting."""
    found: dict[str, tuple[str, ...]] = {}
    for name, default in Settings().model_dump().items():
        for key in default if isinstance(default, dict) else [""]:
            address = (name, key) if key else (name,)
            words = (key,) if name == "pair" else address
            found["_".join(("PANREG", *words)).upper()] = address
    del found["PANREG_SERIES"]  # rules have a structure: the file holds them
    return found


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain values alone, and refuses a key that stands twice, where YAML's own would take the last."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a section as it is written, before others are merged into it."""
        node, seen = super().compose_mapping_node(anchor), dict[tuple[str, str], int]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in seen:
                raise _refusal(key.value, f"stands twice in one section (lines {seen[name]} and {line})")
            seen[name] = line
        return node


def _read(path: Path | None) -> Any:
    if path is None:
        return {}
    try:
        document = yaml.load(path.read_bytes(), _Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:  # a ValueError of a date that there is not
        raise Failure(Code.E_INTERNAL, f"The settings file can't be read ({type(error).__name__}).") from None
    if not isinstance(document, Mapping):
        raise _refusal("app.yaml", "takes sections")
    for name in map(str, document):
        if name in Settings.model_fields:
            raise _refusal(name, f"stands outside the section {SECTION}")
        if name not in {SECTION, *OTHERS}:
            raise _refusal(name, f"is not known{_suggestion(name, [SECTION, *OTHERS])}")
    if SECTION not in document:
        raise _refusal(SECTION, "is the section of the settings, which the file lacks")
    return {} if document[SECTION] is None else document[SECTION]


def _merged(document: Any, change: Any) -> Any:
    """Put a change into a document: sections are merged, anything else is replaced."""
    if not isinstance(document, dict) or not isinstance(change, dict):
        return change
    return document | {key: _merged(document.get(key), value) for key, value in change.items()}


def _validated(document: Any) -> Settings:
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise _refused(error.errors(include_url=False, include_input=False)[0]) from None


def _refused(error: ErrorDetails) -> Failure:
    """Say in our words which setting is wrong, and what it takes."""
    kind, keys = error["type"], [str(key) for key in error["loc"] if key != "[key]"]
    name = ".".join(keys)
    if kind in ("extra_forbidden", "invalid_key") or "[key]" in error["loc"]:
        *section, key = keys
        beside = {rest[0] for rest in _within(section)}
        return _refusal(name, f"is not known{_suggestion(key, beside)}")
    if kind == "literal_error":
        words = re.findall("'(.*?)'", error["ctx"]["expected"])
        return _refusal(name, f"takes {' or '.join(words)}")
    if kind == REFUSED:
        return _refusal(name, error["msg"])
    return _refusal(name or "panreg", "takes a section of settings")


def _within(section: list[str]) -> list[tuple[str, ...]]:
    """List the keys of the settings of a section, without the section's own."""
    depth = len(section)
    found = [address for address in variables().values() if [*address[:depth]] == section]
    return [address[depth:] for address in found if len(address) > depth]


def _suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    words = [word.removeprefix(prefix) for word in known]
    meant = difflib.get_close_matches(name.removeprefix(prefix), words, 1, cutoff=0.7)
    return f" (did you mean {prefix}{meant[0]}?)" if meant else ""


def _refusal(name: str, sentence: str) -> Failure:
    variable = next((known for known, address in variables().items() if ".".join(address) == name), "PANREG_…")
    return Failure(Code.E_INTERNAL, f"The setting {name} {sentence}: correct app.yaml or the environment ({variable}).")
