"""What every compared method is to the benchmark."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import torch
from bundle.shapes import DDF
from bundle.spatial import Grid

__all__ = ["Method", "Register"]

Register: TypeAlias = Callable[[torch.Tensor, Grid], DDF]
"""Maps moving and fixed image, (1, 2, H, W, L) in [0, 1], and their grid to a field, (3, H, W, L), voxels."""


class Method(Protocol):
    """What is compared. Small, so that it can be sent to another process; ``load`` does what takes time and memory."""

    @property
    def aligned(self) -> bool:
        """Whether it starts from the pre-alignment; otherwise from the headers alone."""

    @property
    def spacing_mm(self) -> float | None:
        """Voxel size that it works at; None for the fixed image's own."""
        return None

    def settings(self) -> dict[str, Any]:
        """List all that its result depends on besides the images, for JSON."""

    def load(self) -> Register | None:
        """Get ready, first-use costs included; None for a method without a field."""
