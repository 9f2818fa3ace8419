"""Several transforms in a row, and what they are at the voxels of one grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from bundle.spatial.grid import Grid, Matrix
from bundle.spatial.inverse import Lattice, points_back
from bundle.spatial.resampling import is_inside
from bundle.spatial.transform import SpatialTransform

__all__ = ["Inverse", "Mapping", "compose", "unreached_percent"]

MOST = 2**15  # voxels, drawn at random where there are more: 1 % of them is known to 0.06 %


class Mapping(Protocol):
    """What takes points to points."""

    def displacement_at(self, points_mm: torch.Tensor) -> torch.Tensor:
        """Compute how far points (…, 3), mm, LPS, are moved: (…, 3), mm, float64."""
        ...


@dataclass(frozen=True, eq=False)
class Inverse:
    """T⁻¹, solved anew for every point that is asked for, so without a voxel's error; otherwise what ``invert`` makes.

    Args:
        transform: T.
    """

    transform: SpatialTransform

    @cached_property
    def _field(self) -> Lattice | None:
        return None if self.transform.ddf is None else Lattice.of(self.transform.ddf)

    def displacement_at(self, points_mm: torch.Tensor) -> torch.Tensor:
        """Compute T⁻¹(y) − y; where no point of the field goes to y, the field goes on with its outermost values."""
        return self.carried(points_mm)[0]

    def carried(self, points_mm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute T⁻¹(y) − y, (…, 3), and where there is no such point, (…): A⁻¹ y lies in the field, T⁻¹(y) not."""
        points = torch.as_tensor(points_mm, dtype=torch.float64)
        flat = points.reshape(-1, 3).cpu().numpy()
        found, reached = points_back(self.transform, self._field, flat, extend=True)
        grid, back = self.transform.field_grid, self.transform.back
        aligned = torch.from_numpy(grid.to_index(flat @ back[:3, :3].T + back[:3, 3]))
        missed = is_inside(aligned, grid.shape) & ~torch.from_numpy(reached)
        return torch.from_numpy(found).view(points.shape) - points, missed.view(points.shape[:-1])


def compose(mappings: Sequence[Mapping], fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Compose transforms into one, in the order in which an image passes them on its way from moving to fixed.

    T = T₁ ∘ T₂ ∘ … ∘ Tₙ: points of the fixed image go the other way, through the last one first. Linear transforms
    and one displacement field among them stay what they are. Several fields, or an inverse of one, are sampled at the
    voxels of ``fixed_grid``: there T is exact, and linear between them; beyond them goes the product of the linear
    parts alone.

    Args:
        mappings: at least one; T₁, nearest to the moving image, first.
        fixed_grid: of the image that the last one ends at.
        moving_grid: of the image that the first one starts from.

    Raises:
        ValueError: there are none.
    """
    if not mappings:
        raise ValueError("There is no transform to compose.")
    plain = [_plain(mapping) for mapping in mappings]
    known = [mapping for mapping in plain if isinstance(mapping, SpatialTransform)]
    if len(known) == len(plain) and sum(mapping.ddf is not None for mapping in known) <= 1:
        return _with_one_field(known, fixed_grid, moving_grid)
    alignment = _product(plain)
    ddf, to_field = torch.empty(3, *fixed_grid.shape, dtype=torch.float64), torch.from_numpy(np.linalg.inv(alignment))
    matrix = torch.from_numpy(fixed_grid.inverse[:3, :3])
    for rows, points in fixed_grid.slabs():
        moved = points
        for mapping in reversed(plain):
            moved = moved + mapping.displacement_at(moved)
        shift = moved @ to_field[:3, :3].T + to_field[:3, 3] - points
        ddf[:, rows] = torch.einsum("ij,...j->i...", matrix, shift)
    return SpatialTransform(alignment, ddf, fixed_grid, fixed_grid, moving_grid)


def unreached_percent(mappings: Sequence[Mapping], grid: Grid) -> float:
    """Estimate how many voxels have no point where an inverse among some mappings would take them, %.

    They are those that its alignment takes into its field, no point of which goes to them (``Inverse.carried``).
    All are looked at, or ``MOST`` of them, the same each time.

    Args:
        mappings: as ``compose`` takes them.
        grid: of the image that the last one ends at.
    """
    if not any(isinstance(mapping, Inverse) for mapping in mappings):
        return 0.0
    count = math.prod(grid.shape)
    drawn = np.arange(count) if count <= MOST else np.random.default_rng(0).integers(count, size=MOST)
    moved = torch.from_numpy(grid.to_points(np.stack(np.unravel_index(drawn, grid.shape), 1)))
    lost = torch.zeros(len(drawn), dtype=torch.bool)
    for mapping in reversed(mappings):
        if isinstance(mapping, Inverse):
            shift, without = mapping.carried(moved)
            lost |= without
        else:
            shift = mapping.displacement_at(moved)
        moved = moved + shift
    return 100 * float(lost.double().mean())


def _plain(mapping: Mapping) -> Mapping:
    """The inverse of a linear transform is linear."""
    if isinstance(mapping, Inverse) and mapping.transform.ddf is None:
        return replace(mapping.transform, alignment=mapping.transform.back)
    return mapping


def _with_one_field(parts: Sequence[SpatialTransform], fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """C A (B p + u(B p)) = C A B (p + B⁻¹ u(B p)): the field on the lattice that B⁻¹ moves."""
    place = next((n for n, part in enumerate(parts) if part.ddf is not None), 0)
    after, before = _product(parts[:place]), _product(parts[place + 1 :])
    field = parts[place]
    grid = Grid(field.field_grid.shape, np.linalg.inv(before) @ field.field_grid.affine)
    return SpatialTransform(after @ field.alignment @ before, field.ddf, grid, fixed_grid, moving_grid)


def _product(parts: Sequence[Mapping]) -> Matrix:
    """Multiply the linear parts, 4×4; of a mapping of another kind that is the identity."""
    matrix = np.eye(4)
    for part in parts:
        if isinstance(part, SpatialTransform):
            matrix = matrix @ part.alignment
        elif isinstance(part, Inverse):
            matrix = matrix @ part.transform.back
    return matrix
