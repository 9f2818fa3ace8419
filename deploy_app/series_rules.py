"""Rules that tell one series from others by its attributes, in the vocabulary of the MONAI Deploy series selector.

A rule maps attribute keywords to conditions, and all must hold: text is a regular expression searched in any value,
whatever the case; a list names values that must be there, or with ``!`` must not; ``{min, max}`` is a range, and a
number one value. An attribute that is absent or empty never matches, not even ``!``.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from attributes import text
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

__all__ = ["fault", "matches"]

# what no rule can be about: sequences and bulk data
NOT_TEXT = {"SQ", "OB", "OW", "OB or OW", "OD", "OF", "OL", "OV", "UN"}


def matches(header: Dataset, rule: Mapping[str, Any]) -> bool:
    """Tell whether a series meets a rule."""
    return all(_meets(_values(header, keyword), condition) for keyword, condition in rule.items())


def _values(header: Dataset, keyword: str) -> list[str]:
    values = [value.strip() for value in (text(header, keyword) or "").split("\\")]
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


def fault(rule: Any) -> str | None:
    """Say what is wrong with a rule as it was written, or None."""
    if not isinstance(rule, Mapping) or not rule:
        return "takes attribute keywords, each with a condition"
    for keyword, condition in rule.items():
        tag = tag_for_keyword(keyword) if isinstance(keyword, str) else None
        if tag is None or dictionary_VR(tag) in NOT_TEXT:
            return "names something that is no attribute of a series"
        if not _is_condition(condition):
            return f"takes a regular expression, a list of texts, {{min, max}} or a number for {keyword}"
    return None


def _is_condition(condition: Any) -> bool:
    if isinstance(condition, str):
        return bool(condition) and _compiles(condition)
    if isinstance(condition, list):
        return bool(condition) and all(isinstance(word, str) and word.lstrip("!") for word in condition)
    if isinstance(condition, Mapping):
        return bool(condition) and set(condition) <= {"min", "max"} and all(map(_is_number, condition.values()))
    return _is_number(condition)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
