"""Image files: scalar images and displacement fields."""

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.itk import image_to_itk
from bundle.spatial import Grid, ras_from_lps

__all__ = ["check_ending", "write_displacement", "write_image"]

NIFTI = (".nii", ".nii.gz")
OF_ITK = (".nrrd", ".mha", ".mhd")
BLOCK = 4 << 20  # bytes that one thread compresses at a time
GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # RFC 1952: deflated, no time, no name, no system


def check_ending(path: str | os.PathLike[str]) -> None:
    """Refuse a path that ``write_image`` has no format for.

    Raises:
        ValueError: an ending that no writer knows.
    """
    if not Path(path).name.endswith(NIFTI + OF_ITK):
        raise ValueError(f"The output ({path}) must end in .nii.gz, .nii, .nrrd, .mha or .mhd.")


def write_image(volume: torch.Tensor, grid: Grid, path: str | os.PathLike[str]) -> None:
    """Write a scalar volume; the ending of the path names the format.

    NIfTI goes through nibabel, which keeps the affine as it is, in float32; NRRD and MHA go through ITK.

    Args:
        volume: (1, H, W, L).
        grid: where its voxels are.
        path: ends in ``.nii``, ``.nii.gz``, ``.nrrd``, ``.mha`` or ``.mhd``.

    Raises:
        ValueError: an ending that no writer knows.
    """
    check_ending(path)
    array = volume[0].cpu().numpy()
    if Path(path).name.endswith(NIFTI):
        image = nibabel.Nifti1Image(array, ras_from_lps(grid.affine), dtype=array.dtype)  # 64-bit labels: on purpose
        image.header.set_xyzt_units("mm")
        _save(image, path)
    else:
        sitk.WriteImage(image_to_itk(array, grid), os.fspath(path), useCompression=True)


def write_displacement(field_mm: torch.Tensor, grid: Grid, path: str | os.PathLike[str]) -> None:
    """Write a displacement field as ITK, ANTs and Slicer read it: 5-D NIfTI, intent 1007, components in LPS, mm.

    Args:
        field_mm: (3, H, W, L), mm, LPS, fixed to moving.
        grid: where its voxels are.
        path: ends in ``.nii.gz`` or ``.nii``.
    """
    vectors = field_mm.movedim(0, -1).cpu().numpy().astype(np.float32)
    image = nibabel.Nifti1Image(vectors[:, :, :, None, :], ras_from_lps(grid.affine))
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    _save(image, path)


def _save(image: nibabel.Nifti1Image, path: str | os.PathLike[str]) -> None:
    """Write NIfTI; its compression, which takes longer than all else of a file, on all cores."""
    if not Path(path).name.endswith(".gz"):
        nibabel.save(image, path)
        return
    content = memoryview(image.to_bytes())
    starts = range(0, len(content), BLOCK)
    with ThreadPoolExecutor() as pool, open(path, "wb") as file:
        file.write(GZIP_HEADER)
        file.writelines(pool.map(lambda start: _deflate(content[start : start + BLOCK], start == starts[-1]), starts))
        file.write(struct.pack("<II", zlib.crc32(content), len(content) % 2**32))


def _deflate(block: memoryview, last: bool) -> bytes:
    """Compress a part of a deflate stream; all but the last end in an empty block, on a whole byte, as pigz's do.

    Interpolated voxels hold runs of zeros but no other repetitions, and looking for them would take as long again.
    """
    compressor = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS, strategy=zlib.Z_RLE)
    return compressor.compress(block) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
