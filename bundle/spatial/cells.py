"""Cells between the voxels of a field: in which of them, and where, a point lies that the field takes to another."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["CORNERS", "Cells", "interpolated", "newton"]

CORNERS = tuple(product((0, 1), repeat=3))
LONGEST = 2.0  # voxels, of one step
STEPS = 12  # of Newton's method within a cell, where few are needed
SOLVED = 1e-6  # voxels
SLACK = 1e-3  # voxels, of the bounds, which are kept in single precision
STARTS = ((0.5,) * 3, *product((0.1, 0.9), repeat=3))  # within a cell; the others where it folds
BORDER = 1e-9  # of a cell's side


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a lattice, those of half a voxel around the outermost centres included, and what bounds each.

    A cell is interpolated between its eight corners, so whatever lies in it is taken to a point between the least and
    the largest of what they are taken to: outside these bounds no search is needed.

    Args:
        corners: (H+2, W+2, L+2, 3), where each corner goes, voxels.
        sides: where the corners lie along each axis, voxels.
        low: (H+1, W+1, L+1, 3), the least that the corners of each cell go to.
        high: the largest.
    """

    corners: torch.Tensor
    sides: tuple[torch.Tensor, ...]
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor) -> "Cells":
        """Make those of a field, (H, W, L, 3), voxels, float64."""
        padded = F.pad(values.permute(3, 0, 1, 2)[None], (1,) * 6, mode="replicate")[0].permute(1, 2, 3, 0).clone()
        sides = tuple(torch.tensor([-0.5, *range(n), n - 0.5], dtype=values.dtype) for n in values.shape[:3])
        for axis, side in enumerate(sides):
            padded[..., axis] += side.view([-1 if other == axis else 1 for other in range(3)])
        low = high = padded.float()
        for axis in range(3):
            size = low.shape[axis] - 1
            low = torch.minimum(low.narrow(axis, 0, size), low.narrow(axis, 1, size))
            high = torch.maximum(high.narrow(axis, 0, size), high.narrow(axis, 1, size))
        return cls(padded, sides, low - SLACK, high + SLACK)

    def solve(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find points that go to others, by looking into each cell that can hold one.

        Args:
            target: (n, 3), voxels.

        Returns:
            The numbers of those of ``target`` that a point goes to, (m,), each once, and that point, (m, 3), voxels.
        """
        which, cell = self._around(target)
        found, x = torch.zeros(len(target), dtype=torch.bool), torch.zeros_like(target)
        for start in STARTS:
            if start is STARTS[1]:
                left = ~found[which] & self._folds(cell)
                which, cell = which[left], cell[left]
            there, within = self._within(cell, target[which], start)
            found[which[within]], x[which[within]] = True, there[within]
        return found.nonzero()[:, 0], x[found]

    def _around(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pair points with the cells that they lie within the bounds of: the numbers of both, (m,) and (m, 3)."""
        from scipy.spatial import cKDTree  # here, since few transforms need it

        rows = self._rows(target)
        cell = _holding_any(self.low[rows], self.high[rows], target.float()) + torch.tensor([rows.start, 0, 0])
        low, high = (bound[tuple(cell.unbind(1))].double() for bound in (self.low, self.high))
        radius = (high - low).amax(1) / 2
        near = cKDTree(target.numpy()).query_ball_point(((low + high) / 2).numpy(), radius.numpy(), p=np.inf)
        counts = torch.tensor([len(points) for points in near], dtype=torch.long)
        which = torch.tensor([point for points in near for point in points], dtype=torch.long)
        pair = torch.arange(len(cell)).repeat_interleave(counts)
        around = ((target[which] >= low[pair]) & (target[which] <= high[pair])).all(1)
        return which[around], cell[pair[around]]

    @cached_property
    def _planes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The bounds of each plane of cells along axis 0, of that coordinate: points come a few planes at a time."""
        return self.low[..., 0].amin((1, 2)), self.high[..., 0].amax((1, 2))

    def _rows(self, target: torch.Tensor) -> slice:
        """Narrow the planes down to those that may hold any of some points."""
        low, high = self._planes
        near = ((low < target[:, 0].amax() + 1) & (high >= target[:, 0].amin() - 1)).nonzero()[:, 0]
        return slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)

    def _at(self, cell: torch.Tensor) -> torch.Tensor:
        """Read where the corners of cells, (m, 3), go: (m, 2, 2, 2, 3)."""
        return self.corners[tuple((cell[:, None] + torch.tensor(CORNERS)).unbind(2))].view(-1, 2, 2, 2, 3)

    def _folds(self, cell: torch.Tensor) -> torch.Tensor:
        """Tell which cells, (m, 3), are turned inside out at a corner, so that one start may not do: (m,)."""
        at = self._at(cell)
        parts = [torch.tensor(corner, dtype=at.dtype).expand(len(cell), 3) for corner in CORNERS]
        return torch.stack([torch.linalg.det(interpolated(at, part)[1]) <= 0 for part in parts]).any(0)

    def _within(
        self, cell: torch.Tensor, target: torch.Tensor, start: tuple[float, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve in each of some cells, (m, 3), for its point, (m, 3): where it is, and whether within the cell.

        The interpolation of the cell goes on around it, smooth as it is, so that Newton's method does not jump between
        cells.
        """
        at = self._at(cell)
        first = torch.stack([side[index] for side, index in zip(self.sides, cell.unbind(1))], 1)
        size = torch.stack([side[index + 1] for side, index in zip(self.sides, cell.unbind(1))], 1) - first
        part = torch.tensor(start, dtype=target.dtype).expand_as(target)
        for _ in range(STEPS):
            value, slope = interpolated(at, part)
            part = part - newton(slope / size[:, None], value - target, 1e-6) / size
        error = (interpolated(at, part)[0] - target).norm(dim=1)
        inside = ((part >= -BORDER) & (part <= 1 + BORDER)).all(1) & (error < SOLVED)
        return first + size * part.clamp(0, 1), inside


def newton(jacobian: torch.Tensor, error: torch.Tensor, smallest: float) -> torch.Tensor:
    """The step J⁻¹ error, (n, 3), of limited length; the error itself where det J is smaller than ``smallest``.

    Args:
        jacobian: (n, 3, 3), component, then axis.
        error: (n, 3), voxels.
        smallest: a determinant.
    """
    a, b, c = jacobian.unbind(2)  # columns
    across = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    determinant = (a * across[:, 0]).sum(1, keepdim=True)
    step = torch.einsum("nij,nj->ni", across, error) / determinant
    step = torch.where(determinant.abs() > smallest, step, error)
    return step * (LONGEST / step.norm(dim=1, keepdim=True).clamp(min=LONGEST))


def _holding_any(low: torch.Tensor, high: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """List the cells within whose bounds, rounded to whole voxels, a point lies, (m, 3): by sums over boxes."""
    first, last = target.amin(0).floor(), target.amax(0).floor()
    cell = ((low < last + 1) & (high >= first)).all(3).nonzero()
    counts = torch.zeros([int(n) + 2 for n in last - first], dtype=torch.int32)
    counts[tuple((target - first).floor().long().add(1).unbind(1))] = 1
    for axis in range(3):
        counts = counts.cumsum(axis, dtype=torch.int32)
    start, end = (bound[tuple(cell.unbind(1))].floor() - first for bound in (low, high))
    most = last - first
    ends = (start.clamp(min=0).long(), end.minimum(most).long() + 1)
    total = torch.zeros(len(cell), dtype=torch.int32)
    for corner in CORNERS:
        sign = (-1) ** (3 - sum(corner))
        total += sign * counts[tuple(ends[upper][:, axis] for axis, upper in enumerate(corner))]
    return cell[total > 0]


def interpolated(at: torch.Tensor, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolate between corners, (m, 2, 2, 2, 3), at parts of the sides, (m, 3): (m, 3), and ∂/∂part, (m, 3, 3)."""
    i, j, k = part[:, :1], part[:, 1].view(-1, 1, 1), part[:, 2].view(-1, 1, 1, 1)
    along_k = at[:, :, :, 1] - at[:, :, :, 0]
    plane = at[:, :, :, 0] + k * along_k
    along_j = plane[:, :, 1] - plane[:, :, 0]
    line = plane[:, :, 0] + j * along_j
    along_k = along_k[:, :, 0] + j * (along_k[:, :, 1] - along_k[:, :, 0])
    along_i = line[:, 1] - line[:, 0]
    slopes = [along_i, *(v[:, 0] + i * (v[:, 1] - v[:, 0]) for v in (along_j, along_k))]
    return line[:, 0] + i * along_i, torch.stack(slopes, 2)
