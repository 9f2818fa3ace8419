"""One image of a data set, brought onto the grid of them all."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from bundle.affine import align
from bundle.intensity import clip_outliers, fill_value, percentile_range, scale_between
from bundle.io.files import in_place
from bundle.io.labels import for_file
from bundle.similarity import is_misled, similarity
from bundle.spatial import Grid, Matrix, SpatialTransform, antialias, ras_from_lps

__all__ = ["bring_onto_grid"]

Volumes = dict[str, Any]


def bring_onto_grid(
    moving: Volumes, target: Volumes, grid: Grid, affine: str, mask: bool, paths: dict[str, Path], name: str
) -> None:
    """Align one image to the reference, resample it and its label, write both.

    Where the alignment leaves the image less alike to the reference than its header does, that counts, and is said.

    Args:
        moving: ``image`` and ``label``, (1, H, W, L), and their ``grid``.
        target: the same of the reference.
        grid: to write.
        affine: one of ``ALIGNMENTS``.
        mask: blank everything outside the label.
        paths: of the files to write, by key.
        name: of the image, for messages.

    Raises:
        ValueError: the alignment fails, or nothing of the image comes onto the grid.
    """
    matrix = _alignment(moving, target, grid, affine, name)
    transform = SpatialTransform(matrix, None, grid, grid, moving["grid"])
    smooth = antialias(moving["image"], moving["grid"], grid)
    fill = fill_value(moving["image"])
    result = {"image": transform.resample(smooth, fill=fill)[0]}
    if result["image"].max() == result["image"].min():
        raise ValueError(
            f"{name} shows nothing where the grid of the reference lies, by --affine {affine}: check its header, give "
            "--affine center, rigid or affine, or leave the image out."
        )
    if "label" in moving:
        result["label"] = transform.resample(moving["label"], mode="nearest")[0]
    if mask:
        result["image"][result["label"] == 0] = fill
    arrays = {key: (for_file(v) if key == "label" else v.float()).numpy() for key, v in result.items()}
    for key, path in paths.items():
        image = nibabel.Nifti1Image(arrays[key], ras_from_lps(grid.affine), dtype=arrays[key].dtype)
        with in_place(path) as partial:
            nibabel.save(image, partial)


def _alignment(moving: Volumes, target: Volumes, grid: Grid, affine: str, name: str) -> Matrix:
    """Align an image to the reference; the identity where what was found leaves them less alike than their headers."""
    images = [clip_outliers(volumes["image"]) for volumes in (moving, target)]
    try:
        matrix = align(images[0][0].numpy(), moving["grid"], images[1][0].numpy(), target["grid"], affine)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if affine not in ("rigid", "affine"):  # which search for nothing
        return matrix
    by_header = np.eye(4)
    fixed = _on_grid(images[1], target["grid"], grid, by_header)
    before, after = ((_on_grid(images[0], moving["grid"], grid, how), fixed) for how in (by_header, matrix))
    if similarity(*after) >= similarity(*before) or not is_misled(before, after):
        return matrix
    print(f"note: {name} is prepared by its header, since the {affine} alignment left it less alike to the reference")
    return by_header


def _on_grid(image: torch.Tensor, own: Grid, grid: Grid, matrix: Matrix) -> torch.Tensor:
    """Sample an image, (1, H, W, L), on the common grid through an alignment, scaled to [0, 1]."""
    sampled = SpatialTransform(matrix, None, grid, grid, own).resample(antialias(image, own, grid))
    return scale_between(sampled, *percentile_range(sampled))
