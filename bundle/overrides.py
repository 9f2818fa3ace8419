"""Options of ``python -m monai.bundle run``, which override keys of the configs."""

import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import monai.bundle
from bundle.options import suggestion
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS as TRACKING

__all__ = ["check_overrides"]

OPTION = re.compile(r"--?([A-Za-z_][^=]*)(?:=(.*))?", re.DOTALL)


def check_overrides(arguments: Sequence[str] | None = None) -> None:
    """Refuse an option of ``python -m monai.bundle run`` that overrides nothing.

    MONAI adds a key that the configs do not have: ``--epoch 3`` would train as many epochs as before. A new key that
    another one refers to (``@name``, ``%name``) stands.

    Args:
        arguments: the command line after ``python -m monai.bundle``; None for this process's own, if it is one.

    Raises:
        ValueError: a key that no config has, nor anything refers to.
    """
    if arguments is None:
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        arguments = sys.argv[1:] if spec is not None and spec.name.startswith("monai.bundle") else ()
    if not arguments or arguments[0] != "run":
        return
    given = _options(arguments[1:])
    if "args_file" in given:
        given = dict(ConfigParser.load_config_file(given["args_file"])) | given
    config = ConfigParser.load_config_files(given["config_file"])
    own = {*inspect.signature(monai.bundle.run).parameters, "_meta_"} - {"override"}
    tracking = given.get("tracking")
    if tracking is not None:  # its settings become keys
        own |= set((TRACKING.get(tracking) or ConfigParser.load_config_file(tracking))["configs"])
    overrides = {key.replace("::", "#"): value for key, value in given.items() if key not in own}
    text = json.dumps([config, overrides], default=str)
    for key in overrides:
        _check(key, config, own, text)


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Read names and values as Fire does."""
    from fire.parser import DefaultParseValue  # here: an application that uses the configs may lack it

    given: dict[str, Any] = {}
    rest = list(words[: words.index("--")] if "--" in words else words)
    while rest:
        found = OPTION.fullmatch(rest.pop(0))
        if found is None:
            continue
        name, value = found[1], found[2]
        if value is None and rest and not OPTION.fullmatch(rest[0]):
            value = rest.pop(0)
        given[name if "#" in name or "::" in name else name.replace("-", "_")] = (
            None if value is None else DefaultParseValue(value)
        )
    return given


def _check(key: str, config: Mapping[str, Any], own: set[str], text: str) -> None:
    """Refuse one key: each part of it must be there, but for the arguments of a component, which it judges itself."""
    level: Any = config
    parts = key.split("#")
    for n, part in enumerate(parts):
        if not isinstance(level, Mapping) or "_target_" in level:
            return
        if part not in level:
            if n == 0 and (part in own or re.search(rf"[@%]{re.escape(part)}\b", text)):
                return
            before = "".join(f"{name}#" for name in parts[:n])
            known = [*level, *own] if n == 0 else [*level]
            advice = suggestion(part, known, "the keys stand in the config files", f"--{before}")
            raise ValueError(f"No config has a key for --{key}, so that it would change nothing: {advice}")
        level = level[part]
