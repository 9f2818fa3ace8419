import gzip
import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.headers import UnusableImageError, read_header
from bundle.io.images import read_image, write_displacement, write_image
from bundle.io.itk import grid_from_itk
from bundle.spatial import Grid, lps_from_ras
from scipy.spatial.transform import Rotation

SHAPE = (6, 9, 7)
VALUES = np.random.default_rng(0).random(SHAPE).astype(np.float32)


def affine(spacing=(2.0, 1.3, 3.1), degrees=(12, -7, 20), origin=(-31.0, 17.5, 44.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing
    matrix[:3, 3] = origin
    return matrix


SFORM = affine()
QFORM = affine(degrees=(-3, 9, 31), origin=(-20.0, 11.0, 40.0))


def nifti(path, sform=SFORM, qform=QFORM, codes=(1, 1), unit=2, pixdim=None, signs=None, kind=nibabel.Nifti1Image):
    """Write a NIfTI file with exactly these forms and codes (qform's first); ``signs`` are those of the voxel size."""
    header = kind(VALUES, None).header
    header.set_zooms(np.linalg.norm(qform[:3, :3], axis=0))
    header.set_qform(qform, 1)
    header.set_sform(sform, 1)
    header["qform_code"], header["sform_code"], header["xyzt_units"] = (*codes, unit)
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    image = kind(VALUES, None, header)
    if signs is not None:
        image.header["pixdim"][1:4] *= signs
    nibabel.save(image, path)
    return path


def as_itk_reads(path):
    return grid_from_itk(sitk.ReadImage(str(path)))


def as_nibabel_reads(path):
    return Grid.from_ras(SHAPE, nibabel.load(path).affine)


def skewed(cosine):
    return SFORM @ np.array([[1, cosine, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


ODD = {  # headers that ITK and nibabel read differently, and a word of what is said
    "forms disagree": ({"codes": (1, 2)}, "qform is taken"),
    "no forms": ({"codes": (0, 0)}, "no orientation"),
    "microns": ({"qform": SFORM, "unit": 3}, "microns"),
    "metres and seconds": ({"qform": SFORM, "unit": 1 + 8}, "metres"),
    "sform is zero": ({"sform": np.diag([0.0, 0, 0, 1]), "codes": (1, 2)}, "sform (code 2) is no position"),
    "sform is sheared": ({"sform": skewed(0.1), "codes": (1, 1)}, "qform is taken"),
    "voxel sizes disagree": ({"codes": (0, 2), "pixdim": (1, 1, 1)}, "voxel size of pixdim"),
    "voxel size of the sform alone": (
        {"codes": (0, 1), "pixdim": (2.0, 1.3, 6.2)},
        "the sform, with the voxel size of",
    ),
    "voxel size below 0": ({"codes": (1, 0), "signs": (-1, 1, 1)}, "negative along the first axis"),
    "two below 0": (
        {"qform": SFORM, "codes": (1, 1), "signs": (1, -1, -1)},
        "negative along the second and third axis",
    ),
    "below 0, sform": ({"codes": (0, 1), "qform": SFORM, "signs": (1, 1, -1)}, "negative along the third axis"),
    "below 0, forms disagree": ({"codes": (1, 2), "signs": (1, -1, 1)}, "qform is taken"),
    "below 0, no forms": ({"codes": (0, 0), "signs": (-1, 1, 1)}, "no orientation"),
    "below 0, microns": ({"qform": SFORM, "unit": 3, "signs": (-1, 1, 1)}, "negative along the first axis"),
    "no forms, microns": ({"codes": (0, 0), "unit": 3}, "no orientation"),
}


def test_a_series_is_written_on_a_grid_of_negative_voxel_size(tmp_path):
    path = nifti(tmp_path / "image.nii.gz", codes=(1, 0), signs=(-1, 1, 1))
    grid = read_header(path).grid
    write_image(torch.rand(2, *SHAPE), grid, tmp_path / "series.nii.gz", like=path)
    assert read_header(tmp_path / "series.nii.gz").grid.corner_distance_mm(grid) < 1e-4
    assert sitk.ReadImage(str(tmp_path / "series.nii.gz")).GetSpacing()[3] == 1


def test_nibabel_says_nothing_of_its_own_about_a_header(tmp_path, caplog):
    path = nifti(tmp_path / "image.nii.gz", signs=(-1, 1, 1))
    grid = read_header(path).grid
    write_image(read_image(path), grid, tmp_path / "warped.nii.gz", like=path)
    assert not caplog.records
    nibabel.load(path)
    assert "pixdim[1,2,3] should be positive" in caplog.text  # anyone else is still told


@pytest.mark.parametrize("codes", list(itertools.product(range(5), range(5))))
def test_whatever_the_codes_of_the_forms_the_voxels_are_where_itk_reads_them(tmp_path, codes):
    path = nifti(tmp_path / "image.nii.gz", codes=codes)
    header = read_header(path)
    assert header.grid.corner_distance_mm(as_itk_reads(path)) < 1e-4
    differs = as_itk_reads(path).corner_distance_mm(as_nibabel_reads(path)) > 1
    assert header.ambiguous == differs == bool(header.notes)


def test_there_are_codes_for_which_itk_and_nibabel_differ(tmp_path):
    for codes, differ in {(1, 2): True, (1, 4): True, (1, 1): False, (2, 1): False, (0, 0): True}.items():
        path = nifti(tmp_path / "image.nii.gz", codes=codes)
        assert (as_itk_reads(path).corner_distance_mm(as_nibabel_reads(path)) > 1) == differ


@pytest.mark.parametrize("name", ODD)
def test_an_odd_header_is_read_as_itk_reads_it_and_said(tmp_path, name):
    changes, words = ODD[name]
    path = nifti(tmp_path / "image.nii.gz", **changes)
    header = read_header(path)
    itk = as_itk_reads(path)
    assert header.grid.corner_distance_mm(itk) < 1e-4 * max(1, itk.spacing_mm.max())
    assert header.ambiguous
    assert len(header.notes) == 1
    assert words in header.notes[0]


@pytest.mark.parametrize("name", ODD)
def test_what_is_written_on_an_odd_grid_is_placed_like_the_image_by_itk_and_by_nibabel(tmp_path, name):
    path = nifti(tmp_path / "image.nii.gz", **ODD[name][0])
    grid = read_header(path).grid
    write_image(torch.rand(1, *SHAPE), grid, tmp_path / "warped.nii.gz", like=path)
    write_displacement(torch.rand(3, *SHAPE), grid, tmp_path / "field.nii.gz", like=path)
    tolerance = 1e-4 * max(1, grid.spacing_mm.max())
    for written in ("warped.nii.gz", "field.nii.gz"):
        assert as_itk_reads(tmp_path / written).corner_distance_mm(as_itk_reads(path)) < tolerance
        nibabel_affine = nibabel.load(tmp_path / written).affine
        assert np.allclose(nibabel_affine, nibabel.load(path).affine, atol=1e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".hdr"])
def test_an_ordinary_header_is_taken_as_both_read_it_without_a_word(tmp_path, ending):
    kind = nibabel.Nifti1Image if ending == ".nii.gz" else nibabel.Nifti1Pair
    path = nifti(tmp_path / f"image{ending}", qform=SFORM, kind=kind)
    header = read_header(path)
    assert header.notes == ()
    assert np.array_equal(header.grid.affine, lps_from_ras(nibabel.load(path).affine))
    assert header.grid.corner_distance_mm(as_itk_reads(path)) < 1e-4


def test_forms_apart_by_the_rounding_of_a_quaternion_are_one(tmp_path):
    qform = affine(origin=(-31.0, 17.5, 44.02))
    assert read_header(nifti(tmp_path / "image.nii.gz", qform=qform, codes=(1, 2))).notes == ()


def test_axes_off_the_right_angle_by_rounding_become_a_grid_that_itk_opens(tmp_path):
    path = nifti(tmp_path / "image.nii.gz", sform=skewed(0.0005), codes=(0, 2))
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    header = read_header(path)
    assert "straightened" in header.notes[0]
    assert header.grid.corner_distance_mm(as_nibabel_reads(path)) < 0.01
    write_image(torch.rand(1, *SHAPE), header.grid, tmp_path / "warped.nii.gz", like=path)
    assert as_itk_reads(tmp_path / "warped.nii.gz").corner_distance_mm(header.grid) < 1e-4


def test_a_real_shear_is_said_and_kept(tmp_path):
    path = nifti(tmp_path / "image.nii.gz", sform=skewed(0.1), codes=(0, 2))
    header = read_header(path)
    assert header.sheared
    assert "not at right angles" in header.notes[0]
    assert np.allclose(header.grid.affine, as_nibabel_reads(path).affine)


def test_a_nifti_2_file_is_read_by_the_same_units_though_simpleitk_refuses_it(tmp_path):
    path = nifti(tmp_path / "image.nii", qform=SFORM, unit=3, kind=nibabel.Nifti2Image)
    header = read_header(path)
    assert "microns" in header.notes[0]
    assert np.allclose(header.grid.spacing_mm, 0.001 * np.array([2.0, 1.3, 3.1]))


def test_a_nifti_2_file_whose_forms_disagree_says_which_is_taken(tmp_path):
    path = nifti(tmp_path / "image.nii", codes=(1, 2), kind=nibabel.Nifti2Image)
    header = read_header(path)
    assert "the sform is taken" in header.notes[0]
    assert np.allclose(header.grid.affine, lps_from_ras(SFORM))


def test_a_header_without_any_position_is_refused(tmp_path):
    path = nifti(tmp_path / "image.nii", sform=np.diag([0.0, 0, 0, 1]), codes=(0, 2))
    with pytest.raises(UnusableImageError, match="no position that can be used"):
        read_header(path)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_analyze_file_is_read_as_itk_reads_it_and_what_is_written_lies_on_it_in_both(tmp_path, sign):
    image = nibabel.AnalyzeImage(VALUES, None)
    image.header.set_zooms((2, 1.3, 3.1))
    image.header["pixdim"][1] *= sign
    nibabel.save(image, tmp_path / "old.img")
    header = read_header(tmp_path / "old.img")
    assert "Analyze" in header.notes[0]
    assert header.grid.corner_distance_mm(as_itk_reads(tmp_path / "old.img")) < 1e-4
    write_image(torch.rand(1, *SHAPE), header.grid, tmp_path / "warped.nii.gz", like=tmp_path / "old.img")
    assert as_itk_reads(tmp_path / "warped.nii.gz").corner_distance_mm(header.grid) < 1e-4
    written = nibabel.load(tmp_path / "warped.nii.gz").affine
    assert np.allclose(written, nibabel.load(tmp_path / "old.img").affine, atol=1e-5)


def test_an_mgz_without_a_valid_position_says_so(tmp_path):
    nibabel.save(nibabel.MGHImage(VALUES, SFORM), tmp_path / "good.mgz")
    good = read_header(tmp_path / "good.mgz")
    assert good.notes == ()
    assert np.allclose(good.grid.affine, lps_from_ras(SFORM), atol=1e-4)
    content = bytearray(gzip.decompress((tmp_path / "good.mgz").read_bytes()))
    assert content[28:30] == b"\0\1"
    content[28:30] = b"\0\0"
    (tmp_path / "bad.mgz").write_bytes(gzip.compress(bytes(content)))
    bad = read_header(tmp_path / "bad.mgz")
    assert "goodRASFlag" in bad.notes[0]
    assert np.allclose(bad.grid.affine, lps_from_ras(nibabel.load(tmp_path / "bad.mgz").affine))


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("scanner-xyz", (1, 1, 1)),
    ],
)
def test_an_nrrd_lies_where_itk_reads_it_in_every_space(tmp_path, space, signs):
    values = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    directions = " ".join(f"({','.join(map(str, column))})" for column in SFORM[:3, :3].T)
    header = (
        f"NRRD0005\ntype: float\ndimension: 3\nspace: {space}\nsizes: {' '.join(map(str, SHAPE))}\nencoding: raw\n"
        f"endian: little\nspace directions: {directions}\nspace origin: ({','.join(map(str, SFORM[:3, 3]))})\n\n"
    )
    path = tmp_path / "image.nrrd"
    path.write_bytes(header.encode() + values.tobytes(order="F"))
    image = read_image(path)
    assert np.array_equal(image[0].numpy(), values)
    expected = np.diag([*signs, 1.0]) @ SFORM
    assert np.allclose(lps_from_ras(image.affine), expected, atol=1e-5)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".hdr", ".mgz", ".nrrd", ".mha", ".mhd"])
def test_every_format_gives_the_same_values_at_the_same_place(tmp_path, ending):
    values = np.random.default_rng(2).integers(0, 1000, SHAPE).astype(np.int16)
    path = tmp_path / f"image{ending}"
    if ending == ".hdr":
        nibabel.save(nibabel.Nifti1Pair(values, SFORM), path)
    elif ending == ".mgz":
        nibabel.save(nibabel.MGHImage(values, SFORM), path)
    else:
        write_image(torch.from_numpy(values)[None], Grid.from_ras(SHAPE, SFORM), path)
    image = read_image(path)
    assert image.dtype == torch.float32
    assert np.array_equal(image[0].numpy(), values)
    assert np.allclose(image.affine, SFORM, atol=1e-4)
    assert read_image(path, exact=True).dtype == torch.int64


def test_labels_beyond_the_precision_of_float32_are_read_exactly(tmp_path):
    labels = np.array([0, 614454277, 312782574, 40000, 2**53 + 1], np.int64)
    values = labels[np.random.default_rng(3).integers(0, 5, SHAPE)]
    nibabel.save(nibabel.Nifti1Image(values, SFORM, dtype=np.int64), tmp_path / "labels.nii.gz")
    assert np.array_equal(read_image(tmp_path / "labels.nii.gz", exact=True)[0].numpy(), values)


def test_volumes_are_channels(tmp_path):
    values = np.stack([VALUES, -VALUES], -1)
    nibabel.save(nibabel.Nifti1Image(values, SFORM), tmp_path / "series.nii.gz")
    assert np.array_equal(read_image(tmp_path / "series.nii.gz").numpy(), np.moveaxis(values, -1, 0))
    series = sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(v.T)) for v in np.moveaxis(values, -1, 0)])
    sitk.WriteImage(series, str(tmp_path / "series.mha"))
    assert np.array_equal(read_image(tmp_path / "series.mha").numpy(), np.moveaxis(values, -1, 0))


def vectors_of_nifti(path, count, intent):
    image = nibabel.Nifti1Image(np.stack([VALUES] * count, -1)[:, :, :, None].astype(np.float32), SFORM)
    image.header["intent_code"] = intent
    nibabel.save(image, path)


def vectors_of_itk(path, count, dtype=np.float32):
    values = np.stack([VALUES.T] * count, -1).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(values), isVector=True), str(path))


COMPONENTS = {
    "colours.mha": lambda path: vectors_of_itk(path, 3, np.uint8),
    "four.nrrd": lambda path: vectors_of_itk(path, 4),
    "displacements.nii.gz": lambda path: vectors_of_nifti(path, 3, 1007),
    "tensors.nii": lambda path: vectors_of_nifti(path, 6, 1005),
    "unnamed.nii": lambda path: vectors_of_nifti(path, 3, 0),
    "plain.nii": lambda path: nibabel.save(named_displacements(), path),
}


def named_displacements():
    image = nibabel.Nifti1Image(np.stack([VALUES] * 3, -1).astype(np.float32), SFORM)
    image.header["intent_code"] = 1006
    return image


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_of_a_voxel_are_no_volumes_and_are_refused_in_words(tmp_path, name):
    COMPONENTS[name](tmp_path / name)
    with pytest.raises(UnusableImageError, match="of which each voxel has several components"):
        read_image(tmp_path / name)


def test_colours_are_refused_in_words(tmp_path):
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, SFORM), tmp_path / "colours.nii")
    with pytest.raises(UnusableImageError, match="colours"):
        read_image(tmp_path / "colours.nii")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti1Pair])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 2)])
def test_a_single_slice_of_vectors_lies_where_one_of_numbers_does(tmp_path, kind, codes):
    headers = []
    for shape in ((6, 9, 1), (6, 9, 1, 1, 3)):
        image = kind(np.zeros(shape, np.float32), None)
        image.header.set_zooms((2.0, 1.3, 3.1, 1, 1)[: len(shape)])
        image.header.set_qform(QFORM)
        image.header.set_sform(SFORM)
        image.header["qform_code"], image.header["sform_code"] = codes
        image.header["intent_code"] = 1007 if len(shape) > 3 else 0
        path = tmp_path / f"axes_{len(shape)}{'.nii' if kind is nibabel.Nifti1Image else '.img'}"
        nibabel.save(image, path)
        headers.append(read_header(path))
    np.testing.assert_allclose(headers[1].grid.affine, headers[0].grid.affine, atol=1e-6)
    assert headers[1].notes == headers[0].notes
