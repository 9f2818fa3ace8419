"""How far landmarks miss their targets, in physical space."""

import numpy as np
import numpy.typing as npt

__all__ = ["tre_mm"]


def tre_mm(warped_points_mm: npt.ArrayLike, fixed_points_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Compute the target registration error: how far each displaced landmark lies from its target.

    Row *n* of one array corresponds to row *n* of the other, both in the same physical space. A field pulls, hence
    moves landmarks of the fixed image to the moving one: compare either those with the moving landmarks, or moving
    landmarks carried by the inverse with the fixed ones.

    Args:
        warped_points_mm: landmarks after the transform, (N, 3), mm.
        fixed_points_mm: their targets, (N, 3), mm.

    Returns:
        Euclidean distances, (N,), mm.

    Raises:
        ValueError: the shapes differ or are not (N, 3).

    Example:
        >>> tre_mm([[0, 0, 0], [1, 2, 3]], [[3, 4, 0], [1, 2, 3]]).tolist()
        [5.0, 0.0]
    """
    warped, fixed = np.asarray(warped_points_mm, np.float64), np.asarray(fixed_points_mm, np.float64)
    if warped.shape != fixed.shape or warped.ndim != 2 or warped.shape[1] != 3:
        raise ValueError(f"Landmarks must be two (N, 3) arrays, got {warped.shape} and {fixed.shape}.")
    return np.linalg.norm(warped - fixed, axis=1)
