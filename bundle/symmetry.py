"""Registration in both directions, meeting halfway: to swap the images is to invert the result."""

import numpy as np
from bundle.fields import compose, warp
from bundle.shapes import DDF
from bundle.spatial import Matrix

__all__ = ["geometric_mean", "half_field", "halfway", "inverse_field", "root"]

TOLERANCE = 1e-4  # voxels, on average
ITERATIONS = 15
CORRECTIONS = 4


def halfway(forward: DDF, backward: DDF) -> DDF:
    """Combine the fields of both directions: (id + b)^−½ ∘ (id + f)^½, halves in the sense of composition.

    With the fields swapped this is the inverse, whatever the two fields are; where b is the inverse of f already, it
    is f. Interpolation between voxels makes a difference, though. So the field and its counterpart, made of the swapped
    fields, are corrected a few times: each gives way by half of what the two of them in a row leave.

    Args:
        forward: f, (B, 3, H, W, L), voxels: pulls the moving image to the fixed one.
        backward: b, of the same shape and grid: pulls the fixed image to the moving one.
    """
    there, back = half_field(forward), half_field(backward)
    found, counterpart = compose(inverse_field(back), there), compose(inverse_field(there), back)
    for _ in range(CORRECTIONS):
        found, counterpart = (found - compose(counterpart, found) / 2, counterpart - compose(found, counterpart) / 2)
    return found


def half_field(ddf: DDF) -> DDF:
    """Find the field that composed with itself is this one: s ← s − ½ (s ∘ s − u), from s = ½ u.

    Args:
        ddf: u, (B, 3, H, W, L), voxels. Beyond the border its outermost values go on.
    """
    found = ddf / 2
    for _ in range(ITERATIONS):
        excess = compose(found, found.clone()) - ddf
        found = found - excess / 2
        if float(excess.abs().mean()) < TOLERANCE:
            break
    return found


def inverse_field(ddf: DDF) -> DDF:
    """Invert a field on its own grid: v(y) = −u(y + v(y)), iterated; for fields that change slowly.

    Args:
        ddf: u, (B, 3, H, W, L), voxels. Beyond the border its outermost values go on.
    """
    found = -ddf
    for _ in range(ITERATIONS):
        again = -warp(ddf, found, padding="border")
        change = float((again - found).abs().mean())
        found = again
        if change < TOLERANCE:
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
