"""Names, axis order and units of every tensor: the one place where the convention is stated.

A tensor is ``(B, C, H, W, L)``: batch, channel, then the three axes of the image array, in the array's own order.
A dense displacement field (``DDF``) is ``(B, 3, H, W, L)``. Its channel *i* moves along spatial axis *i*, in voxels of
its own grid, and it **pulls**::

    warped(x) = moving(x + ddf(x))        x: a voxel of the fixed grid, align_corners=True, zeros outside

so it points from the fixed grid to the moving one. Level 1 of the pyramid is the finest, level 5 the coarsest.

Physical space (millimetres, the patient axes LPS) begins with ``spatial``; what that imports knows voxels alone.
"""

from typing import TypeAlias

import torch

__all__ = ["DDF", "Features", "Labels", "Volume"]

Volume: TypeAlias = torch.Tensor
"""Image intensities, (B, 1, H, W, L), scaled to [0, 1]."""

Labels: TypeAlias = torch.Tensor
"""Label map, (B, 1, H, W, L), whole numbers, 0 is the background."""

Features: TypeAlias = torch.Tensor
"""Feature maps, (B, C, H, W, L)."""

DDF: TypeAlias = torch.Tensor
"""Dense displacement field, (B, 3, H, W, L), voxels of its own grid, fixed to moving."""
