"""One person scanned twice, simulated: the truth is the truth, and what is found is judged by it."""

import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.benchmark import expected_error
from bundle.benchmark.known_fields import read_head
from bundle.benchmark.rescans import Rescan, compare, measure_rescans, rescans_markdown, simulate
from bundle.commands.benchmark import rescans
from bundle.data import open_dataset
from bundle.io.itk import linear_to_itk, write_transform
from bundle.spatial import Grid, SpatialTransform

OBLIQUE = np.array([[-2.9, 0.5, 0.4, 40.0], [0.5, 2.9, -0.1, -50.0], [-0.4, 0.1, 2.97, -30.0], [0, 0, 0, 1.0]])
SIZE = 28, 34, 30


@pytest.fixture(scope="module")
def head():
    """A smooth anatomy with eight regions in its middle: image, labels, grid (oblique, LPS)."""
    x, y, z = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SIZE), indexing="ij")
    inside = ((x - 13.5) / 11) ** 2 + ((y - 16.5) / 14) ** 2 + ((z - 14.5) / 12) ** 2 < 1
    image = (2 + (x / 2.3).sin() + (y / 3.1).cos() + (z / 2.7).sin()) * inside * 100
    labels = (1 + (x > 13).int() + 2 * (y > 16).int() + 4 * (z > 14).int()) * inside
    return image[None], labels[None], Grid(SIZE, OBLIQUE)


def correlation(one, other, where):
    return float(np.corrcoef(one[where].numpy(), other[where].numpy())[0, 1])


@pytest.mark.parametrize("kind", ["growth", "shift"])
@pytest.mark.parametrize("peak_mm", [0.0, -4.0, 4.0])
def test_the_truth_carries_the_first_scan_onto_the_second(head, peak_mm, kind):
    rescan = simulate(*head, peak_mm, 3, kind)
    moving, fixed, brain = rescan.moving, rescan.fixed, rescan.brain
    carried = rescan.truth.resample(moving, mode="bspline")
    assert correlation(carried, fixed, brain) > 0.95
    assert correlation(moving, fixed, brain) < 0.9
    wrong = replace(rescan.truth, alignment=np.linalg.inv(rescan.truth.alignment))
    assert correlation(wrong.resample(moving, mode="bspline"), fixed, brain) < 0.9


def test_a_simulation_follows_its_seed(head):
    first, again, other = (simulate(*head, 2.0, seed) for seed in (5, 5, 6))
    assert torch.equal(first.moving, again.moving)
    assert torch.equal(first.fixed, again.fixed)
    assert not torch.equal(first.fixed, other.fixed)


def test_above_zero_the_region_is_smaller_in_the_first_scan_and_below_larger(head):
    ratios = [compare(r, r.truth)["volume_ratio"] for r in (simulate(*head, peak, 4) for peak in (3.0, -3.0))]
    assert ratios[0] < 0.95
    assert ratios[1] > 1.05


def test_a_shifted_region_moves_in_one_direction_and_its_surroundings_by_less(head):
    rescan = simulate(*head, 3.0, 4, "shift")
    field = rescan.truth.without_alignment().displacement_field(rescan.truth.fixed_grid)
    length = field.norm(dim=0)
    assert length.max() == pytest.approx(3.0, rel=0.05)
    direction = field[:, length > 0.5] / length[length > 0.5]
    assert torch.allclose(direction, direction[:, :1].expand_as(direction), atol=1e-3)
    assert length[rescan.region[0]].mean() > 2 * length[rescan.brain[0] & ~rescan.region[0]].mean()
    assert compare(rescan, rescan.truth)["volume_ratio"] == pytest.approx(1, abs=0.1)


def test_the_truth_itself_has_no_error_and_a_pose_left_out_is_the_error(head):
    rescan = simulate(*head, 3.0, seed=1)
    right = compare(rescan, rescan.truth)
    assert right["error_mm"] == pytest.approx(0, abs=1e-4)
    assert right["changed_error_mm"] == pytest.approx(0, abs=1e-4)
    assert right["volume_ratio_found"] == pytest.approx(right["volume_ratio"])
    assert 0.5 < right["changed_mm"] <= 3.0
    still = simulate(*head, 0.0, seed=1)
    headers = replace(still.truth, alignment=np.eye(4))
    grid, pose = still.truth.fixed_grid, linear_to_itk(still.truth.alignment)
    index = [tuple(int(i) for i in row) for row in still.brain[0].nonzero()[:: len(still.brain[0].nonzero()) // 9]]
    points = grid.to_points(np.array(index, dtype=float))
    by_itk = [np.linalg.norm(np.array(pose.TransformPoint(tuple(map(float, p)))) - p) for p in points]
    only = torch.zeros_like(still.brain)
    only[(0, *np.array(index).T)] = True
    found = compare(replace(still, brain=only), headers)
    assert found["error_mm"] == pytest.approx(np.mean(by_itk), rel=1e-4)
    assert found["largest_error_mm"] == pytest.approx(max(by_itk), rel=1e-4)


def test_the_spread_of_the_jacobian_and_its_mean_are_those_of_a_closed_form(head):
    rescan = simulate(*head, 0.0, seed=2)
    scale = np.diag([1.1, 1.0, 1.0, 1.0])
    row = compare(rescan, replace(rescan.truth, alignment=scale))
    assert row["log_jacobian_bias"] == pytest.approx(math.log(1.1), abs=1e-4)
    assert row["log_jacobian_sd"] == pytest.approx(0, abs=1e-4)
    assert "volume_ratio" not in row


def test_every_head_is_scanned_without_and_with_a_change_and_each_pair_registered(small_dataset):
    items = open_dataset(str(small_dataset), "training")
    seen = []

    def identity(moving, fixed, folder):
        seen.append((sitk.ReadImage(str(moving)), sitk.ReadImage(str(fixed))))
        folder.mkdir()
        grid = Grid((32, 40, 32), np.eye(4))
        write_transform(SpatialTransform(np.eye(4), None, grid, grid, grid), folder / "identity.tfm")
        return folder / "identity.tfm"

    rows = measure_rescans(items, 0, identity)
    assert [row["peak_mm"] for row in rows] == [0, -1.0, 0, 2.0, 0, -3.0]
    assert [row["image"] for row in rows[::2]] == [Path(item["image"]).name.partition(".")[0] for item in items]
    assert all(row["error_mm"] > 0.5 for row in rows)  # the pose
    assert all(one.GetSize() == other.GetSize() == (32, 40, 32) for one, other in seen)
    table = rescans_markdown(rows).splitlines()
    assert table[2].startswith("| nothing changed | 3 | ")
    assert table[3].startswith("| changed | 3 | ")
    assert table[2].count("|") == table[3].count("|") == table[0].count("|")


def test_a_change_too_small_to_be_seen_leaves_its_columns_open(head):
    rescan = simulate(*head, 0.2, seed=0)
    assert isinstance(rescan, Rescan)
    assert math.isnan(compare(rescan, rescan.truth)["changed_mm"])


@pytest.mark.slow
def test_the_command_registers_and_writes_its_tables(small_dataset, shifting_weights, tmp_path, capsys):
    out = tmp_path / "out"
    rows = rescans(str(small_dataset), str(out), heads=1, weights=shifting_weights, device="cpu")
    assert [row["peak_mm"] for row in rows] == [0, -1.0]
    assert "nothing changed" in capsys.readouterr().out
    assert (out / "rescans.md").read_text().count("\n| ") == 4
    assert len((out / "rescans.csv").read_text().splitlines()) == 3


def test_images_without_labels_are_refused_in_a_sentence(small_dataset, tmp_path):
    (tmp_path / "imagesTr").symlink_to(small_dataset / "images")
    with pytest.raises(ValueError, match="needs a label map for every image"):
        rescans(str(tmp_path), str(tmp_path / "out"), split="training")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def turned(small_dataset, tmp_path):
    """A head, and the same one with its labels' axes in another order and the other way round."""
    item = open_dataset(str(small_dataset), "training")[0]
    label = nibabel.load(item["label"])
    orientation = nibabel.orientations.axcodes2ornt(("S", "R", "A"))
    turned = label.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(label.affine), orientation))
    assert turned.shape != label.shape
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    return item, item | {"label": str(tmp_path / "turned.nii.gz")}


def test_labels_count_in_the_order_of_their_images_axes(turned):
    for one, other in zip(*(read_head(item)[:2] for item in turned)):
        assert torch.equal(one, other)
    (plain, grid), (again, _) = (expected_error._anatomy(item, masked=True) for item in turned)
    assert torch.equal(plain, again)
    assert plain.shape[1:] == grid.shape
    assert not torch.equal(plain, expected_error._anatomy(turned[0], masked=False)[0])


def test_a_head_without_any_label_is_refused_in_a_sentence(turned, tmp_path):
    label = nibabel.load(turned[0]["label"])
    nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), tmp_path / "empty.nii.gz")
    with pytest.raises(ValueError, match=r"The label \(.*empty\.nii\.gz\) holds no label, zeros alone"):
        read_head(turned[0] | {"label": str(tmp_path / "empty.nii.gz")})


def test_heads_of_voxels_with_unequal_sides_are_refused_before_any_work(small_dataset, tmp_path):
    item = open_dataset(str(small_dataset), "training")[0]
    image = nibabel.load(item["image"])
    affine = image.affine @ np.diag([1, 1, 2.5, 1])
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(), affine), tmp_path / "thick.nii.gz")
    items = [item, item | {"image": str(tmp_path / "thick.nii.gz")}]
    with pytest.raises(
        ValueError, match=r"The image \(.*thick\.nii\.gz\) has voxels of .*: bring it to one size first"
    ):
        measure_rescans(items, 0, lambda *_: pytest.fail("there is no work to do"))


def test_a_change_of_another_kind_is_refused_before_any_work(small_dataset):
    items = open_dataset(str(small_dataset), "training")[:1]
    with pytest.raises(ValueError, match="The change is one of growth, shift, not 'turn'"):
        measure_rescans(items, 0, lambda *_: pytest.fail("there is no work to do"), "turn")
