"""3D Slicer's arithmetic in Python, slicerio; Slicer itself was not run."""

import pytest
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import named

slicerio = pytest.importorskip("slicerio")
TOOL = named("slicerio")


def by_slicerio(pair, path):
    field, fixed = slicerio.read_volume(str(path)), slicerio.read_volume(str(pair.folder / "fixed.nrrd"))

    def resample(axis):
        image = slicerio.read_volume(pair.moving(axis, ".nrrd"))
        return slicerio.apply_displacement_field(image, field, fixed, outside_value=-1e6)["voxels"]

    return resampled(pair, resample)


def test_slicerio_reads_the_whole_transform_as_a_field(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "T.nrrd", "itk", pair.fixed)
    mm = distance(pair, by_slicerio(pair, tmp_path / "T.nrrd"), pair.targets(pair.transform))
    cell("read by them", TOOL, "`itk` `.nrrd`", mm)


def test_we_read_slicerios_field(pair, tmp_path, cell):
    write_as(pair.transform, tmp_path / "T.nrrd", "itk", pair.fixed)
    slicerio.write_volume(str(tmp_path / "again.nrrd"), slicerio.read_volume(str(tmp_path / "T.nrrd")))
    ours = pair.targets(pair.read(tmp_path / "again.nrrd"))
    mm = distance(pair, by_slicerio(pair, tmp_path / "again.nrrd"), ours)
    cell("read by us", TOOL, "displacement field `.nrrd`", mm)
