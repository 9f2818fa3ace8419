"""Values as JSON has them."""

from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """Turn a value into what JSON has: arrays and tensors to lists, paths to text, what is not finite to null.

    Example:
        >>> plain({"dice": (0.5, float("nan"))})
        {'dice': [0.5, None]}
    """
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return value if value is None or isinstance(value, str | int) else str(value)
