"""Apply a transform that was found before to another image or a label map."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from bundle.io.displacement import is_displacement, read_displacement
from bundle.io.images import check_ending, write_image
from bundle.io.itk import read_transform
from bundle.io.labels import for_file
from bundle.spatial import LABEL_MODES, MODES, Grid, SpatialTransform
from bundle.transforms import grid_of, read_grid, read_volume
from monai.transforms import LoadImage

__all__ = ["apply"]


def apply(transform: str, moving: str, fixed: str, output: str, interpolation: str = "linear") -> str:
    """Resample an image of the moving side onto the fixed image's grid.

    Args:
        transform: transform.h5 or displacement.nii.gz of a registration, or another transform of ITK, ANTs or Slicer:
            .h5, .hdf5, .tfm, .txt or .mat, or a displacement field as an image (.nii.gz with intent 1007 or 1006,
            .nrrd, .mha).
        moving: image or label map to resample; it may have any grid in the moving image's space.
        fixed: image whose grid the result takes; what it shows does not matter, nor how many volumes it has.
        output: file to write (.nii.gz, .nii, .nrrd, .mha).
        interpolation: linear; for labels label_gaussian (smooth borders) or nearest (keeps what is a voxel thin).

    Returns:
        Path of the file written.
    """
    check_ending(str(output))
    if interpolation not in {*MODES, *LABEL_MODES}:
        raise ValueError(f"--interpolation is linear, label_gaussian or nearest, not '{interpolation}'.")
    load = LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=True)
    is_label = interpolation in LABEL_MODES
    image = read_volume(str(moving), "moving image", is_label, load, must_vary=False)
    found = _read(str(transform), read_grid(str(fixed), "fixed image", load), grid_of(image))
    result = found.resample(image.as_tensor(), mode=interpolation)
    _write(for_file(result) if is_label else result.float(), found.fixed_grid, Path(str(output)))
    print(f"written: {output}")
    return str(output)


def _read(path: str, fixed_grid: Grid, moving_grid: Grid) -> SpatialTransform:
    """Read a transform file, or a displacement field as an image."""
    if not is_displacement(path):
        return read_transform(path, fixed_grid, moving_grid)
    return SpatialTransform(np.eye(4), *read_displacement(path), fixed_grid, moving_grid)


def _write(volume: torch.Tensor, grid: Grid, path: Path) -> None:
    """Write an image beside its place and move it there when it is whole; .mhd has its voxels in a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".apply_", dir=path.parent))
    try:
        write_image(volume, grid, partial / path.name)
        for file in sorted(partial.iterdir(), key=lambda file: file.name == path.name):
            os.replace(file, path.with_name(file.name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
