"""Invert a transform."""

from pathlib import Path
from typing import Any

import torch
from bundle.commands.reading import check_places, note_unreached, print_notes, read_one
from bundle.intensity import foreground
from bundle.io.files import in_place
from bundle.io.images import write_displacement
from bundle.io.itk import write_transform
from bundle.progress import WRITING, Stages, millions
from bundle.spatial import Inverse, beyond_percent, compose, inverse_residual
from bundle.spatial import invert as inverted
from bundle.transforms import read_file, read_grid

__all__ = ["invert"]

STAGES = ("inverse of the lattice", "inverse at the voxels", "writing", "measuring")
SOLVING = 6.0  # seconds for a million points

WRITTEN = ("inverse.h5", "inverse_displacement.nii.gz")


def invert(
    transform: str, moving: str, fixed: str, output_dir: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """Invert a transform: from points of the moving image to points of the fixed one.

    Writes inverse_displacement.nii.gz, on the moving image's grid, whose voxels are solved one by one, and inverse.h5
    for ITK, ANTs and Slicer, on the lattice of the field.

    Args:
        transform: transform.h5 of a registration, or another transform that apply takes.
        moving: the moving image.
        fixed: the fixed image, whatever it holds; where it shows something counts in the residual alone.
        output_dir: folder to write; by default the transform's own.
        kind: whose transform it is, where its file leaves that open (docs/transforms.md).

    Returns:
        The residual |p − T⁻¹(T(p))| of inverse.h5 at the voxels of the fixed image that show something, or at all where
        none does: ``mean_mm``, ``p99_mm``, ``max_mm``; ``beyond_percent`` of them are taken out of the moving image.

    Raises:
        ValueError: a transform that takes nothing of the fixed image into the moving one.
    """
    folder = Path(str(output_dir)) if output_dir is not None else Path(str(transform)).parent
    check_places([folder / name for name in WRITTEN], transform, {"moving image": moving, "fixed image": fixed})
    with Stages("inverting", "reading") as stages:
        fixed_grid, fixed_notes = read_grid(Path(str(fixed)), "fixed image", as_stored=True)
        moving_grid, notes = read_grid(Path(str(moving)), "moving image")
        stored, _ = read_grid(Path(str(moving)), "moving image", as_stored=True)
        found = read_one(transform, fixed_grid, stored, kind)
        shown = _shown(Path(str(fixed)))
        if beyond_percent(found, shown) == 100:
            raise ValueError(
                f"The transform ({transform}) takes nothing that the fixed image ({fixed}) shows into the moving image "
                f"({moving}): it is of other images, or these two are swapped."
            )
        sizes = [millions(grid.shape) for grid in (found.field_grid, moving_grid, fixed_grid)]
        stages.expect(dict(zip(STAGES, [SOLVING * sizes[0], SOLVING * sizes[1], 3 * WRITING * sizes[1], sizes[2]])))
        stages.begin(STAGES[0])
        back = inverted(found)
        stages.begin(STAGES[1])
        notes += fixed_notes + note_unreached([Inverse(found)], moving_grid)
        field_mm = compose([Inverse(found)], moving_grid, fixed_grid).displacement_field()
        stages.begin(STAGES[2])
        with in_place(folder / WRITTEN[1]) as voxels:  # both or none
            write_displacement(field_mm, moving_grid, voxels, str(moving))
            with in_place(folder / WRITTEN[0]) as lattice:
                write_transform(back, lattice)
        stages.begin(STAGES[3])
        residual = inverse_residual(found, back, shown)
    print_notes(notes)
    print(
        f"|p − T⁻¹(T(p))| of inverse.h5: mean {residual['mean_mm']:.3f}, 99 % within {residual['p99_mm']:.3f}, most "
        f"{residual['max_mm']:.3f} mm"
    )
    print(f"written: {folder / 'inverse.h5'}, {folder / 'inverse_displacement.nii.gz'}")
    return residual


def _shown(fixed: Path) -> torch.Tensor | None:
    """Find where an image shows something, (H, W, L); None where that is nowhere, or its voxels cannot be read."""
    try:
        image = read_file(fixed, "fixed image").as_tensor()[0]
    except ValueError:  # colours, say: its grid is known, and the residual counts everywhere
        return None
    shown = foreground(image.nan_to_num(0.0, 0.0, 0.0))
    return shown if shown.any() else None
