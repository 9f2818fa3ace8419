"""Results kept on disk by all that they depend on: with another image, setting or version they are found anew."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bundle
from bundle.io.files import fingerprint, shortened, write_text

__all__ = ["digest", "key_of", "read_kept", "stem_of", "versions", "weights_used", "write_kept"]

PACKAGES = ("torch", "monai", "SimpleITK", "numpy", "scipy")
OTHER_WEIGHTS = ("across_contrasts", "one_person")  # that a description of weights may name


def versions() -> dict[str, str]:
    """Name the versions that a number may depend on."""
    packages = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version(), "bundle": bundle.__version__, **packages}


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of an image, together with the voxels that lie apart from its header."""
    return str(fingerprint(path)["sha256"])


def weights_used(path: str | os.PathLike[str]) -> dict[str, Any]:
    """List by content what weights come to: the file, its description, and the other weights that this one names.

    Args:
        path: of the weights; ``NAME.json`` beside ``NAME.pt`` describes them.
    """
    description = Path(path).with_suffix(".json")
    described = json.loads(description.read_text()) if description.is_file() else {}
    others = {key: weights_used(Path(path).with_name(described[key])) for key in OTHER_WEIGHTS if key in described}
    return {"sha256": digest(path), "description": described, **others}


def key_of(depends: Mapping[str, Any]) -> str:
    """Make a short name of what JSON can hold: another one for other content."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]


def stem_of(cache: Path, name: str, depends: Mapping[str, Any]) -> str:
    """Name the files of a result: readable, as far as a file's name may be, and another for all that it depends on."""
    return str(cache / f"{shortened(name)}.{key_of(depends)}")


def read_kept(stem: str) -> dict[str, Any] | None:
    """Read what ``write_kept`` wrote; None where there is nothing."""
    path = Path(f"{stem}.json")
    return dict(json.loads(path.read_text())["result"]) if path.is_file() else None


def write_kept(stem: str, result: Mapping[str, Any], depends: Mapping[str, Any]) -> None:
    """Keep a result all at once, so that an interrupted call leaves whole ones only: ``<stem>.json``.

    Args:
        stem: path without the ending.
        result: for JSON.
        depends: all that it depends on, whose ``key_of`` the stem should hold.
    """
    write_text(f"{stem}.json", json.dumps({"depends_on": depends, "result": result}, indent=4) + "\n")
