"""Colours of pictures and pages, from a file (RRGGBB, one after the other): matplotlib takes long to start."""

import json
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

__all__ = ["colour_map"]


@cache
def colour_map(name: str) -> npt.NDArray[np.uint8]:
    """Look up a map of matplotlib's, ``"gray"``, ``"coolwarm"``, ``"berlin"`` or ``"PuOr_r"``: (256, 3), RGB."""
    if name == "gray":
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    tables = json.loads(files("bundle.report").joinpath("assets").joinpath("colours.json").read_text(encoding="utf-8"))
    return np.frombuffer(bytes.fromhex(tables[name]), dtype=np.uint8).reshape(-1, 3)
