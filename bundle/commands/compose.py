"""Make one transform of several."""

from collections.abc import Sequence
from pathlib import Path

from bundle.commands.reading import Files, check_places, note_unreached, print_notes, read_chain
from bundle.io.files import in_place
from bundle.io.images import write_displacement
from bundle.io.itk import write_transform
from bundle.progress import RESAMPLING, WRITING, Stages, millions
from bundle.spatial import compose as composed
from bundle.transforms import read_grid

__all__ = ["compose"]


def compose(
    transforms: Files, moving: str, fixed: str, output: str, inverse: Sequence[bool] = (False,), kind: str | None = None
) -> str:
    """Make one transform of several, in the order in which an image passes them: nearest to the moving image first.

    Two visits and an atlas, say: the transforms of visit 2 to visit 1 and of visit 1 to the atlas, in this order, give
    that of visit 2 to the atlas. ANTs lists them the other way round.

    Args:
        transforms: files of transforms, of any kind that apply takes, with commas between them; in Python a list, too.
        moving: the image that the first of them starts from.
        fixed: the image that the last of them ends at; several fields are sampled at its voxels.
        output: file to write: .h5 for a transform of ITK, .nii.gz for a displacement field on the fixed image's grid.
        inverse: one value for all, or one for each with commas between: true for those to be turned around.
        kind: whose transforms they are, where their files leave that open (docs/transforms.md).

    Returns:
        Path of the file written.
    """
    if not str(output).endswith((".h5", ".nii.gz")):
        raise ValueError(f"The output ({output}) must end in .h5 or .nii.gz.")
    check_places([output], transforms, {"moving image": moving, "fixed image": fixed})
    with Stages("composing", "reading") as stages:
        fixed_grid, fixed_notes = read_grid(Path(str(fixed)), "fixed image")
        moving_grid, moving_notes = read_grid(Path(str(moving)), "moving image", as_stored=True)
        stored, _ = read_grid(Path(str(fixed)), "fixed image", as_stored=True)
        chain, size = read_chain(transforms, inverse, stored, moving_grid, kind), millions(fixed_grid.shape)
        stages.expect({"composing": RESAMPLING * size * len(chain), "writing": 3 * WRITING * size})
        stages.begin("composing")
        unreached = note_unreached(chain, fixed_grid)
        whole = composed(chain, fixed_grid, moving_grid)
        stages.begin("writing")
        with in_place(str(output)) as partial:
            if partial.name.endswith(".h5"):
                write_transform(whole, partial)
            else:
                write_displacement(whole.displacement_field(), fixed_grid, partial, str(fixed))
    print_notes(moving_notes + fixed_notes + unreached)
    print(f"written: {output}")
    return str(output)
