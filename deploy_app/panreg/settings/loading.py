"""Read the settings: ``app.yaml`` (section ``panreg``), overridden by the environment (``PANREG_…``)."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from panreg.failures import Code, Failure
from panreg.settings.model import Settings
from panreg.settings.rules import fault

__all__ = ["CHOICES", "load_settings", "settings_file", "variables"]

APP_YAML = Path(__file__).parents[2] / "app.yaml"


CHOICES = {
    "affine": ("auto", "none", "center", "rigid", "affine"),
    "grid": ("auto", "straight", "original"),
    "pair.order": ("later_is_fixed", "prior_is_fixed"),
    "pair.patient_check": ("strict", "allow_unidentified"),
    "pair.patient_conflict": ("refuse", "warn"),
    "pair.invalid_uids": ("refuse", "keep"),
    "quality.on_failure": ("flag", "fail"),
}
# the least and the greatest value; every other number is above 0
RANGES = {
    "pair.min_slices": (3, 100_000),
    "quality.min_similarity": (0, 1),
    "quality.min_foreground_dice": (0, 1),
    "quality.min_common_view_percent": (0, 100),
    "quality.max_rotation_degrees": (0, 180),
    "quality.max_stretch": (1, 100),
    "quality.max_volume_ratio": (1, 1000),
    "quality.max_folding_percent": (0, 100),
    "padding": (-32768, 32767),
    "series_numbers": (1, 2**31 - 1),
}
LABEL_LENGTH = 64  # it becomes a Long String (LO)


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings: the defaults, changed by the file, changed by the environment.

    A variable is ``PANREG_`` and the setting's name, with its section before it but for ``pair``:
    ``PANREG_FIXED_SERIES_UID``, ``PANREG_QUALITY_ON_FAILURE``, ``PANREG_SERIES_NUMBERS_DSRO``. What nobody knows is
    refused, and so is an empty variable: a misspelt or lost choice must not let another rule choose.

    Args:
        path: ``app.yaml``, whose section ``panreg`` is read; None for the defaults.
        environ: of the process; what does not begin with ``PANREG_`` is left alone.

    Raises:
        Failure: E_INTERNAL, as for weights that don't fit: the installation is wrong, not the input.
    """
    settings: Settings = _merge(Settings(), _read(path), "")
    for name in sorted(name for name in environ if name.startswith("PANREG_")):
        address = variables().get(name)
        if address is None:
            raise _refusal(name, "is not known")
        change: Any = environ[name]
        for key in reversed(address):
            change = {key: change}
        settings = _merge(settings, change, "")
    numbers = settings.series_numbers.values()
    if len(set(numbers)) < len(numbers):
        raise _refusal("series_numbers", "takes a different number for every series")
    return settings


def settings_file(environ: Mapping[str, str]) -> Path:
    """Find ``app.yaml``: where HOLOSCAN_CONFIG_PATH says, or beside the application."""
    return Path(environ.get("HOLOSCAN_CONFIG_PATH", APP_YAML))


def variables() -> dict[str, tuple[str, ...]]:
    """All environment variables, each with the keys of its setting."""
    found: dict[str, tuple[str, ...]] = {}
    for name, default in _items(Settings()).items():
        for key in _items(default) or [""]:
            address = (name, key) if key else (name,)
            words = (key,) if name == "pair" else address
            found["_".join(("PANREG", *words)).upper()] = address
    del found["PANREG_SERIES"]  # rules have a structure: the file holds them
    return found


def _read(path: Path | None) -> Any:
    if path is None:
        return {}
    try:
        document = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise Failure(Code.E_INTERNAL, f"The settings file can't be read ({type(error).__name__}).") from None
    if not isinstance(document, Mapping):
        raise _refusal("app.yaml", "takes sections")
    return document.get("panreg") or {}


def _items(default: Any) -> dict[str, Any]:
    """Names and values of a section; none for a single value."""
    if is_dataclass(default):
        return {item.name: getattr(default, item.name) for item in fields(default)}
    return dict(default) if isinstance(default, Mapping) else {}


def _merge(default: Any, change: Any, name: str) -> Any:
    """Change a setting, or those of a section that ``change`` names."""
    if name == "pair.series":
        return _rules(change)
    known = _items(default)
    if not known:
        return _value(str if default is None else type(default), change, name)
    if not isinstance(change, Mapping):
        raise _refusal(name or "panreg", "takes a section of settings")
    changed = {}
    for key, value in change.items():
        full_name = f"{name}.{key}" if name else str(key)
        if key not in known:
            raise _refusal(full_name, "is not known")
        changed[key] = _merge(known[key], value, full_name)
    return replace(default, **changed) if is_dataclass(default) else known | changed  # type: ignore[type-var]


def _rules(change: Any) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(change, Mapping) or not set(change) <= {"fixed", "moving"}:
        raise _refusal("pair.series", "takes a rule for fixed, for moving, or for both")
    for role, rule in change.items():
        wrong = fault(rule)
        if wrong:
            raise _refusal(f"pair.series.{role}", wrong)
    return dict(change)


def _value(kind: type, value: Any, name: str) -> Any:
    """Convert what the file or the environment says to the setting's kind, or refuse it."""
    if kind is str:
        return _text(value, name)
    if kind is bool:
        spelled = {"true": True, "false": False}.get(str(value).lower())
        if spelled is None:
            raise _refusal(name, "takes true or false")
        return spelled
    low, high = RANGES.get(name, RANGES.get(name.split(".")[0], (math.ulp(0), math.inf)))
    try:
        number = kind(str(value))  # from text: else True would pass for 1, and 2.5 for 2
    except ValueError:
        number = math.nan
    if not low <= number <= high or math.isinf(number):
        limits = f"from {low} to {high}" if high < math.inf else "above 0"
        raise _refusal(name, f"takes a {'whole ' * (kind is int)}number {limits}")
    return number


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refusal(name, "takes a text that is not empty (in quotes, where it looks like a number)")
    if name in CHOICES and value not in CHOICES[name]:
        raise _refusal(name, f"takes {' or '.join(CHOICES[name])}")
    if name == "label" and (len(value) > LABEL_LENGTH or "\\" in value or not value.isprintable()):
        raise _refusal(name, f"takes at most {LABEL_LENGTH} printable characters and no backslash")
    return value


def _refusal(name: str, sentence: str) -> Failure:
    variable = next((known for known, address in variables().items() if ".".join(address) == name), "PANREG_…")
    return Failure(Code.E_INTERNAL, f"The setting {name} {sentence}: correct app.yaml or the environment ({variable}).")
