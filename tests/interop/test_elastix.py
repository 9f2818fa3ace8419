"""elastix and transformix through itk-elastix."""

import numpy as np
import pytest
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import named

itk = pytest.importorskip("itk")
pytest.importorskip("itk.itkElastixRegistrationMethodPython")
TOOL = named("itk-elastix")
COMMON = {
    "MaximumNumberOfIterations": "20",
    "NumberOfResolutions": "1",
    "NumberOfSpatialSamples": "2000",
    "RandomSeed": "1",
    "FinalBSplineInterpolationOrder": "1",
    "DefaultPixelValue": "-1000000",
}


def registered(pair, folder, kinds, **more):
    """Register the fixed image to a turned copy of it; the chain of kinds leaves its files in the folder."""
    fixed = itk.imread(pair.fixed, itk.F)
    moving = itk.imread(pair.moving("x"), itk.F)
    turned = itk.resample_image_filter(
        fixed, transform=turn(pair), use_reference_image=True, reference_image=moving, default_pixel_value=0
    )
    parameters = itk.ParameterObject.New()
    for kind in kinds:
        chosen = parameters.GetDefaultParameterMap(kind, 1, 18.0)
        for key, value in (COMMON | more).items():
            chosen[key] = (value,)
        parameters.AddParameterMap(chosen)
    _, found = itk.elastix_registration_method(
        fixed, turned, parameter_object=parameters, output_directory=str(folder), log_to_console=False
    )
    return found


def turn(pair):
    transform = itk.Euler3DTransform[itk.D].New()
    transform.SetCenter(pair.fixed_grid.centre_mm.tolist())
    transform.SetRotation(0.06, -0.05, 0.04)
    transform.SetTranslation((1.0, -1.0, 2.0))
    return transform


def by_transformix(pair, found):
    for i in range(found.GetNumberOfParameterMaps()):
        found.SetParameter(i, "ResultImagePixelType", "float")

    def resample(axis):
        image = itk.transformix_filter(itk.imread(pair.moving(axis), itk.F), found, log_to_console=False)
        return itk.array_from_image(image).transpose(2, 1, 0)

    return resampled(pair, resample)


@pytest.mark.parametrize("kinds", [("translation",), ("rigid",), ("affine",), ("rigid", "bspline")])
def test_we_read_elastixs_parameter_files(pair, tmp_path, cell, kinds):
    found = registered(pair, tmp_path, kinds)
    file = tmp_path / f"TransformParameters.{len(kinds) - 1}.txt"
    ours = pair.targets(pair.read(file))
    assert np.abs(ours - pair.points()).max() > 0.5
    mm = distance(pair, by_transformix(pair, found), ours)
    cell("read by us", TOOL, f"`TransformParameters.{len(kinds) - 1}.txt` ({', '.join(kinds)})", mm)


@pytest.mark.parametrize("ending", ["h5", "tfm"])
def test_we_read_elastixs_composites_and_the_files_that_name_them(pair, tmp_path, cell, ending):
    more = {"WriteITKCompositeTransform": "true", "ITKTransformOutputFileNameExtension": ending}
    found = registered(pair, tmp_path, ("rigid", "bspline"), **more)
    answer = by_transformix(pair, found)
    for name in (f"TransformParameters.1-Composite.{ending}", "TransformParameters.1.txt"):
        mm = distance(pair, answer, pair.targets(pair.read(tmp_path / name)))
        cell("read by us", TOOL, f"`{name}`" + f" (names `.{ending}` files)" * name.endswith("txt"), mm)


def test_we_read_transformixs_field(pair, tmp_path, cell):
    found = registered(pair, tmp_path, ("rigid", "bspline"))
    image = itk.imread(pair.moving("x"), itk.F)
    transformix = itk.TransformixFilter.New(image, transform_parameter_object=found)
    transformix.SetComputeDeformationField(True)
    transformix.SetLogToConsole(False)
    transformix.SetOutputDirectory(str(tmp_path))
    transformix.UpdateLargestPossibleRegion()
    itk.imwrite(transformix.GetOutputDeformationField(), str(tmp_path / "deformationField.nii.gz"))
    ours = pair.targets(pair.read(tmp_path / "deformationField.nii.gz"))
    mm = distance(pair, by_transformix(pair, found), ours)
    cell("read by us", TOOL, "`deformationField.nii.gz`", mm)


def by_parameter_file(pair, **transform):
    """Let transformix resample by a transform that is in a file of its own."""
    image = itk.imread(pair.fixed, itk.F)
    direction = itk.array_from_matrix(image.GetDirection()).T.ravel()
    grid = {"Size": itk.size(image), "Index": (0, 0, 0), "Spacing": itk.spacing(image), "Origin": itk.origin(image)}
    grid |= {"Direction": direction}
    words = transform | {
        "NumberOfParameters": "0",
        "FixedImageDimension": "3",
        "MovingImageDimension": "3",
        "FixedInternalImagePixelType": "float",
        "MovingInternalImagePixelType": "float",
        "HowToCombineTransforms": "Compose",
        "InitialTransformParameterFileName": "NoInitialTransform",
        "UseDirectionCosines": "true",
        "ResampleInterpolator": "FinalLinearInterpolator",
        "Resampler": "DefaultResampler",
        "DefaultPixelValue": "-1000000",
        "ResultImageFormat": "nii",
    }
    parameters = itk.ParameterObject.New()
    whole = {key: (value,) for key, value in words.items()} | {key: tuple(map(str, n)) for key, n in grid.items()}
    parameters.AddParameterMap(whole)
    return by_transformix(pair, parameters)


def test_transformix_reads_a_linear_transform_that_a_parameter_file_names(pair, tmp_path, cell):
    write_as(pair.linear, tmp_path / "T.tfm", "itk", pair.fixed)
    answer = by_parameter_file(pair, Transform="File", TransformFileName=str(tmp_path / "T.tfm"))
    mm = distance(pair, answer, pair.targets(pair.linear))
    cell("read by them", TOOL, "`itk` `.tfm`, linear", mm, remark='as `(Transform "File")` of a parameter file')


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_transformix_reads_the_field_that_a_parameter_file_names(pair, tmp_path, cell, ending):
    write_as(pair.transform, tmp_path / f"T{ending}", "itk", pair.fixed)
    options = {"DeformationFieldInterpolationOrder": "1", "DeformationFieldFileName": str(tmp_path / f"T{ending}")}
    answer = by_parameter_file(pair, Transform="DeformationFieldTransform", **options)
    mm = distance(pair, answer, pair.targets(pair.transform))
    cell("read by them", TOOL, f"`itk` `{ending}`", mm, remark='as `(Transform "DeformationFieldTransform")`')


def test_transformix_refuses_a_composite(pair, tmp_path, differs):
    write_as(pair.transform, tmp_path / "T.h5", "itk", pair.fixed)
    with pytest.raises(RuntimeError, match="Internal transformix error"):
        by_parameter_file(pair, Transform="File", TransformFileName=str(tmp_path / "T.h5"))
    differs("read by them", TOOL, "`itk` `.h5`", "refused: elastix has no `CompositeTransform`; give it the field")
