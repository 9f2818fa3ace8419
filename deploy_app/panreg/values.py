"""Values of settings: what each kind takes, and the sentence that says so where something else was given."""

import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

__all__ = ["REFUSED", "TEXT", "Flag", "Label", "Section", "Text", "number", "one_of", "refuse", "whole"]

REFUSED = "refused"
"""Type of the errors whose message is the sentence to print."""
LABEL_LENGTH = 64  # it becomes a Long String (LO)
SMALLEST = math.ulp(0)  # above 0


class Section(BaseModel):
    """A section of settings: unchangeable, without unknown names; its errors don't repeat values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def refuse(sentence: str) -> PydanticCustomError:
    """Make the error for a value that is refused: the sentence says what is taken, without the value."""
    return PydanticCustomError(REFUSED, "{sentence}", {"sentence": sentence})


def number(low: float = SMALLEST, high: float = math.inf) -> BeforeValidator:
    """Make the validator of a number from ``low`` to ``high``; by default above 0."""
    return BeforeValidator(_bounded(float, low, high))


def whole(low: int = 1, high: float = math.inf) -> BeforeValidator:
    """Make the validator of a whole number from ``low`` to ``high``; by default above 0."""
    return BeforeValidator(_bounded(int, low, high))


def one_of(*words: str) -> AfterValidator:
    """Make the validator of a key that is one of some words."""

    def known(word: str) -> str:
        if word not in words:
            raise refuse("is not known")
        return word

    return AfterValidator(known)


def _bounded(kind: type[int] | type[float], low: float, high: float) -> Callable[[Any], float]:
    limits = f"from {low} to {high}" if high < math.inf else "above 0"

    def convert(value: Any) -> float:
        try:
            converted = kind(str(value))  # from text: else True would pass for 1, and 2.5 for 2
        except ValueError:
            converted = math.nan
        if not low <= converted <= high or math.isinf(converted):
            raise refuse(f"takes a {'whole ' * (kind is int)}number {limits}")
        return converted

    return convert


def _flag(value: Any) -> bool:
    spelled = {"true": True, "false": False}.get(str(value).lower())
    if spelled is None:
        raise refuse("takes true or false")
    return spelled


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise refuse("takes a text that is not empty (in quotes, where it looks like a number)")
    return value


def _label(value: str) -> str:
    if len(value) > LABEL_LENGTH or "\\" in value or not value.isprintable():
        raise refuse(f"takes at most {LABEL_LENGTH} printable characters and no backslash")
    return value


TEXT = BeforeValidator(_text)
"""Refuses what is no text, or an empty one: a lost choice."""
Text = Annotated[str, TEXT]
Flag = Annotated[bool, BeforeValidator(_flag)]
Label = Annotated[str, AfterValidator(_label), TEXT]
