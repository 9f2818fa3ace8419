"""Rules that tell one series from others by its attributes, in the vocabulary of the MONAI Deploy series selector.

A rule maps attribute keywords to conditions, and all must hold: text is a regular expression searched in any value,
whatever the case; a list names values that must be there, or with ``!`` must not; ``{min, max}`` is a range, and a
number one value. An attribute that is absent or empty never matches, not even ``!``.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import text_of

__all__ = ["matches"]


def matches(frame: Frame, rule: Mapping[str, Any]) -> bool:
    """Tell whether a series meets a rule, by a frame of it."""
    return all(_meets(_values(frame, keyword), condition) for keyword, condition in rule.items())


def _values(frame: Frame, keyword: str) -> list[str]:
    values = [value.strip() for value in (text_of(frame, keyword) or "").split("\\")]
    return [value for value in values if value]


def _meets(values: list[str], condition: Any) -> bool:
    if not values:
        return False
    if isinstance(condition, str):
        return any(re.search(condition, value, re.IGNORECASE) for value in values)
    if isinstance(condition, list):
        present = {value.casefold() for value in values}
        return all((word.lstrip("!").casefold() in present) != word.startswith("!") for word in condition)
    limits = condition if isinstance(condition, Mapping) else {"min": condition, "max": condition}
    return all(limits.get("min", -math.inf) <= v <= limits.get("max", math.inf) for v in map(_number, values))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # lies in no range
