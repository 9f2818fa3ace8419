"""greedy through picsl_greedy."""

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import named

pytest.importorskip("picsl_greedy")
TOOL = named("picsl-greedy")


def run(command):
    """In a process of its own: beside another ITK it finds no reader of files."""
    code = "import sys, picsl_greedy; picsl_greedy.Greedy3D().execute(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, command], check=True, capture_output=True)


def by_greedy(pair, files, folder):
    def resample(axis):
        path = folder / f"of_{axis}.nii.gz"
        run(f"-rf {pair.fixed} -ri LINEAR -rb -1000000 -rm {pair.moving(axis)} {path} -r {' '.join(map(str, files))}")
        return path

    return resampled(pair, resample)


def test_greedy_reads_the_warp_and_the_matrix_beside_it(pair, tmp_path, cell):
    files = write_as(pair.transform, tmp_path / "warp.nii.gz", "greedy", pair.fixed)
    assert [file.name for file in files] == ["warp.nii.gz", "warp_affine.mat"]
    mm = distance(pair, by_greedy(pair, files, tmp_path), pair.targets(pair.transform))
    cell("read by them", TOOL, "`greedy` `.nii.gz` and `_affine.mat`", mm)


@pytest.mark.parametrize("form", ["ants", "itk"])
def test_greedy_reads_the_whole_transform_as_a_field(pair, tmp_path, cell, form):
    write_as(pair.transform, tmp_path / "T.nii.gz", form, pair.fixed)
    mm = distance(pair, by_greedy(pair, [tmp_path / "T.nii.gz"], tmp_path), pair.targets(pair.transform))
    cell("read by them", TOOL, f"`{form}` `.nii.gz`", mm)


@pytest.mark.parametrize(("form", "ending"), [("greedy", ".mat"), ("itk", ".tfm")])
def test_greedy_reads_a_linear_transform(pair, tmp_path, cell, form, ending):
    write_as(pair.linear, tmp_path / f"T{ending}", form, pair.fixed)
    mm = distance(pair, by_greedy(pair, [tmp_path / f"T{ending}"], tmp_path), pair.targets(pair.linear))
    cell("read by them", TOOL, f"`{form}` `{ending}`, linear", mm)


def test_greedy_takes_a_composite_for_another_transform(pair, tmp_path, differs):
    write_as(pair.transform, tmp_path / "T.h5", "itk", pair.fixed)
    mm = distance(pair, by_greedy(pair, [tmp_path / "T.h5"], tmp_path), pair.targets(pair.transform))
    assert mm > 5
    differs("read by them", TOOL, "`itk` `.h5`", "applied as another transform, without an error: give it another form")


def test_we_read_what_greedy_writes(pair, tmp_path, cell):
    image = sitk.ReadImage(pair.fixed)
    centre = pair.fixed_grid.centre_mm.tolist()
    angle = sitk.Euler3DTransform(centre, 0.06, -0.05, 0.04, (1, -1, 2))
    moving = str(tmp_path / "turned.nii.gz")
    sitk.WriteImage(sitk.Resample(image, sitk.ReadImage(pair.moving("x")), angle, sitk.sitkBSpline), moving)
    matrix, warp = tmp_path / "affine.mat", tmp_path / "warp.nii.gz"
    run(f"-i {pair.fixed} {moving} -a -dof 12 -m SSD -n 40x20 -ia-identity -o {matrix}")
    run(f"-i {pair.fixed} {moving} -it {matrix} -m SSD -n 20x10 -o {warp}")
    for file, name, kind in ((matrix, "matrix (`--kind greedy`)", "greedy"), (warp, "warp `.nii.gz`", None)):
        ours = pair.targets(pair.read(file, kind))
        assert np.abs(ours - pair.points()).max() > 0.2
        cell("read by us", TOOL, name, distance(pair, by_greedy(pair, [file], tmp_path), ours))
