"""Whole numbers of any size, and label maps in another order of the same axes."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.images import write_image
from bundle.io.labels import compact, for_file, in_order_of, whole_numbers
from bundle.spatial import Grid
from scipy.spatial.transform import Rotation

AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", (14, -9, 21), degrees=True).as_matrix() * (1.4, 0.9, 2.6)
AFFINE[:3, 3] = (-31.25, 17.5, 120.0)
GRID = Grid((4, 6, 5), AFFINE)
LABELS = torch.arange(4 * 6 * 5).reshape(1, *GRID.shape)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [
        (0, torch.uint8),
        (255, torch.uint8),
        (256, torch.int16),
        (32768, torch.uint16),
        (40000, torch.uint16),
        (65536, torch.int32),
        (614454277, torch.int32),
        (2**31, torch.uint32),
        (2**32, torch.int64),
        (2**53 + 1, torch.int64),
        (2**63 - 1, torch.int64),
    ],
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_every_label_is_in_the_file_in_the_smallest_type_that_holds_it(tmp_path, largest, dtype, ending):
    labels = torch.zeros(1, *GRID.shape, dtype=torch.int64)
    labels[0, 1, 2, 3] = largest
    stored = for_file(labels)
    assert stored.dtype == dtype
    assert torch.equal(compact(labels).long(), labels)
    write_image(stored, GRID, tmp_path / f"label{ending}")
    by_itk = sitk.ReadImage(str(tmp_path / f"label{ending}"))
    assert by_itk[1, 2, 3] == largest
    assert sitk.GetArrayFromImage(by_itk).dtype == stored.numpy().dtype
    if ending == ".nii.gz":
        assert np.asarray(nibabel.load(tmp_path / "label.nii.gz").dataobj).max() == largest


@pytest.mark.parametrize(("order", "signs"), list(product(permutations(range(3)), product((1, -1), repeat=3))))
def test_a_map_stored_along_other_axes_comes_back_voxel_by_voxel(order, signs):
    flipped = [axis for axis, sign in enumerate(signs) if sign < 0]
    stored = LABELS.flip([axis + 1 for axis in flipped]).permute(0, *(axis + 1 for axis in order))
    affine = GRID.affine.copy()
    last = np.array([n - 1 if sign < 0 else 0 for n, sign in zip(GRID.shape, signs)])
    affine[:3, 3] = GRID.to_points(last)
    affine[:3, :3] = (GRID.affine[:3, :3] * signs)[:, order]
    grid = Grid(stored.shape[1:], affine)
    assert np.allclose(grid.to_points((1, 2, 3)), _point_of(stored[0, 1, 2, 3]), atol=1e-9)
    assert torch.equal(in_order_of(stored, grid, GRID), LABELS)


def _point_of(label):
    return GRID.to_points(np.unravel_index(int(label), GRID.shape))


@pytest.mark.parametrize("change", ["shifted by half a voxel", "turned by a degree", "cut", "coarser"])
def test_a_map_of_other_voxels_is_told_apart(change):
    affine, shape = GRID.affine.copy(), GRID.shape
    if change == "shifted by half a voxel":
        affine[:3, 3] += affine[:3, 0] / 2
    elif change == "turned by a degree":
        affine[:3, :3] = Rotation.from_euler("z", 1, degrees=True).as_matrix() @ affine[:3, :3]
    elif change == "cut":
        shape = (4, 6, 4)
    else:
        affine[:3, :3] *= 2
    assert in_order_of(torch.zeros(1, *shape), Grid(shape, affine), GRID) is None


def test_the_rounding_of_a_scale_in_the_header_is_no_fraction():
    scaled = np.arange(60000).astype(np.float64) * np.float32(0.1) * 10
    assert np.abs(scaled - np.arange(60000)).max() > 1e-4
    assert torch.equal(whole_numbers(torch.from_numpy(scaled), "The label").long(), torch.arange(60000))


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.5, "holds 0.5: threshold"), (-1.0, "holds -1: give"), (2.0**63, "from 0 to 2.63 - 1, but holds 9223372036854")],
)
def test_what_no_label_can_be_is_named(value, words):
    with pytest.raises(ValueError, match=rf"The fixed label is no label map: it must hold whole numbers.*{words}"):
        whole_numbers(torch.tensor([1.0, value], dtype=torch.float64), "The fixed label")


@pytest.mark.parametrize(
    ("labels", "words"),
    [(torch.tensor([1.0, torch.nan]), "but holds NaN: make that 0"), (torch.zeros(1, 0, 4, 4), "holds no voxel")],
)
def test_a_map_of_no_numbers_or_no_voxels_is_named(labels, words):
    with pytest.raises(ValueError, match=f"The fixed label is no label map: it .*{words}"):
        whole_numbers(labels, "The fixed label")
