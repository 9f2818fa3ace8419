"""What the images of a prepared folder were made from, and how: a run that goes on must make the others likewise."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.io.files import fingerprint, is_unchanged, write_text

__all__ = ["Prepared"]

NOTES = "prepared.json"


class Prepared:
    """Notes in a folder that ``prepare`` writes.

    Args:
        root: of the folder.
        settings: what every image in it depends on; as JSON.

    Raises:
        ValueError: the folder was prepared with other settings, or its notes cannot be read.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = root / NOTES, dict(settings)
        self.sources = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        try:
            noted = json.loads(self.path.read_text())
            earlier, sources = dict(noted["settings"]), dict(noted["sources"])
            sources = {name: {key: dict(file) for key, file in files.items()} for name, files in sources.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} cannot be read: remove it, or give another --output_dir.") from error
        for name, value in self.settings.items():
            if earlier.get(name) != value:
                raise ValueError(
                    f"{self.path.parent} was prepared with another {name} ({earlier.get(name)}, now {value}): give "
                    "another --output_dir."
                )
        return sources

    def holds(self, sources: Mapping[str, str], outputs: Mapping[str, Path]) -> bool:
        """Tell whether files that are there were made from these, as they are now."""
        noted = self.sources.get(_key(outputs), {})
        return (
            noted.keys() == sources.keys()
            and all(path.exists() for path in outputs.values())
            and all(_is_same(noted[key], path) for key, path in sources.items())
        )

    def note(self, sources: Mapping[str, str], outputs: Mapping[str, Path]) -> None:
        """Note what files were made from; the notes are there as a whole or as they were."""
        self.sources[_key(outputs)] = {key: _noted(path) for key, path in sources.items()}
        write_text(self.path, json.dumps({"settings": self.settings, "sources": self.sources}, indent=1) + "\n")


def _key(outputs: Mapping[str, Path]) -> str:
    return outputs["image"].name


def _noted(path: str) -> dict[str, Any]:
    """Note a file's content; of what a recipe finds elsewhere, in an archive say, its name alone."""
    return fingerprint(path) if os.path.isfile(path) else {"path": path}


def _is_same(noted: Mapping[str, Any], path: str) -> bool:
    return is_unchanged(noted, path) if os.path.isfile(path) else noted.get("path") == path
