"""The displacements of an object that was read, as the transform that the writers ask."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from panreg.ingest.stack import Stack
from panreg.objects.deformable.reader import Deformation
from panreg.objects.deformable.vector_grid import slabs
from scipy.ndimage import map_coordinates

__all__ = ["AppliedTransform"]

ORDERS = {"linear": 1, "nearest": 0}


@dataclass(frozen=True, eq=False)
class AppliedTransform:
    """A ``Transform`` from an object that was read: what the object leaves undefined is outside.

    Args:
        deformation: the object's item.
        fixed: stack that the result lies on.
        moving: stack that is pulled.
        field_grid: nothing: the series' writer does not ask.
    """

    deformation: Deformation
    fixed: Stack
    moving: Stack
    field_grid: Any = None

    def displacement_at(self, points_mm: Any, extend: bool = False) -> torch.Tensor:
        """D(x) for points (…, 3), mm, LPS: (…, 3), float64; NaN where undefined."""
        return self.deformation.displacement_at(points_mm)

    def resample(self, image: torch.Tensor, *, mode: str = "linear") -> torch.Tensor:
        """Pull (C, columns, rows, slices) of the moving stack to the fixed one; zero outside."""
        inverse = np.linalg.inv(self.moving.affine)
        pulled = np.empty((len(image), *self.fixed.shape), dtype=np.float32)
        for planes, points in slabs(self.fixed.shape, self.fixed.affine):
            index = (points + self.displacement_at(points).numpy()) @ inverse[:3, :3].T + inverse[:3, 3]
            coordinates = np.moveaxis(np.nan_to_num(index, nan=-1e6), -1, 0)
            for channel, values in zip(pulled, image.numpy()):
                channel[planes] = map_coordinates(values, coordinates, order=ORDERS[mode], mode="grid-constant")
        return torch.from_numpy(pulled).permute(0, 3, 2, 1).to(image.dtype)
