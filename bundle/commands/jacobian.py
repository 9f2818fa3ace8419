"""Map the local change of volume."""

from pathlib import Path

import numpy as np
import torch
from bundle.commands.reading import check_places, grid_if_given, print_notes, read_one
from bundle.io.files import in_place
from bundle.io.images import check_ending, write_image
from bundle.progress import RESAMPLING, WRITING, Stages, millions
from bundle.spatial import SpatialTransform
from bundle.transforms import check_sides, read_grid

__all__ = ["jacobian"]


def jacobian(
    transform: str,
    fixed: str,
    output: str,
    log: bool = False,
    whole: bool = False,
    moving: str | None = None,
    kind: str | None = None,
) -> str:
    """Write the Jacobian determinant of a transform at the voxels of the fixed image.

    The determinant of ∂T/∂p by central differences between neighbouring voxels, one-sided where the field ends: above
    1 where the moving image is larger than the fixed one at this place, below 1 where it is smaller, 0 or less where T
    folds.

    Args:
        transform: transform.h5 of a registration, or another transform that apply takes.
        fixed: the fixed image.
        output: file to write (.nii.gz, .nii, .nrrd, .mha).
        log: write the natural logarithm; NaN where the determinant is 0 or less.
        whole: of the alignment and the field together, not of the field alone. Where a file does not hold the two
            apart, as an image of displacements, it is of the whole anyway; what was measured is printed. A linear
            transform takes this.
        moving: the moving image; needed for transforms that are stated in its voxels.
        kind: whose transform it is, where its file leaves that open (docs/transforms.md).

    Returns:
        Path of the file written.
    """
    check_ending(str(output))
    check_places([output], transform, {"fixed image": fixed, "moving image": moving})
    with Stages("mapping the Jacobian", "reading") as stages:
        grid, notes = read_grid(Path(str(fixed)), "fixed image")
        moving_grid, moving_notes = grid_if_given(moving, "moving image")
        check_sides(grid.shape, f"The fixed image ({fixed})")
        size = millions(grid.shape)
        stages.expect({"reading": size, "determinant": RESAMPLING * size, "writing": WRITING * size})
        stored, _ = read_grid(Path(str(fixed)), "fixed image", as_stored=True)
        found = read_one(transform, stored, moving_grid, kind)
        if found.ddf is None and not whole:
            raise ValueError(
                f"The transform ({transform}) is linear, and has no field to measure alone: give --whole for the "
                "determinant of its matrix, the same everywhere."
            )
        stages.begin("determinant")
        determinant = (found if whole else found.without_alignment()).jacobian_on(grid)
        folds = determinant[0] <= 0
        count, at_border = int(folds.sum()), int(folds.sum() - folds[1:-1, 1:-1, 1:-1].sum())
        values = torch.where(determinant > 0, determinant.log(), torch.tensor(np.nan)) if log else determinant
        stages.begin("writing")
        with in_place(Path(str(output))) as partial:
            write_image(values.float(), grid, partial, str(fixed))
    print_notes(moving_notes + notes)
    low, high = float(determinant.min()), float(determinant.max())
    print(f"determinant of {_measured(found, whole)}: {low:.3f} to {high:.3f}, {count} voxels fold")
    if at_border:
        print(
            f"note: {at_border} of these lie in the outermost layer of the fixed image's voxels, where differences are "
            "one-sided if the field ends there: what register counts as folding goes on beyond"
        )
    print(f"written: {output}")
    return str(output)


def _measured(transform: SpatialTransform, whole: bool) -> str:
    """Name what the determinant is of."""
    if transform.ddf is None:
        return "the linear transform"
    if np.array_equal(transform.alignment, np.eye(4)):
        return "the whole transform, whose file holds no alignment apart from the field"
    return "the alignment and the field together" if whole else "the field alone"
