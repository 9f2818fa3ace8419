"""ITK through SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import named

TOOL = named("SimpleITK")


def by_itk(pair, transform):
    def resample(axis):
        image = sitk.ReadImage(pair.moving(axis))
        found = sitk.Resample(image, sitk.ReadImage(pair.fixed), transform, sitk.sitkLinear, np.nan)
        return sitk.GetArrayFromImage(found).transpose(2, 1, 0)

    return resampled(pair, resample)


@pytest.mark.parametrize(
    ("form", "ending"), [("itk", ".h5"), ("itk", ".tfm"), ("itk", ".nii.gz"), ("itk", ".nrrd"), ("ants", ".nii.gz")]
)
def test_itk_reads_the_whole_transform(pair, tmp_path, cell, form, ending):
    path = str(tmp_path / f"T{ending}")
    write_as(pair.transform, path, form, pair.fixed)
    if ending in (".h5", ".tfm"):
        transform = sitk.ReadTransform(path)
    else:
        transform = sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64))
    mm = distance(pair, by_itk(pair, transform), pair.targets(pair.transform))
    cell("read by them", TOOL, f"`{form}` `{ending}`", mm)


@pytest.mark.parametrize(("form", "ending"), [("itk", ".h5"), ("itk", ".tfm"), ("ants", ".mat")])
def test_itk_reads_a_linear_transform(pair, tmp_path, cell, form, ending):
    path = str(tmp_path / f"T{ending}")
    write_as(pair.linear, path, form, pair.fixed)
    mm = distance(pair, by_itk(pair, sitk.ReadTransform(path)), pair.targets(pair.linear))
    cell("read by them", TOOL, f"`{form}` `{ending}`, linear", mm)
