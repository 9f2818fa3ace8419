"""Write a transform in the form of another tool; each form's convention is stated in its module.

| form | files | what they hold |
|---|---|---|
| itk | ``.h5``, ``.hdf5``, ``.tfm``, ``.txt`` | the alignment and the field as a composite, as ``register`` writes it |
| itk | ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` | T(p) − p on the fixed image's grid, mm, LPS |
| ants | ``.nii.gz``, ``.nii``; ``.mat`` | the same field (``1Warp.nii.gz``); a linear transform |
| greedy | ``.nii.gz``, ``.nii``; ``.mat`` | the field on its own grid and ``…_affine.mat`` beside it; a linear one |
| learn2reg | ``.nii.gz``, ``.nii``, ``.npz`` | T in voxels; in ``.npz`` at half the resolution |
| x5 | ``.x5`` | T as one node |
| fnirt | ``.nii.gz``, ``.nii`` | T as relative displacements of FSL's points |
| flirt | ``.mat`` | a linear transform |
| freesurfer | ``.nii.gz``, ``.nii``; ``.lta`` | T in mm, RAS; a linear transform |
| afni | ``.nii.gz``, ``.nii``; ``.aff12.1D`` | T in mm, LPS; a linear transform |
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk  # noqa: N813
from bundle.io.files import in_place, utf8
from bundle.io.formats import afni, freesurfer, fsl, greedy, learn2reg, x5
from bundle.io.images import write_displacement
from bundle.io.itk import image_to_itk, itk_files, linear_to_itk, write_transform
from bundle.spatial import SpatialTransform

__all__ = ["FORMS", "form_of", "is_straightened", "places", "write_as"]

Writer = Callable[[SpatialTransform, Path, str], object]

NIFTI = (".nii.gz", ".nii")
COMPOSITE = (".h5", ".hdf5")
TEXT = (".tfm", ".txt")
OF_ITK = (".nrrd", ".mha")


@dataclass(frozen=True)
class Form:
    """One tool's form of a transform.

    Args:
        whole: endings of files of any transform, and what writes them.
        linear: ending of a linear transform alone, and what writes it.
        in_space: those among them of files that hold points of the fixed image's grid in mm: of a straight one where
            the image's is sheared, which few toolkits open. The others count the image's own voxels, or have no grid.
    """

    whole: dict[tuple[str, ...], Writer]
    linear: dict[tuple[str, ...], Writer]
    in_space: tuple[str, ...] = ()

    def endings(self) -> list[str]:
        """List every ending that the form has."""
        return [ending for writers in (self.whole, self.linear) for endings in writers for ending in endings]


def write_as(transform: SpatialTransform, path: str | os.PathLike[str], form: str, like: str) -> list[Path]:
    """Write T in the form of a tool, whole or not at all.

    Args:
        transform: T, its grids those of the images as their files have them, sheared or not.
        path: of the file; its ending is one of the form's.
        form: one of ``FORMS``.
        like: path of the fixed image, whose header a NIfTI file takes over where toolkits read that differently.

    Returns:
        Paths of the files written, the one asked for first.

    Raises:
        ValueError: an ending that the form has not, a deformable transform as a matrix, or one that it can't hold.
    """
    path = Path(path)
    writer = _writer(form, path)
    is_for_linear = not any(path.name.endswith(endings) for endings in FORMS[form].whole)
    if transform.ddf is not None and is_for_linear:
        endings = [ending for group in FORMS[form].whole for ending in group]
        advice = f"write {' or '.join(endings)}" if endings else "choose another form"
        raise ValueError(f"The transform is deformable, and {path.name} would hold a matrix alone: {advice}.")
    if is_straightened(path, form):
        transform = replace(transform, fixed_grid=transform.fixed_grid.orthogonal())
    with in_place(path) as partial:
        writer(transform, partial, like)
        names = sorted((file.name for file in partial.parent.iterdir()), key=lambda name: name != path.name)
    return [path.with_name(name) for name in names]


def is_straightened(path: str | os.PathLike[str], form: str) -> bool:
    """Tell whether ``write_as`` lays a file on a straight grid where the fixed image's is sheared."""
    return Path(path).name.endswith(FORMS[form].in_space)


def places(path: str | os.PathLike[str], form: str) -> list[Path]:
    """List the files that ``write_as`` may write."""
    path = Path(path)
    with_matrix = form == "greedy" and path.name.endswith(NIFTI)
    return [path, greedy.matrix_beside(path)] if with_matrix else [path]


def form_of(path: str | os.PathLike[str]) -> str:
    """Name the form that a file's ending is of.

    Raises:
        ValueError: several forms have that ending, or none.
    """
    name = Path(path).name
    forms = [form for form, of in FORMS.items() if name.endswith(tuple(of.endings()))]
    if len(forms) == 1:
        return forms[0]
    if forms:
        raise ValueError(f"The output ({path}) may be of several forms: say which by --to {' or '.join(forms)}.")
    known = sorted({ending for of in FORMS.values() for ending in of.endings()})
    raise ValueError(f"The output ({path}) must end in {', '.join(known[:-1])} or {known[-1]}.")


def _writer(form: str, path: Path) -> Writer:
    if form not in FORMS:
        raise ValueError(f"--to is one of {', '.join(FORMS)}, not '{form}'.")
    for endings, writer in {**FORMS[form].whole, **FORMS[form].linear}.items():
        if path.name.endswith(endings):
            return writer
    raise ValueError(f"The output ({path}) must end in {' or '.join(FORMS[form].endings())}, as --to {form} has it.")


def _text(transform: SpatialTransform, path: Path, like: str) -> None:
    """Write a composite, or a linear transform as itself: greedy takes a composite of one for the identity."""
    if transform.ddf is not None:
        write_transform(transform, path)
        return
    with itk_files():
        sitk.WriteTransform(linear_to_itk(transform.alignment), utf8(path))


def _displacements(transform: SpatialTransform, path: Path, like: str) -> None:
    write_displacement(transform.displacement_field(), transform.fixed_grid, path, like)


def _vectors(transform: SpatialTransform, path: Path, like: str) -> None:
    field = transform.displacement_field().movedim(0, -1).numpy()
    with itk_files():
        sitk.WriteImage(image_to_itk(field, transform.fixed_grid, is_vector=True), utf8(path), True)


def _without_like(write: Callable[[SpatialTransform, Path], object]) -> Writer:
    return lambda transform, path, like: write(transform, path)


FORMS = {
    "itk": Form(
        {COMPOSITE: _without_like(write_transform), TEXT: _text, NIFTI: _displacements, OF_ITK: _vectors},
        {},
        (*NIFTI, *OF_ITK),
    ),
    "ants": Form({NIFTI: _displacements}, {(".mat",): _text}, NIFTI),
    "greedy": Form({NIFTI: greedy.write_warp}, {(".mat",): _without_like(greedy.write_matrix)}, NIFTI),
    "learn2reg": Form({(*NIFTI, ".npz"): learn2reg.write_learn2reg}, {}),
    "x5": Form({(".x5",): _without_like(x5.write_x5)}, {}, (".x5",)),
    "fnirt": Form({NIFTI: fsl.write_fnirt}, {}),
    "flirt": Form({}, {(".mat",): _without_like(fsl.write_flirt)}),
    "freesurfer": Form({NIFTI: freesurfer.write_warp}, {(".lta",): _without_like(freesurfer.write_lta)}, NIFTI),
    "afni": Form({NIFTI: afni.write_warp}, {(".aff12.1D",): _without_like(afni.write_matrix)}),
}
"""The forms that are written."""
