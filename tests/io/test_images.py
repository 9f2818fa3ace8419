import gzip
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io import images
from bundle.io.images import write_displacement, write_image
from bundle.io.itk import grid_from_itk
from bundle.spatial import ras_from_lps
from tests.spatial.oblique import oblique


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("spacing_mm", [(1.4, 0.9, 2.6), (-1.4, 0.9, 2.6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int32])
def test_an_image_keeps_its_values_dtype_and_place_in_every_format(tmp_path, ending, spacing_mm, dtype):
    grid = oblique(spacing_mm=spacing_mm)
    volume = (100 * torch.rand(1, *grid.shape)).to(dtype)
    write_image(volume, grid, tmp_path / f"image{ending}")
    image = sitk.ReadImage(str(tmp_path / f"image{ending}"))
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    assert np.array_equal(values, volume[0].numpy())
    assert values.dtype == volume.numpy().dtype
    assert np.allclose(grid_from_itk(image).affine, grid.affine, atol=2e-5)


def test_a_nifti_keeps_the_affine_to_the_precision_of_its_header(tmp_path):
    grid = oblique()
    write_image(torch.rand(1, *grid.shape), grid, tmp_path / "image.nii.gz")
    image = nibabel.load(tmp_path / "image.nii.gz")
    assert np.array_equal(image.affine.astype(np.float32), ras_from_lps(grid.affine).astype(np.float32))
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("name", ["image.png", "image", "image.nii.zip", "nrrd"])
def test_an_unknown_ending_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.nii\.gz"):
        write_image(torch.ones(1, 9, 12, 7), oblique(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_field_is_a_five_dimensional_nifti_of_vectors_in_mm(tmp_path):
    grid, field = oblique(), torch.randn(3, 9, 12, 7)
    write_displacement(field, grid, tmp_path / "displacement.nii.gz")
    image = nibabel.load(tmp_path / "displacement.nii.gz")
    assert image.shape == (9, 12, 7, 1, 3)
    assert int(image.header["intent_code"]) == 1007
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj)[:, :, :, 0], field.movedim(0, -1).numpy())  # LPS as they are
    assert np.allclose(image.affine, ras_from_lps(grid.affine), atol=1e-5)


def test_compressed_files_are_compressed(tmp_path):
    grid = oblique()
    for ending in (".nii", ".nii.gz"):
        write_image(torch.zeros(1, *grid.shape), grid, tmp_path / f"image{ending}")
    plain, compressed = ((tmp_path / f"image{ending}").read_bytes() for ending in (".nii", ".nii.gz"))
    assert gzip.decompress(compressed) == plain
    assert len(plain) == 352 + 4 * 9 * 12 * 7
    assert len(compressed) < len(plain) / 5


def test_the_blocks_of_a_compressed_file_are_one_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "BLOCK", 1000)
    grid, volume = oblique(), torch.rand(1, 9, 12, 7)
    for ending in (".nii", ".nii.gz"):
        write_image(volume, grid, tmp_path / f"image{ending}")
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert stream.decompress((tmp_path / "image.nii.gz").read_bytes()) == (tmp_path / "image.nii").read_bytes()
    assert stream.eof
    assert stream.unused_data == b""
