"""How plausible a field is: where it folds, and how evenly it changes volume. One pair at a time."""

import math
from itertools import product

import torch
from bundle.fields import jacobian_determinant
from bundle.shapes import DDF
from monai.utils import convert_to_tensor

__all__ = ["folding_percent", "learn2reg_log_jacobian_sd", "log_jacobian_sd", "non_diffeomorphic_volume_percent"]

Corner = tuple[int, int, int]
CORNERS: list[Corner] = [(a, b, c) for a, b, c in product((0, 1), repeat=3)]


def folding_percent(ddf: DDF, mask: torch.Tensor | None = None) -> float:
    """Compute the share of voxels where the field folds: 100 · count(det J ≤ 0) / count.

    A determinant that is not a number counts as a fold, so that a broken field cannot look perfect.

    Args:
        ddf: field of one pair, (1, 3, H, W, L), voxels; half precision is measured in float32.
        mask: voxels to count, (1, 1, H, W, L) or (H, W, L), non-zero inside; all when None.

    Returns:
        Per cent, 0 to 100; NaN when the mask is empty.

    Raises:
        ValueError: the field is not of one pair, a side is shorter than 2, or the mask has another grid.

    Example:
        >>> ddf = torch.zeros(1, 3, 4, 5, 5)
        >>> ddf[:, 0, 2, 0, 0] = -2  # the voxel below, one of a hundred, now maps to a point
        >>> folding_percent(ddf)
        1.0
    """
    det = _determinants(ddf, mask)
    return 100 * (~(det > 0)).sum().item() / det.numel() if det.numel() else math.nan


def log_jacobian_sd(ddf: DDF, mask: torch.Tensor | None = None) -> float:
    """Compute how unevenly the field changes volume: the standard deviation of log det J.

    Folded voxels (det J ≤ 0) have no logarithm and are left out: read it beside ``folding_percent``. All voxels left
    count equally, and the sum of squares is divided by their number.

    Args:
        ddf: field of one pair, (1, 3, H, W, L), voxels.
        mask: voxels to count, (1, 1, H, W, L) or (H, W, L), non-zero inside; all when None.

    Returns:
        The standard deviation, no unit; 0 for any affine map; NaN when every voxel is folded.

    Raises:
        ValueError: see ``folding_percent``.

    Departs from paper:
        The paper does not report it. Learn2Reg's (``learn2reg_log_jacobian_sd``) is another number: near the identity
        about a quarter of this one.

    Example:
        >>> ddf = torch.zeros(1, 3, 4, 5, 6)
        >>> ddf[:, 0] = 0.5 * torch.arange(4.0).view(4, 1, 1)  # 1.5 times as long, everywhere
        >>> round(log_jacobian_sd(ddf), 6)
        0.0
    """
    det = _determinants(ddf, mask)
    logarithms = det[det > 0].double().log_()
    return logarithms.std(correction=0).item() if logarithms.numel() else math.nan


def learn2reg_log_jacobian_sd(ddf: DDF) -> float:
    """Compute SDlogJ as the Learn2Reg challenge does: the standard deviation of log(det J + 3).

    det J + 3 is clipped to 1e-9 … 1e9, so that folds have a logarithm, too; two voxels off each border are left out.

    Args:
        ddf: field of one pair, (1, 3, H, W, L), voxels.

    Returns:
        The standard deviation, no unit; 0 for any affine map; NaN for a field with a side below 5.

    Raises:
        ValueError: see ``folding_percent``.

    Source:
        Hering et al., Learn2Reg, IEEE TMI 2022, and the evaluation of the challenge.

    Example:
        >>> ddf = torch.zeros(1, 3, 6, 6, 6)
        >>> ddf[:, 0] = 0.5 * torch.arange(6.0).view(6, 1, 1)
        >>> learn2reg_log_jacobian_sd(ddf)
        0.0
    """
    field = _one_field(ddf)
    inside = jacobian_determinant(field.double())[0, 0, 2:-2, 2:-2, 2:-2]
    return (inside + 3).clamp(1e-9, 1e9).log().std(correction=0).item() if inside.numel() else math.nan


def non_diffeomorphic_volume_percent(ddf: DDF) -> float:
    """Compute the volume that a field turns inside out, in per cent of the grid's: folds that differences may miss.

    Each cell between eight neighbouring voxels is cut into five tetrahedra, in both ways there are, and every
    tetrahedron is carried by the field, linear within it. The volumes of those that come out inverted are added up, and
    both ways averaged. The determinants at a cell's corners are those of all combinations of forward and backward
    differences at the voxels; a central difference looks past the voxel itself, and sees no fold in a checkerboard.
    0 means that the piecewise linear map is one to one: a digital diffeomorphism.

    Args:
        ddf: field of one pair, (1, 3, H, W, L), voxels, every side ≥ 2; half precision is measured in float32.

    Returns:
        100 · volume / volume of all cells: 0 and up; a field that is not a number anywhere has infinitely much.

    Raises:
        ValueError: see ``folding_percent``.

    Source:
        Liu, Chen, Wei, Carass, Prince: On finite difference Jacobian computation in deformable image registration,
        International Journal of Computer Vision 2024 (arXiv 2212.06060); written from the publication.

    Example:
        >>> grid = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij"))[None]
        >>> checkerboard = torch.zeros(1, 3, 4, 4, 4)
        >>> checkerboard[:, 0] = 0.75 * (-1) ** grid.sum(1)  # each voxel jumps beyond its neighbour
        >>> round(non_diffeomorphic_volume_percent(checkerboard), 3)  # (2 · 0.75 − 1) / 3 of every cell
        16.667
    """
    field = _one_field(ddf)
    if not bool(field.isfinite().all()):
        return math.inf
    corners = {corner: _shifted(field, corner) for corner in CORNERS}
    cells = corners[0, 0, 0][0].numel()
    inverted = sum((_inverted_volume(corners, tetrahedron) for tetrahedron in _tetrahedra()), 0.0)
    return 100 * inverted / 2 / cells


def _one_field(ddf: DDF) -> torch.Tensor:
    """Check that a field is one pair's, and return it in float32 at least, (1, 3, H, W, L)."""
    field: torch.Tensor = convert_to_tensor(ddf, track_meta=False)
    if field.dim() != 5 or field.shape[:2] != (1, 3) or min(field.shape[2:]) < 2:
        raise ValueError(f"A field must be of one pair, (1, 3, H, W, L) of sides ≥ 2, got {tuple(field.shape)}.")
    return field if field.dtype == torch.float64 else field.float()


def _shifted(field: torch.Tensor, corner: Corner) -> torch.Tensor:
    """Take the displacement at one corner of every cell, (3, H − 1, W − 1, L − 1)."""
    h, w, d = (n - 1 for n in field.shape[2:])
    i, j, k = corner
    return field[0, :, i : i + h, j : j + w, k : k + d]


def _tetrahedra() -> list[tuple[Corner, ...]]:
    """List the tetrahedra of a cell: one at each corner, and the two of every other corner in the middle."""
    at_corners = [((a, b, c), (1 - a, b, c), (a, 1 - b, c), (a, b, 1 - c)) for a, b, c in CORNERS]
    return [*at_corners, *(tuple(corner for corner in CORNERS if sum(corner) % 2 == parity) for parity in (0, 1))]


def _inverted_volume(corners: dict[Corner, torch.Tensor], tetrahedron: tuple[Corner, ...]) -> float:
    """Add up the volumes of one tetrahedron of every cell where the field turns it inside out, in voxels."""
    first, *others = tetrahedron
    offsets = torch.tensor([[b - a for a, b in zip(first, other)] for other in others], dtype=torch.float64)
    sign = 1 if torch.linalg.det(offsets) > 0 else -1
    edges = [
        corners[other] - corners[first] + offset.to(corners[first]).view(3, 1, 1, 1)
        for other, offset in zip(others, offsets)
    ]
    volume = sign * (edges[0] * torch.linalg.cross(edges[1], edges[2], dim=0)).sum(0) / 6
    return float(-volume.clamp(max=0).double().sum())


def _determinants(ddf: DDF, mask: torch.Tensor | None) -> torch.Tensor:
    """Compute the determinants of one pair's field inside a mask, as a list of voxels."""
    field = convert_to_tensor(ddf, track_meta=False)
    if field.shape[0] != 1:
        raise ValueError(f"A field must be of one pair, (1, 3, H, W, L), got {tuple(field.shape)}.")
    det = jacobian_determinant(field if field.dtype == torch.float64 else field.float())[0, 0]
    if mask is None:
        return det.flatten()
    if mask.shape not in (det.shape, (1, 1, *det.shape)):
        raise ValueError(f"The mask must cover the field's grid {tuple(det.shape)}, got {tuple(mask.shape)}.")
    return det[convert_to_tensor(mask, track_meta=False).to(det.device).reshape(det.shape) != 0]
