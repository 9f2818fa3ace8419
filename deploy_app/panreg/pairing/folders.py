"""The folders ``fixed/`` and ``moving/`` of the input, or those that the settings name: which images lie in them."""

import os
from pathlib import Path

from panreg.ingest.stack import AnyStack
from panreg.settings import PairSettings

__all__ = ["ROLES", "in_folder", "is_inside"]

ROLES = ("fixed", "moving")


def in_folder(stack: AnyStack, role: str, settings: PairSettings, input_root: Path) -> list[bool]:
    """Tell of each image of a stack whether it lies in the folder for a role."""
    return [is_inside(frame.path, role, settings, input_root) for frame in stack.frames]


def is_inside(path: Path, role: str, settings: PairSettings, input_root: Path) -> bool:
    """Tell whether a file lies in the folder for a role: ``fixed/`` and ``moving/`` are found whatever the case."""
    place, root = Path(os.path.abspath(path)), Path(os.path.abspath(input_root))
    named = getattr(settings, f"{role}_path")
    if named is not None:
        return place.is_relative_to(os.path.abspath(root / named))
    return place.is_relative_to(root) and [part.casefold() for part in place.relative_to(root).parts[:-1]][:1] == [role]
