"""Convert a transform into the form of another tool."""

import shlex
from pathlib import Path

import numpy as np
from bundle.commands.reading import check_places, print_notes, read_one
from bundle.io.export import FORMS, form_of, is_straightened, places, write_as
from bundle.io.transforms import read_any
from bundle.progress import WRITING, Stages, millions
from bundle.spatial import SpatialTransform
from bundle.transforms import read_grid

__all__ = ["convert"]

HALVED = (
    "what the challenge makes of the half resolution of .npz is off by {:.3f} mm on average, 99 % within {:.3f}, most "
    "{:.3f} mm, at the fixed image's voxels; a .nii.gz holds the whole of the field"
)


def convert(
    transform: str, moving: str, fixed: str, output: str, to: str | None = None, kind: str | None = None
) -> str:
    """Write a transform in the form of another tool; what each form holds is in docs/transforms.md.

    Args:
        transform: a transform from fixed to moving, of any tool that apply reads.
        moving: moving image that the transform was found with; its grid alone counts.
        fixed: fixed image that the transform was found with; its grid alone counts, and fields are written on it.
        output: file to write.
        to: form of it: itk, ants, greedy, learn2reg, x5, fnirt, flirt, freesurfer or afni; by default the one that its
            ending is of, where that is one alone.
        kind: whose transform it is, where its file leaves that open.

    Returns:
        Path of the file written.
    """
    if to is not None and to not in FORMS:
        raise ValueError(f"--to is one of {', '.join(FORMS)}, not '{to}'.")
    form = to or form_of(output)
    check_places(places(str(output), form), transform, {"moving image": moving, "fixed image": fixed})
    with Stages("converting", "reading") as stages:
        moving_grid, notes = read_grid(Path(str(moving)), "moving image", as_stored=True)
        fixed_grid, _ = read_grid(Path(str(fixed)), "fixed image", as_stored=True)
        notes += read_grid(Path(str(fixed)), "fixed image", as_stored=not is_straightened(output, form))[1]
        stages.expect({"writing": 3 * WRITING * millions(fixed_grid.shape)})
        found = read_one(transform, fixed_grid, moving_grid, kind)
        stages.begin("writing")
        files = write_as(found, str(output), form, str(fixed))
        if files[0].name.endswith(".npz"):
            notes.append(_lost_between_samples(found, read_any(files[0], fixed_grid, moving_grid, form)))
    print_notes(notes)
    for file in files:
        print(f"written: {file}")
    if form == "greedy":
        line = ["greedy", "-d", "3", "-rf", str(fixed), "-rm", str(moving), "OUT.nii.gz", "-r", *map(str, files)]
        print(f"apply it by: {shlex.join(line)}")
    return str(output)


def _lost_between_samples(transform: SpatialTransform, again: SpatialTransform) -> str:
    """Say how far from T(p) the points are that a file at half the resolution gives, at the fixed image's voxels."""
    apart = (again.displacement_field() - transform.displacement_field()).norm(dim=0).numpy()
    return HALVED.format(apart.mean(), np.percentile(apart, 99), apart.max())
