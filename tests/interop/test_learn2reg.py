"""The arithmetic by which Learn2Reg evaluates a field, with SciPy: nothing is to be installed of it."""

import nibabel
import numpy as np
import pytest
from bundle.io.export import write_as
from scipy.ndimage import map_coordinates, zoom
from tests.interop.pair import distance, indices, resampled
from tests.interop.table import named

TOOL = f"Learn2Reg's evaluation ({named('scipy')})"


def by_challenge(pair, displacement):
    places = np.moveaxis(indices(pair.fixed_grid.shape), -1, 0) + displacement

    def resample(axis):
        image = np.asarray(nibabel.load(pair.moving(axis)).dataobj).astype(float)
        return map_coordinates(image, places, order=1)

    return resampled(pair, resample)


def test_learn2reg_reads_the_whole_transform(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "disp_0001_0002.nii.gz", "learn2reg", pair.fixed)
    displacement = np.moveaxis(nibabel.load(tmp_path / "disp_0001_0002.nii.gz").get_fdata(), -1, 0)
    mm = distance(pair, by_challenge(pair, displacement), pair.targets(pair.transform))
    cell("read by them", TOOL, "`learn2reg` `.nii.gz`", mm)


def test_learn2reg_enlarges_the_field_of_half_the_resolution(alike_pair, tmp_path, cell):
    pair = alike_pair
    write_as(pair.transform, tmp_path / "disp_0001_0002.npz", "learn2reg", pair.fixed)
    half = np.load(tmp_path / "disp_0001_0002.npz")["arr_0"].astype("float32")
    displacement = np.array([zoom(half[i], 2, order=2) for i in range(3)])
    mm = distance(pair, by_challenge(pair, displacement), pair.targets(pair.transform), rim=4)
    remark = "of this smooth field; half the resolution: a spline of order 2 between the samples"
    cell("read by them", TOOL, "`learn2reg` `.npz`", mm, 0.1, remark)


@pytest.mark.parametrize("size", ["half", "whole"])
def test_we_read_fields_as_the_challenge_does(alike_pair, tmp_path, cell, size):
    pair = alike_pair
    write_as(pair.transform, tmp_path / "T.nii.gz", "learn2reg", pair.fixed)
    field = np.moveaxis(nibabel.load(tmp_path / "T.nii.gz").get_fdata(), -1, 0)
    if size == "half":
        half = np.array([zoom(field[i], 0.5, order=2) for i in range(3)]).astype(np.float16)
        np.savez(tmp_path / "disp_0001_0002.npz", half)
        field = np.array([zoom(half[i].astype("float32"), 2, order=2) for i in range(3)])
        path, remark = tmp_path / "disp_0001_0002.npz", "enlarged by the same spline"
    else:
        path, remark = tmp_path / "disp_0001_0002.nii.gz", ""
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(field, 0, -1), np.eye(4)), path)
    ours = pair.targets(pair.read(path))
    mm = distance(pair, by_challenge(pair, field), ours)
    cell("read by us", TOOL, f"`{path.name}`", mm, remark=remark)
