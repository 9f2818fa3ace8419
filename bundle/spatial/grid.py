"""Grids of voxels in millimetres, LPS."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Grid", "Matrix", "along_lps", "lps_from_ras", "ras_from_lps"]

Matrix = npt.NDArray[np.float64]

RIGHT_ANGLE = 1e-4  # cosine between two axes that ITK 5.4 still takes for a right angle
ROUNDED = 2e-3  # cosine up to which ``straightened`` takes two axes to be off the right angle by rounding
UPRIGHT = 1e-3  # cosine up to which ``orthogonal`` leaves two axes as they are
MARGIN = 4  # voxels that a side grows by at most at each end
MULTIPLE = 16
"""Of the sides of a grid that the network works on: it halves them four times, and pads what is left."""

POINTS_PER_SLAB = 2**16  # 1.5 MB: what is made of them need not be mapped anew (bundle.memory)


def lps_from_ras(affine: npt.ArrayLike) -> Matrix:
    """Turn the first two axes of the physical space around: RAS ↔ LPS, its own inverse."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)


ras_from_lps = lps_from_ras


def along_lps(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn points or vectors (…, 3) along R, A, S into ones along L, P, S, or back."""
    return vectors * (-1.0, -1.0, 1.0)


def _is_invertible(matrix: Matrix) -> bool:
    """Tell whether the columns of a 3×3 matrix span the space, whatever their unit."""
    lengths = np.linalg.norm(matrix, axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(matrix / lengths)) > 1e-6)


def _corners(shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Indices of the eight corner voxels, (2, 2, 2, 3)."""
    return np.stack(np.meshgrid(*[[0, n - 1] for n in shape], indexing="ij"), -1)


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an image are: index (i, j, k) lies at ``affine @ (i, j, k, 1)``, mm, LPS.

    Args:
        shape: voxels along each array axis.
        affine: 4×4, invertible.

    Raises:
        ValueError: the affine is no invertible 4×4 matrix.
    """

    shape: tuple[int, int, int]
    affine: Matrix

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not _is_invertible(affine[:3, :3]):
            raise ValueError(
                f"A grid needs an invertible 4×4 affine, got {affine.tolist()}: repair the image's header."
            )
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @classmethod
    def from_ras(cls, shape: Sequence[int], affine: npt.ArrayLike) -> "Grid":
        """Build from a RAS affine, as NIfTI and MONAI's ``MetaTensor`` carry it."""
        return cls(tuple(shape), lps_from_ras(affine))  # type: ignore[arg-type]

    @property
    def spacing_mm(self) -> Matrix:
        """Distance between neighbours along each array axis, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def direction(self) -> Matrix:
        """Unit vectors of the array axes, in columns, 3×3."""
        return self.affine[:3, :3] / self.spacing_mm

    @property
    def origin_mm(self) -> Matrix:
        """Position of voxel (0, 0, 0), (3,)."""
        return self.affine[:3, 3]

    @property
    def centre_mm(self) -> Matrix:
        """Position of the middle of the grid, (3,)."""
        return self.to_points((np.array(self.shape) - 1) / 2)

    @cached_property
    def inverse(self) -> Matrix:
        """Physical space to index, 4×4."""
        return np.linalg.inv(self.affine).astype(np.float64)

    def to_points(self, index: npt.ArrayLike) -> Matrix:
        """Map indices (…, 3) to points (…, 3), mm."""
        return np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points: npt.ArrayLike) -> Matrix:
        """Map points (…, 3), mm, to indices (…, 3), fractions too."""
        return np.asarray(points) @ self.inverse[:3, :3].T + self.inverse[:3, 3]

    def is_close(self, other: "Grid") -> bool:
        """Tell whether two grids are one: same shape, corners within a hundredth of a voxel."""
        corners = _corners(self.shape)
        tolerance = 0.01 * self.spacing_mm.min()
        apart = np.abs(self.to_points(corners) - other.to_points(corners))
        return self.shape == other.shape and bool(apart.max() <= tolerance)

    def corner_distance_mm(self, other: "Grid") -> float:
        """Find the largest distance between the corners of this grid and those of another of the same shape."""
        corners = _corners(self.shape)
        return float(np.linalg.norm(self.to_points(corners) - other.to_points(corners), axis=-1).max())

    def straightened(self) -> "Grid | None":
        """Bring axes that are off the right angle by rounding exactly to it, about the grid's centre.

        Returns:
            This grid where the axes are at right angles within float32 rounding (as ITK counts, 1e-4); one with the
            nearest orthonormal direction; or None for axes that are really sheared: by cosines above ``ROUNDED``.
        """
        cosines = np.abs(self.direction.T @ self.direction - np.eye(3)).max()
        if cosines <= RIGHT_ANGLE:
            return self
        if cosines > ROUNDED:
            return None
        u, _, v = np.linalg.svd(self.direction)
        affine = self.affine.copy()
        affine[:3, :3] = (u @ v) * self.spacing_mm
        middle = (np.array(self.shape) - 1) / 2
        affine[:3, 3] = self.centre_mm - affine[:3, :3] @ middle
        return Grid(self.shape, affine)

    def plane(self, axis: int, index: int) -> "Grid":
        """Keep one plane of voxels, the one at ``index`` along ``axis``."""
        shape, affine = list(self.shape), self.affine.copy()
        shape[axis] = 1
        affine[:3, 3] += affine[:3, axis] * index
        return Grid((shape[0], shape[1], shape[2]), affine)

    def blocks(self, steps: Sequence[int]) -> "Grid":
        """Make one voxel of each block of so many along each axis, at its centre; the rest is cut off."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_points((np.array(steps) - 1) / 2)
        affine[:3, :3] *= steps
        sides = [n // step for n, step in zip(self.shape, steps)]
        return Grid((sides[0], sides[1], sides[2]), affine)

    def canonical(self, spacing_mm: float | None = None) -> "Grid":
        """Order the axes as left to right, posterior to anterior, inferior to superior, as nearly as they lie.

        Args:
            spacing_mm: also resample to this isotropic spacing over the same field of view, unless each axis has it
                within 5 % already; None keeps the spacing.

        Returns:
            A grid over the same volume with orthogonal axes; without resampling, and where the axes were orthogonal
            already, its voxels are this grid's, in another order.

        Raises:
            ValueError: a spacing that is no length.
        """
        if spacing_mm is not None and not 0 < spacing_mm < np.inf:
            raise ValueError(f"The spacing must be above 0 mm, got {spacing_mm}.")
        straight = self.orthogonal()
        permutation = straight._canonical_axes()
        affine, shape = straight.affine.copy(), np.array(straight.shape)
        affine[:, :3], shape = affine[:, permutation], shape[permutation]
        for axis, sign in enumerate((-1, -1, 1)):  # LPS: towards the right and anterior is downwards
            if affine[axis, axis] * sign < 0:
                affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
                affine[:3, axis] *= -1
        grid = Grid(tuple(shape), affine)
        if spacing_mm is None or np.allclose(grid.spacing_mm, spacing_mm, rtol=0.05):
            return grid
        size = np.maximum(np.ceil(grid.spacing_mm * shape / spacing_mm - 1e-3), 1).astype(int)
        return grid.centred(size, spacing_mm)

    def orthogonal(self) -> "Grid":
        """Straighten a sheared grid (a CT gantry tilt): what follows knows orthogonal axes alone, ITK among them.

        Returns:
            This grid if its axes are orthogonal, up to cosines of ``UPRIGHT``; else the smallest one that holds all its
            voxels, whose first axis keeps its direction, with the distance between rows and planes as spacing.
        """
        cosines = self.direction.T @ self.direction - np.eye(3)
        if np.abs(cosines).max() <= UPRIGHT:
            return self
        axes, upper = np.linalg.qr(self.affine[:3, :3])
        axes = axes * np.sign(np.diag(upper))  # each axis the way it ran before
        spacing = np.abs(np.diag(upper))
        along = self.to_points(_corners(self.shape)).reshape(-1, 3) @ axes
        low, high = along.min(0), along.max(0)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes * spacing, axes @ low
        shape = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
        return Grid(tuple(shape), affine)

    def bounds(self, other: "Grid", alignment: Matrix | None = None) -> tuple[Matrix, Matrix]:
        """Find the lowest and the highest index that another grid's voxels have in this one, (3,) each, fractions too.

        Args:
            other: the other grid.
            alignment: 4×4, from this grid's space to the other's; None where they are one.
        """
        back = self.inverse if alignment is None else self.inverse @ np.linalg.inv(alignment)
        index = (other.to_points(_corners(other.shape)) @ back[:3, :3].T + back[:3, 3]).reshape(-1, 3)
        return index.min(0), index.max(0)

    def crop(self, low: npt.ArrayLike, high: npt.ArrayLike) -> "Grid":
        """Crop to the voxels from one index to another, (3,) each, both included; beyond the border it pads."""
        first, last = np.asarray(low, dtype=int), np.asarray(high, dtype=int)
        affine = self.affine.copy()
        affine[:3, 3] = self.to_points(first)
        return Grid(tuple(last - first + 1), affine)

    def cover(self, other: "Grid") -> "Grid":
        """Crop or pad this grid so that it just covers all voxels of another one."""
        low, high = self.bounds(other)
        return self.crop(np.floor(low + 1e-3), np.ceil(high - 1e-3))

    def padded(self, other: "Grid", alignment: Matrix) -> "Grid":
        """Pad evenly on both sides of each axis, so that a field can pull from what lies beyond the border.

        Args:
            other: grid of the moving image.
            alignment: 4×4, from this grid's space to the other's.

        Returns:
            A grid with the same axes, spacing and centre up to half a voxel, whose voxels include this grid's and up to
            ``MARGIN`` more on each side where the other grid reaches beyond; sides are rounded up to ``MULTIPLE``.
        """
        low, high = self.bounds(other, alignment)
        sides = np.array(self.shape)
        beyond = np.maximum(-low, high - (sides - 1))
        wanted = sides + 2 * np.clip(np.ceil(beyond - 0.5), 0, MARGIN)
        size = (np.ceil(wanted / MULTIPLE) * MULTIPLE).astype(int)
        low = -((size - sides) // 2)
        return self.crop(low, low + size - 1)

    def crop_to(self, low: npt.ArrayLike, high: npt.ArrayLike) -> "Grid":
        """Crop to the voxels from one index to another, (3,) each, as far as there are any.

        Sides are rounded up to a multiple of ``MULTIPLE`` where the grid has that many voxels.

        Args:
            low: lowest index to keep, fractions too.
            high: highest index to keep.
        """
        sides = np.array(self.shape)
        first = np.clip(np.floor(low), 0, sides - 1).astype(int)
        last = np.clip(np.ceil(high), first, sides - 1).astype(int)
        size = np.minimum(-(-(last - first + 1) // MULTIPLE) * MULTIPLE, sides)
        first = np.clip(first - (size - (last - first + 1)) // 2, 0, sides - size)
        return self.crop(first, first + size - 1)

    def _canonical_axes(self) -> list[int]:
        """For each physical axis the array axis that follows it most, each array axis once."""
        strength = np.abs(self.direction)
        order = [0, 0, 0]
        for _ in range(3):
            physical, array = np.unravel_index(strength.argmax(), (3, 3))
            order[physical] = int(array)
            strength[physical, :] = -1
            strength[:, array] = -1
        return order

    def centred(self, size: Sequence[int], spacing_mm: npt.ArrayLike, centre_mm: npt.ArrayLike | None = None) -> "Grid":
        """Build a grid along this one's axes with another size and spacing, one or three, about one centre."""
        affine = np.eye(4)
        affine[:3, :3] = self.direction * np.asarray(spacing_mm)
        centre = self.centre_mm if centre_mm is None else np.asarray(centre_mm)
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(size) - 1) / 2)
        return Grid(tuple(int(n) for n in size), affine)  # type: ignore[arg-type]

    def slabs(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (slice along axis 0, points (h, W, L, 3) in mm, float64) of a few planes at a time."""
        return self.slabs_under(np.eye(4))

    def slabs_under(self, linear: Matrix) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield as ``slabs`` does what a linear map, 4×4, makes of the points: a sum of three terms, one an axis."""
        planes = max(1, POINTS_PER_SLAB // (self.shape[1] * self.shape[2]))
        matrix = torch.from_numpy(np.asarray(linear @ self.affine, dtype=np.float64))
        i, j, k = (torch.arange(n, dtype=torch.float64)[:, None] * m for n, m in zip(self.shape, matrix[:3, :3].T))
        plane = j[:, None] + (k + matrix[:3, 3])
        for first in range(0, self.shape[0], planes):
            rows = slice(first, min(first + planes, self.shape[0]))
            yield rows, i[rows, None, None] + plane
