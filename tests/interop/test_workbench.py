"""Connectome Workbench, which reads FSL's and ITK's fields; FSL itself is not free to install here."""

import shutil
import subprocess

import numpy as np
import pytest
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import program

if not shutil.which("wb_command"):
    pytest.skip("wb_command is missing", allow_module_level=True)
TOOL = program("connectome-workbench")


def run(*arguments):
    subprocess.run(["wb_command", *map(str, arguments)], check=True, capture_output=True)


def by_workbench(pair, folder, *transform):
    def resample(axis):
        path = folder / f"of_{axis}.nii.gz"
        run("-volume-resample", pair.moving(axis), pair.fixed, "TRILINEAR", path, *transform)
        return path

    return resampled(pair, resample)


def test_workbench_reads_fnirts_field(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "T.nii.gz", "fnirt", pair.fixed)
    answer = by_workbench(pair, tmp_path, "-warp", tmp_path / "T.nii.gz", "-fnirt", pair.moving("x"))
    cell("read by them", TOOL, "`fnirt` `.nii.gz`", distance(pair, answer, pair.targets(pair.transform)))


def test_workbench_reads_flirts_matrix(pair, tmp_path, cell):
    write_as(pair.linear, tmp_path / "T.mat", "flirt", pair.fixed)
    answer = by_workbench(pair, tmp_path, "-affine", tmp_path / "T.mat", "-flirt", pair.moving("x"), pair.fixed)
    cell("read by them", TOOL, "`flirt` `.mat`, linear", distance(pair, answer, pair.targets(pair.linear)))


def test_workbench_converts_itks_field(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "T.nii.gz", "ants", pair.fixed)
    run("-convert-warpfield", "-from-itk", tmp_path / "T.nii.gz", "-to-world", tmp_path / "world.nii.gz")
    answer = by_workbench(pair, tmp_path, "-warp", tmp_path / "world.nii.gz")
    remark = "by `-convert-warpfield -from-itk`"
    cell("read by them", TOOL, "`ants` `.nii.gz`", distance(pair, answer, pair.targets(pair.transform)), remark=remark)


def test_we_read_workbenchs_files_for_fsl(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "itk.nii.gz", "ants", pair.fixed)
    run(
        "-convert-warpfield",
        "-from-itk",
        tmp_path / "itk.nii.gz",
        "-to-fnirt",
        tmp_path / "fnirt.nii.gz",
        pair.moving("x"),
    )
    ours = pair.targets(pair.read(tmp_path / "fnirt.nii.gz", "fnirt"))
    mm = distance(pair, ours, pair.targets(pair.transform))
    cell("read by us", TOOL, "`-to-fnirt` `.nii.gz` (`--kind fnirt`)", mm)
    signs = np.diag([-1, -1, 1, 1])
    np.savetxt(tmp_path / "world.mat", np.linalg.inv(signs @ pair.linear.alignment @ signs))  # from moving to fixed
    run(
        "-convert-affine",
        "-from-world",
        tmp_path / "world.mat",
        "-to-flirt",
        tmp_path / "flirt.mat",
        pair.moving("x"),
        pair.fixed,
    )
    ours = pair.targets(pair.read(tmp_path / "flirt.mat", "flirt"))
    cell("read by us", TOOL, "`-to-flirt` `.mat` (`--kind flirt`)", distance(pair, ours, pair.targets(pair.linear)))
