"""The inverse of a transform: where each point of the moving image came from in the fixed one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from bundle.shapes import DDF
from bundle.spatial.cells import CORNERS, Cells, interpolated, newton
from bundle.spatial.grid import Grid, Matrix
from bundle.spatial.resampling import is_inside
from bundle.spatial.transform import SpatialTransform

__all__ = ["Lattice", "beyond_percent", "inverse_residual", "invert", "invert_points", "points_back"]

TOLERANCE_MM = 1e-3
ATTEMPTS = 40  # Newton steps, halved ones among them
SMALLEST_DETERMINANT = 0.05  # of the derivative; below it a step of Newton's leads far away
POINTS_AT_A_TIME = 2**16


def invert(transform: SpatialTransform, tolerance_mm: float = TOLERANCE_MM) -> SpatialTransform:
    """Invert a transform: T⁻¹(y), from points of the moving image to points of the fixed one.

    With T(p) = A (p + u(p)) and q = A⁻¹ y, the point p solves p + u(p) = q at every voxel of the field's lattice, by
    Newton's method; T⁻¹(y) = A⁻¹ (y + w(y)), where w lies on the lattice that A moves, in the same voxels. Between
    voxels w is linear, which an exact inverse isn't: ``inverse_residual`` tells what that costs. Beyond its grid u
    goes on with its outermost values here, since its jump to zero has no inverse.

    Args:
        transform: T.
        tolerance_mm: largest error of p + u(p) at which a voxel counts as solved.

    Returns:
        T⁻¹; its fixed grid is the moving grid of T, and the other way round. Where T folds, one of the points that T
        takes there.
    """
    swapped = replace(
        transform, alignment=transform.back, fixed_grid=transform.moving_grid, moving_grid=transform.fixed_grid
    )
    if transform.ddf is None:
        return replace(swapped, field_grid=_moved(transform.field_grid, transform.alignment))
    field = Lattice.of(transform.ddf)
    low, size = field.reach
    lattice = transform.field_grid.crop(low, low + size - 1)
    found = torch.empty(3, *size.tolist(), dtype=torch.float64)
    tolerance = tolerance_mm / float(transform.field_grid.spacing_mm.max())
    for rows, target in Grid(lattice.shape, np.eye(4)).slabs():
        index = target.view(-1, 3) + torch.from_numpy(low)
        solved, _ = _solve(field, index, tolerance)
        found[:, rows] = (solved - index).T.reshape(3, *target.shape[:-1])
    return replace(swapped, ddf=found, field_grid=_moved(lattice, transform.alignment))


def invert_points(
    transform: SpatialTransform, points_mm: npt.ArrayLike, tolerance_mm: float = TOLERANCE_MM
) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """Carry points of the moving image to the fixed one, each solved for itself, not interpolated from voxels.

    Args:
        transform: T, from fixed to moving.
        points_mm: (n, 3), mm, LPS, of the moving image.
        tolerance_mm: largest |T(p) − y| of a point that counts as solved.

    Returns:
        The points of the fixed image, (n, 3), mm, LPS; and which of them the field reaches, (n,). The others are
        carried by the alignment alone.
    """
    return points_back(transform, None if transform.ddf is None else Lattice.of(transform.ddf), points_mm, tolerance_mm)


def points_back(
    transform: SpatialTransform,
    field: "Lattice | None",
    points_mm: npt.ArrayLike,
    tolerance_mm: float = TOLERANCE_MM,
    extend: bool = False,
) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """Carry points as ``invert_points``, with the transform's field made ready once for many calls.

    Args:
        transform: T.
        field: that of T, made ready.
        points_mm: (n, 3), mm, LPS, of the moving image.
        tolerance_mm: see ``invert_points``.
        extend: points that no point within the field goes to are carried as by ``invert``: the field goes on with its
            outermost values, as far as the lattice of that; by the alignment beyond it.
    """
    points = np.asarray(points_mm, dtype=np.float64).reshape(-1, 3)
    back = transform.back
    aligned = points @ back[:3, :3].T + back[:3, 3]
    if field is None:
        return aligned, np.ones(len(points), dtype=bool)
    index = torch.from_numpy(transform.field_grid.to_index(aligned))
    scale = float(np.linalg.norm(transform.alignment[:3, :3], 2) * transform.field_grid.spacing_mm.max())
    parts = [_solve(field, part, tolerance_mm / scale) for part in index.split(POINTS_AT_A_TIME)]
    solved, exact = (torch.cat(part) for part in zip(*parts)) if parts else (index, torch.ones(0, dtype=torch.bool))
    reached = (exact & is_inside(solved, field.shape)).numpy()
    kept = reached
    if extend:
        low, size = field.reach
        kept = is_inside(index - torch.from_numpy(low), size.tolist()).numpy()
    found = transform.field_grid.to_points(solved.numpy())
    return np.where(kept[:, None], found, aligned), reached


def inverse_residual(
    transform: SpatialTransform, inverse: SpatialTransform, mask: torch.Tensor | None = None
) -> dict[str, float]:
    """Measure |p − T⁻¹(T(p))| at the voxels of the fixed image.

    Args:
        transform: T.
        inverse: T⁻¹.
        mask: (H, W, L) on the fixed image's grid, the voxels that count; None for all.

    Returns:
        ``mean_mm``, ``p99_mm`` and ``max_mm`` over the voxels that T takes into the moving image; and
        ``beyond_percent``, how many it takes elsewhere.
    """
    lengths, count = [], 0
    for here, there, inside in _carried(transform, mask):
        count += len(here)
        here, there = here[inside], there[inside]
        lengths.append((there + inverse.displacement_at(there) - here).norm(dim=-1))
    residual = torch.cat(lengths).numpy()
    percent = 100 * (count - len(residual)) / max(count, 1)
    if not len(residual):
        return {"mean_mm": float("nan"), "p99_mm": float("nan"), "max_mm": float("nan"), "beyond_percent": percent}
    return {
        "mean_mm": float(residual.mean()),
        "p99_mm": float(np.percentile(residual, 99)),
        "max_mm": float(residual.max()),
        "beyond_percent": percent,
    }


def beyond_percent(transform: SpatialTransform, mask: torch.Tensor | None = None) -> float:
    """Count how many voxels of the fixed image, of those in ``mask``, a transform takes out of the moving image: %."""
    inside = torch.cat([inside for _, _, inside in _carried(transform, mask)])
    return 100 * float((~inside).sum()) / max(len(inside), 1)


def _carried(
    transform: SpatialTransform, mask: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Carry voxels of the fixed image, slab by slab: where they are, where they go, (n, 3) in mm, and which stay in."""
    back = torch.from_numpy(transform.moving_grid.inverse)
    for rows, points in transform.fixed_grid.slabs():
        here = points.reshape(-1, 3) if mask is None else points[mask[rows]]
        there = here + transform.displacement_at(here)
        index = there @ back[:3, :3].T + back[:3, 3]
        yield here, there, is_inside(index, transform.moving_grid.shape)


def _moved(grid: Grid, alignment: Matrix) -> Grid:
    return Grid(grid.shape, alignment @ grid.affine)


@dataclass(frozen=True)
class Lattice:
    """A field as it is read at many points: the three numbers of a voxel beside each other."""

    values: torch.Tensor  # (H·W·L, 3), voxels, float64
    shape: tuple[int, ...]

    @classmethod
    def of(cls, ddf: DDF) -> "Lattice":
        """Lay a field, (3, H, W, L), voxels, out so."""
        values = ddf.detach().double().cpu().reshape(3, -1).T.contiguous()
        return cls(values, tuple(ddf.shape[1:]))

    @cached_property
    def reach(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The voxels that the field's own, or what it takes them to, lie among: the lowest index, and how many."""
        low, high = [], []
        for axis, side in enumerate(self.shape):
            own = torch.arange(side, dtype=torch.float64).view([side if other == axis else 1 for other in range(3)])
            moved = self.values[:, axis].view(self.shape) + own
            low.append(min(np.floor(float(moved.min())), 0) - 1)
            high.append(max(np.ceil(float(moved.max())), side - 1) + 1)
        first = np.array(low).astype(np.int64)
        return first, np.array(high).astype(np.int64) - first + 1

    @cached_property
    def cells(self) -> Cells:
        """The field's cells, made when they are first asked for."""
        return Cells.of(self.values.view(*self.shape, 3))

    def read(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Interpolate at indices (n, 3): (n, 3), and the derivative, (n, 3 components, 3 axes).

        Beyond the border the outermost values go on.
        """
        last = torch.tensor(self.shape) - 1
        low = index.floor().clamp(min=0).minimum((last - 1).clamp(min=0))
        part, stride = index.minimum(last).clamp(min=0) - low, [self.shape[1] * self.shape[2], self.shape[2], 1]
        steps = [sum(t * c for t, c, n in zip(stride, corner, self.shape) if n > 1) for corner in CORNERS]
        at = self.values[(low.long() @ torch.tensor(stride))[:, None] + torch.tensor(steps)].view(-1, 2, 2, 2, 3)
        value, slope = interpolated(at, part)
        return value, slope * ((index >= 0) & (index <= last))[:, None, :]


def _solve(lattice: Lattice, target: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve x + u(x) = target, (n, 3), voxels: x, and where the error is within the tolerance, (n,).

    Newton's method on the field as it is interpolated, which ends in a minimum of the error at times; so where it finds
    no point within the field, the cells that may hold one are looked into.
    """
    best, least = _descend(lattice, target, tolerance)
    missed = (~((least <= tolerance) & is_inside(best, lattice.shape)) & target.isfinite().all(1)).nonzero()[:, 0]
    if len(missed):
        which, x = lattice.cells.solve(target[missed])
        which = missed[which]
        best[which], least[which] = x, (x + lattice.read(x)[0] - target[which]).norm(dim=1)
    return best, least <= tolerance


def _descend(lattice: Lattice, target: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Follow Newton's method from the target itself, a step that makes the error larger halved: x, and its error."""
    best, least = target.clone(), torch.full(target.shape[:1], float("inf"), dtype=target.dtype)
    left, x, step = torch.arange(len(target)), target, torch.zeros_like(target)
    for _ in range(ATTEMPTS):
        value, slope = lattice.read(x)
        error = x + value - target[left]
        length = error.norm(dim=1)
        better = length < least[left]
        best[left[better]], least[left[better]] = x[better], length[better]
        jacobian = slope + torch.eye(3, dtype=slope.dtype)
        step = torch.where(better[:, None], newton(jacobian, error, SMALLEST_DETERMINANT), step / 2)
        unsolved = least[left] > tolerance
        left, step = left[unsolved], step[unsolved]
        if not len(left):
            break
        x = best[left] - step
    return best, least
