"""A transform of any kind, applied to images and label maps of any kind, beside SimpleITK."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.commands.apply import apply
from bundle.io.images import write_displacement, write_image
from bundle.io.itk import grid_from_itk, write_transform
from bundle.spatial import SpatialTransform, ras_from_lps
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import oblique

FIXED = oblique((16, 21, 14), (-1.9, 1.4, 2.3), (11, -7, 16), (12, -21, 33))
MOVING = oblique((40, 34, 36), (1.3, -2.1, 1.7), (-8, 12, 5), (12, -21, 33))  # wider: no border comes into view
FIELD = oblique((20, 22, 18), (2.4, 2.5, 2.6), (0, 0, 0), (12, -21, 33))
IDS = np.array([0, 614454277, 40000, 312782574, 2**53 + 1, 2**62 + 3])


def smooth(shape, seed, sigma=3.0):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return noise / np.abs(noise).max()


def found():
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (6, -4, 9), degrees=True).as_matrix()
    matrix[:3, 3] = FIXED.centre_mm - matrix[:3, :3] @ FIXED.centre_mm + (2.0, -1.5, 3.0)
    ddf = torch.from_numpy(1.5 * np.stack([smooth(FIELD.shape, seed) for seed in range(3)])).float()
    return SpatialTransform(matrix, ddf, FIELD, FIXED, MOVING)


@pytest.fixture
def folder(tmp_path):
    """Files of a registration, with a moving image and label map."""
    transform = found()
    write_transform(transform, tmp_path / "transform.h5")
    write_displacement(transform.displacement_field(), FIXED, tmp_path / "displacement.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "displacement.nii.gz")), str(tmp_path / "1Warp.nii.gz"))
    write_image(torch.from_numpy(smooth(MOVING.shape, 9)).float()[None], MOVING, tmp_path / "moving.nii.gz")
    write_image(torch.rand(1, *FIXED.shape), FIXED, tmp_path / "fixed.nii.gz")
    index = np.argmax([smooth(MOVING.shape, s) for s in range(6)], 0)
    write_image(torch.from_numpy(index)[None].byte(), MOVING, tmp_path / "index.nrrd")
    labels = torch.from_numpy(IDS[index])[None]
    for ending in (".nii.gz", ".nrrd", ".mha"):
        write_image(labels, MOVING, tmp_path / f"label{ending}")
    return tmp_path


def run(folder, **options):
    paths = {"transform": "transform.h5", "moving": "moving.nii.gz", "fixed": "fixed.nii.gz", "output": "out.nii.gz"}
    paths = {key: str(folder / name) for key, name in (paths | options).items() if key != "interpolation"}
    apply(**paths, interpolation=options.get("interpolation", "linear"))
    return sitk.ReadImage(paths["output"])


def array(image):
    return sitk.GetArrayFromImage(image)


def by_itk(folder, transform="transform.h5", moving="moving.nii.gz", nearest=False):
    reference = sitk.ReadImage(str(folder / "fixed.nii.gz"))
    how = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    if transform.endswith(".nii.gz"):
        field = sitk.ReadImage(str(folder / transform), sitk.sitkVectorFloat64)
        loaded = sitk.DisplacementFieldTransform(field)
    else:
        loaded = sitk.ReadTransform(str(folder / transform))
    return sitk.Resample(sitk.ReadImage(str(folder / moving)), reference, loaded, how, 0.0)


def volumes(values, folder, name):
    nibabel.save(nibabel.Nifti1Image(values, ras_from_lps(FIXED.affine)), folder / name)
    return name


REFERENCES = {
    "blank": lambda d: volumes(np.zeros(FIXED.shape, np.uint8), d, "r.nii.gz"),
    "NaN": lambda d: volumes(np.full(FIXED.shape, np.nan, np.float32), d, "r.nii.gz"),
    "4-D": lambda d: volumes(np.zeros((*FIXED.shape, 5), np.float32), d, "r.nii.gz"),
    "five axes": lambda d: "displacement.nii.gz",
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_of_the_fixed_image_the_grid_alone_counts(folder, kind):
    result = run(folder, fixed=REFERENCES[kind](folder))
    assert grid_from_itk(result).is_close(FIXED)
    expected = array(by_itk(folder))
    assert np.abs(expected).max() > 0.3
    assert np.abs(array(result) - expected).max() < 1e-5


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_reference_of_several_volumes_in_itks_formats_has_the_grid_of_each(folder, ending):
    image = sitk.ReadImage(str(folder / "fixed.nii.gz"))
    sitk.WriteImage(sitk.JoinSeries([image, image, image]), str(folder / f"series{ending}"))
    sitk.WriteImage(sitk.Compose(image, image), str(folder / f"vectors{ending}"))
    for name in ("series", "vectors"):
        assert grid_from_itk(run(folder, fixed=f"{name}{ending}")).is_close(FIXED)


def test_a_plane_is_no_reference(folder):
    volumes(np.zeros((9, 8), np.float32), folder, "plane.nii.gz")
    with pytest.raises(ValueError, match=r"The fixed image \(.*plane\.nii\.gz\) is no volume but has 2 axes"):
        run(folder, fixed="plane.nii.gz")


@pytest.mark.parametrize("transform", ["displacement.nii.gz", "1Warp.nii.gz"])
def test_a_displacement_field_as_an_image_warps_as_itk_warps(folder, transform):
    result, expected = array(run(folder, transform=transform)), array(by_itk(folder, transform))
    assert np.abs(result - expected).max() < 1e-4
    assert np.abs(result - array(by_itk(folder))).max() < 1e-3  # and as the transform file


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_labels_of_any_size_arrive_exactly_where_itk_has_them(folder, ending):
    result = array(run(folder, moving=f"label{ending}", output=f"out{ending}", interpolation="nearest"))
    expected = IDS[
        array(by_itk(folder, moving="index.nrrd", nearest=True))
    ]  # ITK resamples in float64: 2^53 + 1 is lost
    assert result.dtype == np.int64
    assert set(np.unique(result)) <= set(IDS)
    assert len(np.unique(result)) == len(IDS)
    assert (result == expected).mean() > 0.999  # a point halfway between two voxels may fall to either


def test_voted_labels_of_any_size_are_labels_of_the_map(folder):
    result = array(run(folder, moving="label.nii.gz", interpolation="label_gaussian"))
    assert set(np.unique(result)) <= set(IDS)
    assert len(np.unique(result)) == len(IDS)


def test_a_constant_image_shows_the_field_of_view(folder):
    write_image(torch.ones(1, *MOVING.shape), MOVING, folder / "ones.nii.gz")
    assert (array(run(folder, moving="ones.nii.gz")) > 0.999).all()


@pytest.mark.parametrize("ending", [".nii.gz", ".mhd"])
def test_a_failure_while_writing_leaves_what_was_there(folder, ending, monkeypatch):
    before = run(folder, output=f"out{ending}")
    names = sorted(p.name for p in folder.iterdir())

    def half(volume, grid, path, *rest):
        path.write_bytes(b"half")
        raise OSError("The disk is full.")

    monkeypatch.setattr("bundle.commands.apply.write_image", half)
    with pytest.raises(OSError, match="disk is full"):
        run(folder, output=f"out{ending}", moving="label.nii.gz", interpolation="nearest")
    assert sorted(p.name for p in folder.iterdir()) == names
    assert np.array_equal(array(sitk.ReadImage(str(folder / f"out{ending}"))), array(before))


def test_an_unknown_interpolation_is_refused(folder):
    with pytest.raises(
        ValueError, match="--interpolation is one of linear, bspline, nearest, label_gaussian, not 'cubic'"
    ):
        run(folder, interpolation="cubic")
