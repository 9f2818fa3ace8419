"""Apply a transform that was found before to another image or a label map."""

from collections.abc import Sequence
from pathlib import Path

import torch
from bundle.commands.reading import Files, check_places, note_unreached, notes_of, print_notes, read_chain
from bundle.intensity import fill_value
from bundle.io.files import in_place
from bundle.io.images import check_ending, write_image
from bundle.io.labels import for_file
from bundle.options import check_fill
from bundle.progress import RESAMPLING, WRITING, Stages, millions
from bundle.spatial import LABEL_MODES, MODES, SpatialTransform, compose
from bundle.transforms import grid_of, read_grid, read_volume

__all__ = ["apply"]


def apply(
    transform: Files,
    moving: str,
    fixed: str,
    output: str,
    interpolation: str = "linear",
    fill: float | None = None,
    inverse: Sequence[bool] = (False,),
    kind: str | None = None,
) -> str:
    """Resample an image of the moving side onto the fixed image's grid.

    Args:
        transform: transform.h5 or displacement.nii.gz of a registration, or another transform, from fixed to moving,
            of ITK, ANTs, Slicer, elastix, greedy, FreeSurfer, FSL, AFNI, Learn2Reg, VoxelMorph or X5
            (docs/transforms.md). Several with commas between them, in the order in which the image passes them:
            nearest to the moving image first; in Python a list, too. The image is interpolated once.
        moving: image or label map to resample, of several volumes, too; it may have any grid in the moving image's
            space; but transforms of flirt, fnirt, learn2reg and voxelmorph are of the moving image's own grid, and
            are converted first (python -m bundle convert) for an image on another.
        fixed: image whose grid the result takes; what it shows does not matter, nor how many volumes it has.
        output: file to write (.nii.gz, .nii, .nrrd, .mha).
        interpolation: linear, or bspline (cubic); for labels label_gaussian (smooth borders) or nearest (keeps what is
            a voxel thin).
        fill: value where nothing of the image is; by default its lowest intensity but for outliers where that is below
            0 (the air of a CT), else 0. Labels are always 0 there.
        inverse: go by the inverse of the transform, from its fixed side to its moving side: moving is then the image
            of its fixed side. Of several transforms one value each, with commas between, or one for all.
        kind: whose transform it is, where its file leaves that open: greedy, flirt, learn2reg, voxelmorph, afni, fnirt
            (docs/transforms.md).

    Returns:
        Path of the file written.
    """
    check_ending(str(output))
    if interpolation not in MODES:
        raise ValueError(f"--interpolation is one of {', '.join(MODES)}, not '{interpolation}'.")
    is_label = interpolation in LABEL_MODES
    if fill and interpolation in LABEL_MODES:
        raise ValueError(
            f"--fill is for images: with --interpolation {interpolation} it is 0 beyond the map. Leave it out."
        )
    check_fill(fill, "--fill")
    check_places([output], transform, {"moving image": moving, "fixed image": fixed})
    with Stages("applying", "reading") as stages:
        image = read_volume(str(moving), "moving image", is_label, must_vary=False, volumes=True)
        grid, notes = read_grid(Path(str(fixed)), "fixed image")
        notes = notes_of(image, str(moving), "moving image") + notes
        stored, _ = read_grid(Path(str(fixed)), "fixed image", as_stored=True)
        chain = read_chain(transform, inverse, stored, grid_of(image), kind)
        notes += note_unreached(chain, grid)
        found = compose(chain, grid, grid_of(image))
        result = _resampled(found, image.as_tensor(), interpolation, fill, stages)
        stages.begin("writing")
        with in_place(str(output)) as partial:
            write_image(for_file(result) if is_label else result, grid, partial, str(fixed), str(moving))
    if result.min() == result.max() and image.min() < image.max():
        notes.append(
            "no voxel of the result shows anything of the image: is the transform of these images, and its order?"
        )
    print_notes(notes)
    print(f"written: {output}")
    return str(output)


def _resampled(
    transform: SpatialTransform, image: torch.Tensor, mode: str, fill: float | None, stages: Stages
) -> torch.Tensor:
    """Resample an image, (C, H, W, L), volume by volume: all of them at once would not fit into memory."""
    size, resampled = millions(transform.fixed_grid.shape), []
    names = [f"volume {n} of {len(image)}" for n in range(1, len(image) + 1)]
    stages.expect(dict.fromkeys(names, RESAMPLING * size) | {"writing": WRITING * size * len(image)})
    if mode not in LABEL_MODES and fill is None:
        fill = fill_value(image.float())
    for name, volume in zip(names, image[:, None]):
        stages.begin(name)
        if mode in LABEL_MODES:
            resampled.append(transform.resample(volume, mode=mode))
        else:
            resampled.append(transform.resample(volume.float(), mode=mode, fill=float(fill or 0)))
    return torch.cat(resampled)
