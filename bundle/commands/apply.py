"""Apply a transform that was found before to another image or a label map."""

from pathlib import Path

from bundle.io.images import check_ending, write_image
from bundle.io.itk import read_transform
from bundle.spatial import LABEL_MODES
from bundle.transforms import grid_of, read_volume

__all__ = ["apply"]


def apply(transform: str, moving: str, fixed: str, output: str, interpolation: str = "linear") -> str:
    """Resample an image of the moving side onto the fixed image's grid.

    Args:
        transform: transform.h5 of a registration, or another linear or displacement field transform of ITK.
        moving: image or label map to resample; it may have any grid in the moving image's space.
        fixed: image whose grid the result takes.
        output: file to write (.nii.gz, .nii, .nrrd, .mha).
        interpolation: linear; for labels label_gaussian (smooth borders) or nearest (keeps what is a voxel thin).

    Returns:
        Path of the file written.
    """
    check_ending(str(output))
    is_label = interpolation in LABEL_MODES
    image = read_volume(str(moving), "moving image", is_label)
    target = read_volume(str(fixed), "fixed image", False)
    found = read_transform(transform, grid_of(target), grid_of(image))
    result = found.resample(image.as_tensor(), mode=interpolation)
    Path(str(output)).parent.mkdir(parents=True, exist_ok=True)
    write_image(result.int() if is_label else result.float(), found.fixed_grid, str(output))
    print(f"written: {output}")
    return str(output)
