"""Where the bundle's files are: configs, weights and their licence."""

from pathlib import Path

__all__ = ["ROOT", "WEIGHTS"]

_PACKED = Path(__file__).with_name("share")  # made when a wheel is built (pyproject.toml)

ROOT = _PACKED if _PACKED.is_dir() else Path(__file__).parents[1]
"""The bundle root: of the checkout, or of what a wheel has installed. It holds ``configs`` and ``models``."""

WEIGHTS = ROOT / "models" / "model.pt"
"""Weights for heads, which every command takes unless it is told otherwise."""
