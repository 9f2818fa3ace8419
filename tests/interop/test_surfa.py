"""FreeSurfer's own Python package, surfa."""

import numpy as np
import pytest
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import named

surfa = pytest.importorskip("surfa")
TOOL = named("surfa")


def by_surfa(pair, transform):
    return resampled(pair, lambda axis: transform(surfa.load_volume(pair.moving(axis)), fill=-1e6).data)


def test_surfa_reads_the_whole_transform(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "T.nii.gz", "freesurfer", pair.fixed)
    warp = surfa.load_warp(str(tmp_path / "T.nii.gz"))
    mm = distance(pair, by_surfa(pair, warp), pair.targets(pair.transform))
    cell("read by them", TOOL, "`freesurfer` `.nii.gz`", mm)


def test_surfa_takes_itks_field_for_voxels(pair, tmp_path, differs):
    write_as(pair.transform, tmp_path / "T.nii.gz", "ants", pair.fixed)
    mm = distance(pair, by_surfa(pair, surfa.load_warp(str(tmp_path / "T.nii.gz"))), pair.targets(pair.transform))
    assert mm > 5
    differs("read by them", TOOL, "`ants` `.nii.gz`", "taken for voxels, without a word: give it `freesurfer`")


def test_surfa_reads_a_linear_transform(pair, tmp_path, cell):
    write_as(pair.linear, tmp_path / "T.lta", "freesurfer", pair.fixed)
    affine = surfa.load_affine(str(tmp_path / "T.lta"))
    mm = distance(pair, by_surfa(pair, affine), pair.targets(pair.linear))
    cell("read by them", TOOL, "`freesurfer` `.lta`, linear", mm)


@pytest.mark.parametrize("space", ["world", "vox"])
def test_we_read_surfas_matrices(pair, tmp_path, cell, space):
    fixed, moving = surfa.load_volume(pair.fixed), surfa.load_volume(pair.moving("x"))
    signs = np.diag([-1, -1, 1, 1])
    matrix = np.linalg.inv(signs @ pair.linear.alignment @ signs)
    affine = surfa.Affine(matrix, source=moving, target=fixed, space="world").convert(space=space)
    affine.save(str(tmp_path / "T.lta"))
    ours = pair.targets(pair.read(tmp_path / "T.lta"))
    cell("read by us", TOOL, f"`.lta` ({space})", distance(pair, by_surfa(pair, affine), ours))


@pytest.mark.parametrize(
    ("ending", "form"),
    [(".nii.gz", "disp_crs"), (".mgz", "disp_crs"), (".mgz", "abs_crs"), (".mgz", "disp_ras"), (".mgz", "abs_ras")],
)
def test_we_read_surfas_warps(pair, tmp_path, cell, ending, form):
    fixed, moving = surfa.load_volume(pair.fixed), surfa.load_volume(pair.moving("x"))
    shifts = (pair.targets(pair.transform) - pair.points()) * (-1, -1, 1)
    form = getattr(surfa.Warp.Format, name := form)
    warp = surfa.Warp(shifts, source=moving, target=fixed, format=surfa.Warp.Format.disp_ras).convert(form)
    warp.save(str(tmp_path / f"T{ending}"))
    ours = pair.targets(pair.read(tmp_path / f"T{ending}"))
    mm = distance(pair, by_surfa(pair, warp), ours)
    cell("read by us", TOOL, f"`{ending}`" + f" ({name})" * (ending == ".mgz"), mm)
