"""Rules for series as they are written in ``app.yaml``: checked when the settings are read, not when they are used."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from panreg.values import refuse
from pydantic import BeforeValidator
from pydicom.datadict import dictionary_VR, tag_for_keyword

__all__ = ["Rules"]

# what no rule can be about: sequences and bulk data
NOT_TEXT = {"SQ", "OB", "OW", "OB or OW", "OD", "OF", "OL", "OV", "UN"}


def _of_known_roles(rules: Any) -> Any:
    if not isinstance(rules, Mapping) or not set(rules) <= {"fixed", "moving"}:
        raise refuse("takes a rule for fixed, for moving, or for both")
    return rules


def _without_fault(rule: Any) -> Any:
    wrong = _fault(rule)
    if wrong:
        raise refuse(wrong)
    return rule


def _fault(rule: Any) -> str | None:
    """Say what is wrong with a rule as it was written, or None."""
    if not isinstance(rule, Mapping) or not rule:
        return "takes attribute keywords, each with a condition"
    for keyword, condition in rule.items():
        tag = tag_for_keyword(keyword) if isinstance(keyword, str) else None
        if tag is None or dictionary_VR(tag) in NOT_TEXT:
            return "names something that is no attribute of a series"
        if not _is_condition(condition):
            return f"takes a regular expression, a list of texts, {{min, max}} or a number for {keyword}"
        if not _can_be_met(condition):
            return f"takes something that a series can meet for {keyword} (min up to max; a text or !text, not both)"
    return None


def _is_condition(condition: Any) -> bool:
    if isinstance(condition, str):
        return bool(condition) and _compiles(condition)
    if isinstance(condition, list):
        return bool(condition) and all(isinstance(word, str) and word.lstrip("!") for word in condition)
    if isinstance(condition, Mapping):
        return bool(condition) and set(condition) <= {"min", "max"} and all(map(_is_number, condition.values()))
    return _is_number(condition)


def _can_be_met(condition: Any) -> bool:
    """Tell whether any value meets a condition: none lies in a range from 3 to 1, or is there and is not."""
    if isinstance(condition, list):
        words = {word.casefold() for word in condition}
        return not any(f"!{word}" in words for word in words)
    if isinstance(condition, Mapping):
        return bool(condition.get("min", -math.inf) <= condition.get("max", math.inf))
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


Rule = Annotated[dict[str, Any], BeforeValidator(_without_fault)]
Rules = Annotated[dict[str, Rule], BeforeValidator(_of_known_roles)]
"""A rule for the fixed image, for the moving one, or for both: attribute keywords, each with a condition."""
