"""nitransforms: ITK's, AFNI's, FSL's, FreeSurfer's and its own X5, read and written."""

import nibabel
import numpy as np
import pytest
from bundle.io.export import write_as
from tests.interop.pair import FIXED, MOVING, distance, make, resampled
from tests.interop.table import named

nitransforms = pytest.importorskip("nitransforms")
from nitransforms.linear import Affine  # noqa: E402
from nitransforms.manip import TransformChain  # noqa: E402
from nitransforms.nonlinear import DenseFieldTransform  # noqa: E402
from nitransforms.resampling import apply  # noqa: E402

TOOL = named("nitransforms")


def by_nitransforms(pair, transform):
    def resample(axis):
        image = nibabel.load(pair.moving(axis))
        return np.asarray(apply(transform, image, pair.fixed, order=1, cval=-1e6, output_dtype="float32").dataobj)

    return resampled(pair, resample)


def lps_to_ras(points):
    return points * (-1, -1, 1)


FIELDS = {"itk": ".nii.gz", "ants": ".nii.gz", "x5": ".x5"}


@pytest.mark.parametrize("form", FIELDS)
def test_nitransforms_reads_the_whole_transform_as_a_field(pair, tmp_path, cell, form):
    path = tmp_path / f"T{FIELDS[form]}"
    write_as(pair.transform, path, form, pair.fixed)
    transform = DenseFieldTransform.from_filename(path, fmt="X5" if form == "x5" else "itk")
    mm = distance(pair, by_nitransforms(pair, transform), pair.targets(pair.transform))
    cell("read by them", TOOL, f"`{form}` `{FIELDS[form]}`", mm)


def test_nitransforms_reads_a_composite_on_the_fixed_images_grid(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "T.nii.gz", "itk", pair.fixed)
    whole = pair.read(tmp_path / "T.nii.gz")  # a field at the fixed voxels: between them it is a spline to nitransforms
    write_as(whole, tmp_path / "T.h5", "itk", pair.fixed)
    chain = TransformChain.from_filename(tmp_path / "T.h5", fmt="itk")
    mm = distance(pair, by_nitransforms(pair, chain), pair.targets(pair.transform))
    cell("read by them", TOOL, "`itk` `.h5` of a field at the fixed voxels", mm)


LINEAR = {"itk": ".tfm", "x5": ".x5", "flirt": ".mat", "freesurfer": ".lta"}
FORMATS = {"itk": "itk", "x5": "X5", "flirt": "fsl", "freesurfer": "fs", "afni": "afni"}


@pytest.mark.parametrize("form", LINEAR)
def test_nitransforms_reads_a_linear_transform(pair, tmp_path, cell, form):
    path = tmp_path / f"T{LINEAR[form]}"
    write_as(pair.linear, path, form, pair.fixed)
    transform = Affine.from_filename(path, fmt=FORMATS[form], reference=pair.fixed, moving=pair.moving("x"))
    mm = distance(pair, by_nitransforms(pair, transform), pair.targets(pair.linear))
    cell("read by them", TOOL, f"`{form}` `{LINEAR[form]}`, linear", mm)


@pytest.mark.parametrize("order", ["fixed to moving", "swapped"])
def test_flirts_matrix_holds_for_both_signs_of_the_determinants(tmp_path, order):
    pair = make(tmp_path, *((FIXED, MOVING) if order == "fixed to moving" else (MOVING, FIXED)))
    write_as(pair.linear, tmp_path / "T.mat", "flirt", pair.fixed)
    matrix = Affine.from_filename(tmp_path / "T.mat", fmt="fsl", reference=pair.fixed, moving=pair.moving("x")).matrix
    points = pair.points().reshape(-1, 3)
    expected = points + pair.linear.displacement_at(points).numpy()
    assert np.abs(lps_to_ras(lps_to_ras(points) @ matrix[:3, :3].T + matrix[:3, 3]) - expected).max() < 1e-3


@pytest.mark.parametrize("form", FORMATS)
def test_we_read_the_matrices_that_nitransforms_writes(pair, plumb_pair, tmp_path, cell, form):
    pair = plumb_pair if form == "afni" else pair
    path = tmp_path / f"T{(LINEAR | {'afni': '.aff12.1D'})[form]}"
    signs = np.diag([-1, -1, 1, 1])
    transform = Affine(signs @ pair.linear.alignment @ signs, reference=pair.fixed)
    transform.to_filename(path, fmt=FORMATS[form], moving=pair.moving("x"))
    ours = pair.targets(pair.read(path, "flirt" if form == "flirt" else None))
    mm = distance(pair, by_nitransforms(pair, transform), ours)
    kind = " (`--kind flirt`)" if form == "flirt" else ", images along the axes" if form == "afni" else ""
    cell("read by us", TOOL, f"`{FORMATS[form]}` `{path.name[1:]}`{kind}", mm)


def test_we_read_a_chain_of_x5_in_its_order(pair, tmp_path, cell):
    write_as(pair.transform.without_alignment(), tmp_path / "field.nii.gz", "itk", pair.fixed)
    field = DenseFieldTransform.from_filename(tmp_path / "field.nii.gz", fmt="itk")
    signs = np.diag([-1, -1, 1, 1])
    chain = TransformChain([field, Affine(signs @ pair.transform.alignment @ signs, reference=pair.fixed)])
    chain.to_filename(tmp_path / "T.x5")
    ours = pair.targets(pair.read(tmp_path / "T.x5"))
    cell("read by us", TOOL, "`X5` `.x5`, a chain", distance(pair, by_nitransforms(pair, chain), ours))


def test_afnis_forms_hold_along_the_axes_of_space(plumb_pair, tmp_path, cell):
    pair = plumb_pair
    write_as(pair.transform, tmp_path / "T.nii.gz", "afni", pair.fixed)
    field = DenseFieldTransform.from_filename(tmp_path / "T.nii.gz", fmt="afni")
    mm = distance(pair, by_nitransforms(pair, field), pair.targets(pair.transform))
    cell("read by them", TOOL, "`afni` `.nii.gz`, images along the axes", mm)
    write_as(pair.linear, tmp_path / "T.aff12.1D", "afni", pair.fixed)
    matrix = Affine.from_filename(tmp_path / "T.aff12.1D", fmt="afni", reference=pair.fixed, moving=pair.moving("x"))
    mm = distance(pair, by_nitransforms(pair, matrix), pair.targets(pair.linear))
    cell("read by them", TOOL, "`afni` `.aff12.1D`, linear, images along the axes", mm)


def test_nitransforms_takes_fnirts_field_wrongly(pair, tmp_path, differs):
    write_as(pair.transform, tmp_path / "T.nii.gz", "fnirt", pair.fixed)
    field = DenseFieldTransform.from_filename(tmp_path / "T.nii.gz", fmt="fsl")
    mm = distance(pair, by_nitransforms(pair, field), pair.targets(pair.transform))
    assert mm > 5
    differs("read by them", TOOL, "`fnirt` `.nii.gz`", "taken as mm along R, A, S with x turned round: centimetres off")
