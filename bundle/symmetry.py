"""Registration in both directions, meeting halfway: to swap the images is to invert the result."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from bundle.fields import compose, warp
from bundle.shapes import DDF
from bundle.spatial import Matrix

__all__ = ["geometric_mean", "half_field", "halfway", "inverse_field", "meet", "root"]

TOLERANCE = 1e-4  # voxels, on average
NEARLY = 1e-2  # where corrections follow: what is solved farther than voxels can hold it is rougher, and no better
ITERATIONS = 15
CORRECTIONS = 3

Find: TypeAlias = Callable[[torch.Tensor], DDF]
"""From two images, (B, 2, H, W, L), to a field, (B, 3, H, W, L)."""


def halfway(forward: DDF, backward: DDF) -> tuple[DDF, DDF]:
    """Combine the fields of both directions: (id + b)^−½ ∘ (id + f)^½, halves in the sense of composition.

    With the fields swapped this is the inverse, whatever the two fields are; where b is the inverse of f already, it
    is f. Interpolation between voxels makes a difference, though: see ``consistent``.

    Args:
        forward: f, (B, 3, H, W, L), voxels: pulls the moving image to the fixed one.
        backward: b, of the same shape and grid: pulls the fixed image to the moving one.

    Returns:
        The field, and that of the swapped fields.
    """
    there, back = half_field(forward, NEARLY), half_field(backward, NEARLY)
    return consistent(compose(inverse_field(back, NEARLY), there), compose(inverse_field(there, NEARLY), back))


def consistent(found: DDF, counterpart: DDF) -> tuple[DDF, DDF]:
    """Make two fields that are nearly each other's inverse more so: each gives way by half of what both leave in a row.

    Args:
        found: (B, 3, H, W, L), voxels.
        counterpart: of the same shape and grid.
    """
    for _ in range(CORRECTIONS):
        found, counterpart = (found - compose(counterpart, found) / 2, counterpart - compose(found, counterpart) / 2)
    return found, counterpart


def meet(pair: torch.Tensor, first: Find, then: Find) -> DDF:
    """Register both ways, so that with the images swapped the field is the inverse.

    The mean of two fields that disagree is smoother than either of them: what it leaves is found where the two images
    meet, again both ways.

    Args:
        pair: moving and fixed image, (B, 2, H, W, L).
        first: finds the field, (B, 3, H, W, L), that pulls the first of two images to the second.
        then: the same for the images where they meet.
    """
    found, counterpart = halfway(first(pair), first(pair.flip(1)))
    there, back = half_field(found, NEARLY), half_field(counterpart, NEARLY)
    middle = torch.cat([warp(pair[:, :1], there), warp(pair[:, 1:], back)], 1)
    more = (then(middle) - then(middle.flip(1))) / 2  # small: its inverse is next to −more
    return consistent(compose(compose(there, more), there), compose(compose(back, -more), back))[0]


def half_field(ddf: DDF, tolerance: float = TOLERANCE) -> DDF:
    """Find the field that composed with itself is this one: s ← s − ½ (s ∘ s − u), from s = ½ u.

    Args:
        ddf: u, (B, 3, H, W, L), voxels. Beyond the border its outermost values go on.
        tolerance: mean change, in voxels, after which it is found.
    """
    found = ddf / 2
    for _ in range(ITERATIONS):
        excess = compose(found, found.clone()) - ddf
        found = found - excess / 2
        if float(excess.abs().mean()) < tolerance:
            break
    return found


def inverse_field(ddf: DDF, tolerance: float = TOLERANCE) -> DDF:
    """Invert a field on its own grid: v(y) = −u(y + v(y)), iterated; for fields that change slowly.

    Args:
        ddf: u, (B, 3, H, W, L), voxels. Beyond the border its outermost values go on.
        tolerance: mean change, in voxels, after which it is found.
    """
    found = -ddf
    for _ in range(ITERATIONS):
        again = -warp(ddf, found, padding="border")
        change = float((again - found).abs().mean())
        found = again
        if change < tolerance:
            break
    return found


def geometric_mean(forward: Matrix, backward: Matrix) -> Matrix:
    """Find the linear transform between an alignment and the inverse of the one found the other way round.

    A # B⁻¹ = A (A⁻¹ B⁻¹)^½. With the images swapped, B # A⁻¹, it is the inverse.

    Args:
        forward: A, 4×4, fixed to moving.
        backward: B, 4×4, moving to fixed.

    Raises:
        ValueError: the two are so far apart that nothing lies between them.
    """
    apart = np.linalg.inv(forward) @ np.linalg.inv(backward)
    mean = forward @ root(apart)
    return np.asarray(mean, dtype=np.float64)


def root(matrix: Matrix) -> Matrix:
    """Take half of a linear transform: the principal square root of a 4×4 matrix.

    Raises:
        ValueError: it has none, as a mirror image or half a turn.
    """
    from scipy.linalg import sqrtm  # here, since register is symmetric on request alone

    half = np.asarray(sqrtm(matrix))
    if np.abs(half.imag).max() > 1e-6 or not np.isfinite(half).all():
        raise ValueError("The alignment has no half: the images are mirrored, or half a turn apart.")
    return half.real.astype(np.float64)
