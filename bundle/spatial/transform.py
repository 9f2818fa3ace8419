"""The one transform that a registration returns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch
from bundle.fields import jacobian_determinant
from bundle.labels import LabelSampler, consecutive
from bundle.shapes import DDF
from bundle.spatial.grid import Grid, Matrix
from bundle.spatial.resampling import SplineSampler, antialias, sample, sample_at

__all__ = ["LABEL_MODES", "MODES", "SpatialTransform"]

LABEL_MODES = ("nearest", "label_gaussian")
MODES = ("linear", "bspline", *LABEL_MODES)
LARGEST_IN_FLOAT64 = 2**53  # whole numbers are exact up to here


@dataclass(frozen=True, eq=False)
class SpatialTransform:
    """What a registration found: where each point of the fixed image lies in the moving one.

    T(p) = A (p + u(p)), points in mm, LPS, from fixed to moving ("pull"): the network saw the moving image aligned by
    A already, so its displacement u comes first. Beyond the field's grid, and half a voxel around it, u is zero, as in
    ITK.

    Args:
        alignment: A, 4×4.
        ddf: u, (3, H, W, L), voxels of ``field_grid``; None for a linear transform.
        field_grid: where the network worked, in fixed space.
        fixed_grid: of the fixed image as the user gave it.
        moving_grid: of the moving image as the user gave it.
    """

    alignment: Matrix
    ddf: DDF | None
    field_grid: Grid
    fixed_grid: Grid
    moving_grid: Grid

    def without_field(self, aligned: bool = True) -> "SpatialTransform":
        """The alignment alone; or, with ``aligned=False``, the identity: what the headers say."""
        matrix = self.alignment if aligned else np.eye(4)
        return replace(self, alignment=matrix, ddf=None)

    def without_alignment(self) -> "SpatialTransform":
        """The field alone, from fixed space to fixed space."""
        found = replace(self, alignment=np.eye(4))
        known = self.__dict__.keys() & {"field_mm", "jacobian"}  # neither depends on the alignment
        found.__dict__.update({name: self.__dict__[name] for name in known})
        return found

    @cached_property
    def back(self) -> Matrix:
        """A⁻¹, 4×4: the alignment from moving to fixed.

        Raises:
            ValueError: the alignment flattens space.
        """
        if np.linalg.matrix_rank(self.alignment) < 4:
            raise ValueError("The transform flattens space: it has no inverse.")
        return np.linalg.inv(self.alignment).astype(np.float64)

    @cached_property
    def field_mm(self) -> torch.Tensor | None:
        """The displacement u in mm, LPS: (3, H, W, L) on ``field_grid``, float64; None for a linear transform."""
        if self.ddf is None:
            return None
        matrix = torch.from_numpy(self.field_grid.affine[:3, :3]).to(self.ddf.device)
        return torch.einsum("ij,jhwl->ihwl", matrix, self.ddf.double())

    @cached_property
    def jacobian(self) -> torch.Tensor | None:
        """The Jacobian determinant of the field: (1, H, W, L) on ``field_grid``; None for a linear transform.

        Of a field that ``resample_field`` cut, the differences at the border are those before the cut.
        """
        return None if self.ddf is None else jacobian_determinant(self.ddf[None].float())[0]

    def resample_field(self, spacing_mm: float | None = None) -> "SpatialTransform":
        """The same transform with its field on a grid that just covers the fixed image.

        Args:
            spacing_mm: isotropic spacing of that grid, along the fixed image's axes; the field is smoothed for a
                coarser one. None takes the fixed image's own voxels, where the field keeps its values and so warps
                the same, or the field's own where those are coarser.

        Returns:
            A transform whose field is interpolated at the new grid's voxels; beyond the old grid its outermost values
            go on.
        """
        lattice = self.fixed_grid.canonical(spacing_mm)
        if spacing_mm is None and (lattice.spacing_mm < 0.95 * self.field_grid.spacing_mm).any():
            lattice = self.field_grid
        grid = lattice.cover(self.fixed_grid)
        if self.ddf is None:
            return replace(self, field_grid=grid)
        ddf = self.ddf if spacing_mm is None else antialias(self.ddf, self.field_grid, grid, pointwise=True)
        wider, inner = self._with_neighbours(grid)
        ddf = self._ddf_on(wider, ddf)
        found = replace(self, ddf=ddf[inner].contiguous(), field_grid=grid)
        found.__dict__["jacobian"] = jacobian_determinant(ddf[None].float())[0][inner]
        return found

    def _with_neighbours(self, grid: Grid) -> tuple[Grid, tuple[slice, ...]]:
        """Add to a grid the next voxels on each side beyond which u is known; and where in them the grid lies.

        Differences there are central; one-sided ones at a border that a cut made would show folds that the field,
        which was searched for them by central differences, has not.
        """
        first, last = grid.bounds(self.field_grid)
        low, high = first < -0.99, last > np.array(grid.shape) - 0.01
        wider = grid.crop(-low.astype(int), np.array(grid.shape) - 1 + high)
        return wider, (slice(None), *(slice(int(start), int(start) + n) for start, n in zip(low, grid.shape)))

    def extended(self) -> "SpatialTransform":
        """The same transform with its field on a larger part of its own lattice, which covers the fixed image.

        Its outermost values go on; its own voxels are kept.
        """
        if self.ddf is None:
            return self
        low, high = self.field_grid.bounds(self.fixed_grid)
        last = np.array(self.field_grid.shape) - 1
        grid = self.field_grid.crop(np.minimum(np.floor(low + 1e-3), 0), np.maximum(np.ceil(high - 1e-3), last))
        return replace(self, ddf=self._ddf_on(grid, self.ddf), field_grid=grid)

    def _ddf_on(self, grid: Grid, ddf: DDF) -> DDF:
        """Bring the field onto another grid, in voxels of that; copied where the voxels are the same."""
        voxels = grid.inverse[:3, :3] @ self.field_grid.affine[:3, :3]
        first, _ = self.field_grid.bounds(grid)
        if np.allclose(voxels, np.eye(3), atol=1e-4) and np.allclose(first, np.rint(first), atol=0.01):
            for axis, (start, n, sides) in enumerate(zip(np.rint(first), grid.shape, self.field_grid.shape), 1):
                index = torch.arange(n, device=ddf.device) + int(start)
                ddf = ddf.index_select(axis, index.clamp(0, sides - 1))
            return ddf
        found, precise, matrix = ddf.new_empty(3, *grid.shape), ddf.double(), torch.from_numpy(voxels)
        for rows, points in grid.slabs():
            values = sample(precise, self.field_grid, points, fill=None)
            found[:, rows] = torch.einsum("ij,jhwl->ihwl", matrix.to(values.device), values).to(ddf.dtype)
        return found

    def displacement_at(self, points_mm: npt.ArrayLike | torch.Tensor, extend: bool = False) -> torch.Tensor:
        """Compute T(p) − p.

        Args:
            points_mm: (…, 3), mm, LPS, in fixed space.
            extend: go on with u's outermost values beyond its grid, for whoever samples it where it would break off.

        Returns:
            (…, 3), mm, float64.
        """
        points = torch.as_tensor(points_mm, dtype=torch.float64)
        moved = points
        if self.field_mm is not None:
            field = sample(self.field_mm, self.field_grid, points, fill=None if extend else 0.0)
            moved = points + field.movedim(0, -1).to(points.device)
        alignment = torch.from_numpy(self.alignment)
        return moved @ alignment[:3, :3].T + alignment[:3, 3] - points

    def displacement_field(self, grid: Grid | None = None) -> torch.Tensor:
        """Sample T(p) − p on a grid: (3, H, W, L), mm, LPS, float32. The default is the fixed image's own grid."""
        grid = grid or self.fixed_grid
        field = torch.empty(3, *grid.shape)
        for rows, points in grid.slabs():
            field[:, rows] = self.displacement_at(points).movedim(-1, 0).float()
        return field

    def jacobian_on(self, grid: Grid | None = None) -> torch.Tensor:
        """Compute det ∂T/∂p, alignment and field together: (1, H, W, L), float64, on the fixed image's grid or another.

        Central differences between neighbouring voxels, one-sided at the border where the field ends there, too; beyond
        its grid the field goes on with its outermost values. ``without_alignment`` gives the field's own.
        """
        grid, inner = self._with_neighbours(grid or self.fixed_grid)
        ddf = torch.empty(3, *grid.shape, dtype=torch.float64)
        matrix = torch.from_numpy(grid.inverse[:3, :3])
        for rows, points in grid.slabs():
            ddf[:, rows] = torch.einsum("ij,...j->i...", matrix, self.displacement_at(points, extend=True))
        return jacobian_determinant(ddf[None])[0][inner]

    def resample(
        self,
        image: torch.Tensor,
        grid: Grid | None = None,
        mode: str = "linear",
        image_grid: Grid | None = None,
        fill: float = 0.0,
    ) -> torch.Tensor:
        """Pull an image of the moving side onto a grid of the fixed side.

        Args:
            image: (C, H, W, L), the moving image or a label map of it.
            grid: of the result, the fixed image's own by default.
            mode: ``"linear"`` or ``"bspline"`` (cubic); for labels ``"label_gaussian"``, or ``"nearest"``.
            image_grid: where the image's voxels are, the moving image's grid by default.
            fill: value where nothing of the image is: further than half a voxel from its outermost voxels. Labels are
                0 there.

        Returns:
            (C, *grid.shape), in the image's dtype (float32 for an interpolation of whole numbers that gives others).

        Raises:
            ValueError: another interpolation.
        """
        if mode not in MODES:
            raise ValueError(f"The interpolation is one of {', '.join(MODES)}, not '{mode}'.")
        grid, image_grid = grid or self.fixed_grid, image_grid or self.moving_grid
        if mode in LABEL_MODES and not image.is_floating_point() and image.max() > LARGEST_IN_FLOAT64:
            numbers, index = consecutive(image)
            return numbers[self.resample(index, grid, mode, image_grid)]
        dtype = torch.float32 if mode not in LABEL_MODES and not image.is_floating_point() else image.dtype
        result = torch.empty(image.shape[0], *grid.shape, dtype=dtype)
        if mode != "nearest":
            image = image.double()
        read = _reader(image, image_grid, mode, fill)
        for rows, index in self._slabs(grid, image_grid):
            result[:, rows] = read(index).to(dtype)
        return result

    def _slabs(self, grid: Grid, image_grid: Grid) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield where the voxels of a grid lie in an image, in its voxels, some rows at a time: (rows, W, L, 3)."""
        if self.ddf is None:  # three sums a voxel instead of two products of matrices
            yield from grid.slabs_under(image_grid.inverse @ self.alignment)
            return
        matrix, origin = torch.from_numpy(image_grid.inverse[:3, :3]), torch.from_numpy(image_grid.origin_mm)
        for rows, points in grid.slabs():
            yield rows, (points + self.displacement_at(points) - origin) @ matrix.T


def _reader(image: torch.Tensor, grid: Grid, mode: str, fill: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """What reads an image at indices (…, 3) of its voxels, fractions too: (C, …)."""
    if mode == "bspline":
        return SplineSampler(image, grid, fill)
    return LabelSampler(image) if mode == "label_gaussian" else partial(sample_at, image, mode=mode, fill=fill)
