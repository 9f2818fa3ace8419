"""A grid of displacements as the Deformable Spatial Registration object stores it (PS3.3 C.20.3): LPS mm, float32."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

__all__ = ["BYTES_PER_VECTOR", "POINTS_PER_SLAB", "VectorGrid", "slabs"]

Matrix = npt.NDArray[np.float64]

BYTES_PER_VECTOR = 12
POINTS_PER_SLAB = 2**20


@dataclass(frozen=True, eq=False)
class VectorGrid:
    """Displacements at the points of a grid.

    Args:
        affine: (i, j, k, 1) to LPS mm, 4×4; the index begins at the centre of the first voxel.
        vectors: ``(slices, rows, columns, 3)``: x, y, z in mm, LPS; a triple of NaN is undefined.
    """

    affine: Matrix
    vectors: npt.NDArray[np.float32]

    @cached_property
    def defined(self) -> npt.NDArray[np.bool_] | None:
        """Where there are displacements; None if everywhere."""
        undefined = np.isnan(self.vectors[..., 0])
        return ~undefined if undefined.any() else None

    def at(self, points: Matrix) -> Matrix:
        """Interpolate linearly at points (…, 3), mm.

        Up to half a voxel beyond the outermost centres the nearest value holds; farther out, and where an undefined
        triple would take part, the result is NaN.
        """
        inverse = np.linalg.inv(self.affine)
        index = points.reshape(-1, 3) @ inverse[:3, :3].T + inverse[:3, 3]
        size = np.array(self.vectors.shape[2::-1])
        index[~((index >= -0.5) & (index <= size - 0.5)).all(-1)] = np.nan
        lost = np.isnan(index).any(-1)
        coordinates = np.where(lost[:, None], 0, index).T[::-1]
        vectors = self.vectors if self.defined is None else np.nan_to_num(self.vectors)
        values = np.stack([_linear(vectors[..., c], coordinates) for c in range(3)], -1)
        if self.defined is not None:
            lost |= _linear(self.defined.astype(np.float32), coordinates) < 1 - 1e-6
        values[lost] = np.nan
        return values.reshape(points.shape)


def _linear(image: npt.NDArray[np.float32], coordinates: Matrix) -> Matrix:
    return np.asarray(map_coordinates(image, coordinates, np.float64, order=1, mode="nearest"))


def slabs(shape: tuple[int, int, int], affine: Matrix) -> Iterator[tuple[slice, Matrix]]:
    """Yield (slice along k, points (k, j, i, 3) in mm) of a few planes at a time, so that memory stays bounded."""
    planes = max(1, POINTS_PER_SLAB // (shape[1] * shape[2]))
    j, i = np.arange(shape[1], dtype=np.float64)[:, None], np.arange(shape[2], dtype=np.float64)
    for first in range(0, shape[0], planes):
        k = np.arange(first, min(first + planes, shape[0]), dtype=np.float64)[:, None, None]
        yield (
            slice(first, first + len(k)),
            np.stack([affine[r, 0] * i + affine[r, 1] * j + affine[r, 2] * k + affine[r, 3] for r in range(3)], -1),
        )
