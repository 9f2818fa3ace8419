"""Apply a transform that was found before to another image or a label map."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from bundle.intensity import fill_value
from bundle.io.images import check_ending, write_image
from bundle.io.labels import for_file
from bundle.io.transforms import read_any
from bundle.spatial import LABEL_MODES, MODES, Grid
from bundle.transforms import grid_of, read_grid, read_volume

__all__ = ["apply"]


def apply(
    transform: str,
    moving: str,
    fixed: str,
    output: str,
    interpolation: str = "linear",
    fill: float | None = None,
    kind: str | None = None,
) -> str:
    """Resample an image of the moving side onto the fixed image's grid.

    Args:
        transform: transform.h5 or displacement.nii.gz of a registration, or another transform, from fixed to moving,
            of ITK, ANTs, Slicer, elastix, greedy, FreeSurfer, FSL, AFNI, Learn2Reg, VoxelMorph or X5
            (docs/transforms.md).
        moving: image or label map to resample; it may have any grid in the moving image's space.
        fixed: image whose grid the result takes; what it shows does not matter, nor how many volumes it has.
        output: file to write (.nii.gz, .nii, .nrrd, .mha).
        interpolation: linear; for labels label_gaussian (smooth borders) or nearest (keeps what is a voxel thin).
        fill: value where nothing of the image is; by default the image's own minimum where that is below 0 (the air of
            a CT), else 0. Labels are 0 there.
        kind: whose transform it is, where its file leaves that open: greedy, flirt, learn2reg, voxelmorph, afni, fnirt
            (docs/transforms.md).

    Returns:
        Path of the file written.
    """
    check_ending(str(output))
    if interpolation not in MODES:
        raise ValueError(f"--interpolation is linear, label_gaussian or nearest, not '{interpolation}'.")
    is_label = interpolation in LABEL_MODES
    image = read_volume(str(moving), "moving image", is_label, must_vary=False)
    grid, notes = read_grid(Path(str(fixed)), "fixed image")
    notes = [f"moving image ({moving}): {note}" for note in image.meta.get("notes", "").split("\n") if note] + notes
    found = read_any(str(transform), grid, grid_of(image), kind)
    if is_label:
        result = for_file(found.resample(image.as_tensor(), mode=interpolation))
    else:
        values = image.as_tensor().float()
        result = found.resample(values, fill=fill_value(values) if fill is None else float(fill))
    _write(result, grid, Path(str(output)), str(fixed))
    for note in notes:
        print(f"note: {note}")
    print(f"written: {output}")
    return str(output)


def _write(volume: torch.Tensor, grid: Grid, path: Path, like: str) -> None:
    """Write an image beside its place and move it there when it is whole; .mhd has its voxels in a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".apply_", dir=path.parent))
    try:
        write_image(volume, grid, partial / path.name, like)
        for file in sorted(partial.iterdir(), key=lambda file: file.name == path.name):
            os.replace(file, path.with_name(file.name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
