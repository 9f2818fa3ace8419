"""Names that lists and files go by: which are misspelt, and which sound as if they mattered."""

import re
from collections.abc import Sequence

from bundle.options import nearest

__all__ = ["refuse_misspelt", "tells", "tells_of_file"]

TELLING = ("label", "seg", "mask", "transform")  # what a user would expect to matter


def tells(key: str) -> bool:
    """Tell whether the name of a column or a key says that files other than images stand there."""
    return any(word in key.lower() for word in TELLING)


def tells_of_file(word: str) -> bool:
    """Tell whether a word of a file's or folder's name says that it is no image: ``dseg``, ``labelsTr``, ``masks``.

    An image that was masked or segmented is one still.

    Example:
        >>> [word for word in ("T1w", "brainmask", "masked", "dseg", "labelsTr") if tells_of_file(word)]
        ['brainmask', 'dseg', 'labelsTr']
    """
    plain = re.sub(r"(s?(tr|val|ts)|s|maps?|mentations?)$", "", word.lower())
    return plain.endswith(TELLING) or plain == "gt"  # ground truth, as ACDC has it


def refuse_misspelt(keys: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse a key that is nearly a known one: what it names would be left out without a word.

    Raises:
        ValueError: there is one; the sentence says which was probably meant.
    """
    for key in keys:
        meant = nearest(key, known, 0.8)
        if key not in known and meant:
            raise ValueError(f"{where} has '{key}', which is not read: did you mean '{meant}'?")
