"""plastimatch."""

import shutil
import subprocess

import numpy as np
import pytest
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import program

if not shutil.which("plastimatch"):
    pytest.skip("plastimatch is missing", allow_module_level=True)
TOOL = program("plastimatch")


def warp(pair, folder, file, flag="--xf"):
    def resample(axis):
        path = folder / f"of_{axis}.nrrd"
        command = ["plastimatch", "warp", "--input", pair.moving(axis), "--output-img", path, "--fixed", pair.fixed]
        command += [flag, file, "--output-type", "float", "--default-value", "-1000000", "--algorithm", "itk"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return path

    return resampled(pair, resample)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_plastimatch_reads_the_whole_transform_as_a_field(pair, tmp_path, cell, ending):
    path = tmp_path / f"T{ending}"
    write_as(pair.transform, path, "itk", pair.fixed)
    mm = distance(pair, warp(pair, tmp_path, path), pair.targets(pair.transform))
    cell("read by them", TOOL, f"`itk` `{ending}`", mm)


def test_plastimatch_reads_a_linear_transform(pair, tmp_path, cell):
    write_as(pair.linear, tmp_path / "T.tfm", "itk", pair.fixed)
    mm = distance(pair, warp(pair, tmp_path, tmp_path / "T.tfm"), pair.targets(pair.linear))
    cell("read by them", TOOL, "`itk` `.tfm`, linear", mm)


def test_plastimatch_refuses_a_composite(pair, tmp_path, differs):
    write_as(pair.transform, tmp_path / "T.h5", "itk", pair.fixed)
    with pytest.raises(AssertionError):
        warp(pair, tmp_path, tmp_path / "T.h5")
    differs("read by them", TOOL, "`itk` `.h5`", "refused, with exit code 1")


def test_we_read_plastimatchs_field(pair, tmp_path, cell):
    path = tmp_path / "vf.nrrd"
    centre = " ".join(f"{n:.3f}" for n in pair.fixed_grid.centre_mm)
    command = ["plastimatch", "synth-vf", "--fixed", pair.fixed, "--output", str(path), "--xf-gauss"]
    command += ["--gauss-center", centre, "--gauss-mag", "5 -4 3", "--gauss-std", "20 15 18"]
    subprocess.run(command, check=True, capture_output=True)
    ours = pair.targets(pair.read(path))
    assert np.abs(ours - pair.points()).max() > 3
    cell("read by us", TOOL, "vector field `.nrrd`", distance(pair, warp(pair, tmp_path, path), ours))
