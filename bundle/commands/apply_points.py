"""Carry points and surfaces from one image to the other."""

from typing import Any

import numpy as np
import torch
from bundle.commands.reading import check_places, grid_if_given, print_notes, read_one
from bundle.io.files import in_place
from bundle.io.points import PointFile, Points, Reached, UnsaidSpaceError, match, read_points
from bundle.metrics import tre_mm
from bundle.spatial import SpatialTransform, invert_points, is_inside

__all__ = ["apply_points"]


def apply_points(
    transform: str,
    points: str,
    output: str,
    from_: str = "moving",
    space: str | None = None,
    reference: str | None = None,
    reference_space: str | None = None,
    moving: str | None = None,
    fixed: str | None = None,
    kind: str | None = None,
) -> dict[str, Any]:
    """Carry points or a surface from the moving image to the fixed one, or the other way round.

    Points of the moving image go by the inverse of the transform, solved for each of them; points of the fixed image go
    by the transform itself. Points that the field does not reach go by the alignment alone, and are flagged.

    Args:
        transform: transform.h5 or displacement.nii.gz of a registration, or another transform that apply takes.
        points: landmarks (.csv with columns x, y, z; Slicer's .mrk.json or .fcsv) or a surface (.gii; .vtk, .vtp,
            .stl, .ply, with the vtk package).
        output: file to write, with the same ending.
        from_: --from moving (the default) or --from fixed: the image that the points lie in.
        space: lps or ras, for files that do not say how they count, as CSV.
        reference: landmarks of the other image, of the same labels or in the same order: the distances to them, before
            and after, are reported (target registration error).
        reference_space: lps or ras, of a reference that does not say it; by default that of the points.
        moving: the moving image; needed for transforms that are stated in its voxels.
        fixed: the fixed image; needed for transforms of several fields.
        kind: whose transform it is, where its file leaves that open (docs/transforms.md).

    Returns:
        ``points``, ``beyond_field`` (how many no field reached), and with a reference ``compared`` (how many it has,
        too), ``tre_before_mm`` and ``tre_after_mm``: mean, median, max.
    """
    if from_ not in ("moving", "fixed"):
        raise ValueError(f"--from is moving or fixed, the image that the points lie in, not '{from_}'.")
    if reference_space is not None and reference is None:
        raise ValueError("--reference_space is of a reference: give --reference, or --space for the points themselves.")
    images = {"moving image": moving, "fixed image": fixed}
    check_places([output], transform, {"points": points, "reference": reference} | images)
    read = read_points(str(points), space)
    read.check_output(str(output))
    (moving_grid, moving_notes), (fixed_grid, fixed_notes) = (grid_if_given(path, n) for n, path in images.items())
    found = read_one(transform, fixed_grid, moving_grid, kind)
    there, reached = carried(found, read.points_mm, from_)
    result: dict[str, Any] = {"points": len(there), "beyond_field": int((~reached).sum())}
    if reference is not None:
        result |= _errors(read, there, _read_reference(str(reference), reference_space, read.space))
    with in_place(str(output)) as partial:
        read.write_points(there, reached, partial)
    print_notes(moving_notes + fixed_notes)
    for stage in ("before", "after"):
        if reference is not None:
            numbers = ", ".join(f"{name} {value:.2f}" for name, value in result[f"tre_{stage}_mm"].items())
            print(f"target registration error {stage}: {numbers} mm")
    left_out = len(there) - result.get("compared", len(there))
    if left_out:
        print(f"note: {left_out} of {len(there)} points have no landmark in the reference, and count in no error")
    if result["beyond_field"]:
        moved = "they stay where they are" if np.allclose(found.alignment, np.eye(4)) else "the alignment carries them"
        print(f"note: {result['beyond_field']} of {len(there)} points lie beyond the field: {moved}")
    print(f"written: {output}")
    return result


def _read_reference(path: str, space: str | None, otherwise: str) -> PointFile:
    """Read the landmarks of the other image; they count as the points do where nobody says how."""
    try:
        return read_points(path, space)
    except UnsaidSpaceError:
        return read_points(path, otherwise)


def carried(transform: SpatialTransform, points_mm: Points, from_: str) -> tuple[Points, Reached]:
    """Carry points, (n, 3), mm, LPS: where they come to, and which the field reached, (n,)."""
    if from_ == "moving":
        return invert_points(transform, points_mm)
    there = points_mm + transform.displacement_at(points_mm).numpy()
    if transform.ddf is None:
        return there, np.ones(len(points_mm), dtype=bool)
    index = torch.from_numpy(transform.field_grid.to_index(points_mm))
    return there, is_inside(index, transform.field_grid.shape).numpy()


def _errors(points: PointFile, there: Points, other: PointFile) -> dict[str, Any]:
    index, of_other = match(points, other)
    stages = {"before": points.points_mm, "after": there}
    errors = {stage: tre_mm(of[index], other.points_mm[of_other]) for stage, of in stages.items()}
    return {"compared": len(index)} | {
        f"tre_{stage}_mm": {"mean": float(e.mean()), "median": float(np.median(e)), "max": float(e.max())}
        for stage, e in errors.items()
    }
