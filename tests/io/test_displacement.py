import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.displacement import is_displacement, read_displacement
from bundle.io.images import write_displacement
from bundle.io.itk import image_to_itk
from bundle.spatial import Grid, SpatialTransform, ras_from_lps
from scipy.spatial.transform import Rotation

AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", (14, -9, 21), degrees=True).as_matrix() * (-1.4, 0.9, 2.6)
AFFINE[:3, 3] = (-31.25, 17.5, 120.0)
GRID = Grid((9, 12, 7), AFFINE)
FIELD_MM = np.random.default_rng(3).normal(0, 4, (3, *GRID.shape)).astype(np.float32)  # LPS
RAS = np.array([-1, -1, 1])[:, None, None, None]


def save(field, folder, intent, name="", affine=None, dtype=None):
    image = nibabel.Nifti1Image(field, ras_from_lps(GRID.affine) if affine is None else affine)
    image.set_data_dtype(dtype or field.dtype)  # of whole numbers nibabel writes a scale, over which ITK crashes
    image.header["intent_code"], image.header["intent_name"] = intent, name
    path = folder / "field.nii.gz"
    nibabel.save(image, path)
    return path


def five_axes(field):
    return np.moveaxis(field, 0, -1)[:, :, :, None].astype(np.float32)


def four_axes(field):
    return np.moveaxis(field, 0, -1).astype(np.float32)


def ours(folder):
    write_displacement(torch.from_numpy(FIELD_MM), GRID, folder / "displacement.nii.gz")
    return folder / "displacement.nii.gz"


def of_itk(ending):
    def write(folder):
        field = image_to_itk(np.moveaxis(FIELD_MM, 0, -1).copy(), GRID, is_vector=True)
        sitk.WriteImage(field, str(folder / f"1Warp{ending}"))
        return folder / f"1Warp{ending}"

    return write


FILES = {
    "ours": ours,
    **{f"ITK's {ending}": of_itk(ending) for ending in (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")},
    "1006, five axes": lambda folder: save(five_axes(FIELD_MM * RAS), folder, 1006),
    "1007, five axes": lambda folder: save(five_axes(FIELD_MM), folder, 1007),
    "1006, four axes": lambda folder: save(four_axes(FIELD_MM * RAS), folder, 1006),
    "1007, four axes": lambda folder: save(four_axes(FIELD_MM), folder, 1007),
    "1007, whole numbers with a scale": lambda folder: save(five_axes(FIELD_MM), folder, 1007, dtype=np.int16),
    "1006, whole numbers with a scale": lambda folder: save(five_axes(FIELD_MM * RAS), folder, 1006, dtype=np.int16),
    "1007, float64": lambda folder: save(five_axes(FIELD_MM).astype(np.float64), folder, 1007),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_displacement_field_is_read_in_the_place_and_along_the_axes_that_its_file_says(tmp_path, kind):
    path = FILES[kind](tmp_path)
    assert is_displacement(path)
    ddf, grid = read_displacement(path)
    assert grid.is_close(GRID)
    field_mm = SpatialTransform(np.eye(4), ddf, grid, grid, grid).field_mm
    assert np.abs(field_mm.numpy() - FIELD_MM).max() < (1e-3 if "whole numbers" in kind else 1e-5)


@pytest.mark.parametrize("intent", [1006, 1007])
def test_itk_moves_points_by_the_same_file_as_we_do(tmp_path, intent):
    path = save(five_axes(FIELD_MM), tmp_path, intent)
    by_itk = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    ddf, grid = read_displacement(path)
    ours = SpatialTransform(np.eye(4), ddf, grid, grid, grid)
    points = GRID.to_points(np.random.default_rng(0).uniform(0, np.array(GRID.shape) - 1, (200, 3)))
    moved = np.array([by_itk.TransformPoint(p.tolist()) for p in points])
    assert np.abs(points + ours.displacement_at(points).numpy() - moved).max() < 1e-4  # its affine is float32


def with_nan(folder):
    """In a NIfTI file ITK reads NaN as 0."""
    field = np.moveaxis(FIELD_MM, 0, -1).copy()
    field[2, 3, 4, 1] = np.nan
    sitk.WriteImage(image_to_itk(field, GRID, is_vector=True), str(folder / "nan.nrrd"))
    return folder / "nan.nrrd"


def colours(folder):
    sitk.WriteImage(sitk.Image((9, 12, 7), sitk.sitkVectorUInt8, 3), str(folder / "rgb.nrrd"))
    return folder / "rgb.nrrd"


def four_axes_mha(folder):
    sitk.WriteImage(sitk.Image((9, 12, 7, 3), sitk.sitkFloat32), str(folder / "planes.mha"))
    return folder / "planes.mha"


def text(folder):
    (folder / "text.nii.gz").write_text("no image")
    return folder / "text.nii.gz"


BAD = {
    "an image": (lambda d: save(FIELD_MM[0], d, 0), "of 9×12×7 numbers, not of three components"),
    "two components": (lambda d: save(five_axes(FIELD_MM[:2]), d, 1007), "of 9×12×7×1×2 numbers"),
    "a series": (lambda d: save(np.stack([four_axes(FIELD_MM)] * 2, 3), d, 0), "of 9×12×7×2×3 numbers"),
    "no intent, five axes": (lambda d: save(five_axes(FIELD_MM), d, 0), "intent code is 0, .* give it 1007"),
    "no intent, four axes": (lambda d: save(four_axes(FIELD_MM), d, 0), "intent code is 0, .* give it 1007"),
    "FSL's": (lambda d: save(four_axes(FIELD_MM), d, 2006), "intent code is 2006"),
    "NiftyReg's": (lambda d: save(five_axes(FIELD_MM), d, 1007, "NREG_TRANS"), "the positions that NiftyReg writes"),
    "SPM's": (lambda d: save(five_axes(FIELD_MM), d, 1007, "Mapping"), "the positions that SPM writes"),
    "NaN": (with_nan, "holds NaN or infinite displacements"),
    "whole numbers": (lambda d: save(five_axes(FIELD_MM).astype(np.int16), d, 1007), "of type int16, as colours are"),
    "colours": (colours, "of type vector of 8-bit unsigned integer, as colours are"),
    "a fourth axis": (four_axes_mha, "planes of a fourth axis"),
    "text": (text, "cannot be read by nibabel as an image of displacements"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_displacement_field_is_refused_in_one_sentence_with_its_path(tmp_path, kind):
    make, words = BAD[kind]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        read_displacement(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.nii\.gz\) does not exist"):
        read_displacement(tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize("name", ["transform.h5", "a.tfm", "0GenericAffine.mat", "image"])
def test_a_transform_file_is_no_image(name):
    assert not is_displacement(name)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axes", [four_axes, five_axes])
def test_a_field_that_is_cut_off_is_refused(tmp_path, ending, axes):
    nibabel.load(save(axes(FIELD_MM), tmp_path, 1007)).to_filename(tmp_path / f"whole{ending}")
    content = (tmp_path / f"whole{ending}").read_bytes()
    (tmp_path / f"cut{ending}").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_displacement(tmp_path / f"cut{ending}")


def test_a_compressed_field_that_does_not_have_its_checksum_is_refused(tmp_path):
    path = save(five_axes(FIELD_MM), tmp_path, 1007)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_displacement(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("axes", [four_axes, five_axes])
def test_a_displacement_that_is_no_number_is_refused_whatever_itk_makes_of_it(tmp_path, axes, value):
    field = FIELD_MM.copy()
    field[1, 3, 4, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite displacements"):
        read_displacement(save(axes(field), tmp_path, 1007))


@pytest.mark.parametrize("intent", [1006, 1007])
@pytest.mark.parametrize("axes", [four_axes, five_axes])
def test_a_field_on_a_single_slice_lies_where_the_slice_does(tmp_path, axes, intent):
    slice_grid, field = GRID.plane(2, 3), FIELD_MM[..., 3:4]
    written = axes(field * RAS if intent == 1006 else field)
    path = save(written, tmp_path, intent, affine=ras_from_lps(slice_grid.affine))
    ddf, grid = read_displacement(path)
    assert grid.is_close(slice_grid)
    found = SpatialTransform(np.eye(4), ddf, grid, grid, grid)
    assert np.abs(found.field_mm.numpy() - field).max() < 1e-5
