"""What a registration writes and does on request: the inverse, the Jacobian, both directions, masks of the cost."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.commands.register import register
from bundle.io.transforms import read_any
from bundle.ops import computes_bfloat16
from bundle.phantom import make_head
from bundle.similarity import similarity
from bundle.spatial import Inverse
from bundle.transforms import MatchPaird, ReadVolumed, grid_of, read_volume
from scipy.ndimage import gaussian_filter

SIDES = {"moving": ((44, 50, 40), 4.0), "fixed": ((42, 48, 44), 4.1)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two heads, and a lesion's mask in each."""
    folder, paths = tmp_path_factory.mktemp("pair"), {}
    for seed, (role, (shape, spacing_mm)) in enumerate(SIDES.items()):
        image, label, affine = make_head(31 + seed, shape, spacing_mm)
        lesion = np.zeros(shape, np.uint8)
        lesion[26:31, 24:30, 22:27] = 1
        for name, array in (("", image.astype(np.float32)), ("_cost_mask", lesion), ("_label", label.astype(np.uint8))):
            paths[role + name] = str(folder / f"{role}{name}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(array, affine), paths[role + name])
    return paths


def images(pair):
    return {role: pair[role] for role in SIDES}


def grids(pair):
    return (grid_of(read_volume(pair[role], role, is_label=False)) for role in ("fixed", "moving"))


def voxels(grid):
    return torch.cat([points.reshape(-1, 3) for _, points in grid.slabs()])


@pytest.fixture(scope="module")
def registered(pair, shifting_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("more") / "out"
    options = {"weights": shifting_weights, "affine": "rigid", "never_worse": False, "device": "cpu"}
    return folder, register(**images(pair), output_dir=str(folder), inverse=True, jacobian=True, **options), options


def test_the_inverse_s_files_bring_points_back_as_the_summary_says(registered, pair):
    folder, summary, _ = registered
    fixed_grid, moving_grid = grids(pair)
    there = read_any(str(folder / "transform.h5"), fixed_grid, moving_grid)
    back = sitk.ReadTransform(str(folder / "inverse.h5"))
    points = fixed_grid.to_points(np.random.default_rng(0).uniform(15, 25, (100, 3)))
    moved = points + there.displacement_at(points).numpy()
    residual = np.linalg.norm([back.TransformPoint(p) for p in moved.tolist()] - points, axis=1)
    assert residual.max() < 0.1
    assert 0 < summary["inverse_residual_mean_mm"] <= summary["inverse_residual_p99_mm"]
    assert summary["inverse_residual_p99_mm"] < 0.5
    at_voxels = read_any(str(folder / "inverse_displacement.nii.gz"), moving_grid, fixed_grid)
    here = voxels(moving_grid)[::97]
    expected = Inverse(there).displacement_at(here)
    torch.testing.assert_close(at_voxels.displacement_at(here), expected, atol=1e-4, rtol=0)


def test_the_jacobian_is_that_of_the_field_at_the_fixed_image_s_voxels(registered, pair):
    folder, _, _ = registered
    fixed_grid, moving_grid = grids(pair)
    field = read_any(str(folder / "transform.h5"), fixed_grid, moving_grid).without_alignment()
    found = nibabel.load(folder / "jacobian.nii.gz").get_fdata()
    inner = (slice(1, -1),) * 3  # at the border the file's field ends, the one that was found goes on
    np.testing.assert_allclose(found[inner], field.jacobian_on()[0][inner], atol=1e-4)
    np.testing.assert_allclose(found, field.jacobian_on()[0], atol=0.01)
    assert found.std() > 1e-3


def test_a_registration_without_them_takes_the_files_of_an_earlier_one_away(registered, pair):
    folder, _, options = registered
    register(**images(pair), output_dir=str(folder), **options)
    assert {"inverse.h5", "inverse_displacement.nii.gz", "jacobian.nii.gz"}.isdisjoint(p.name for p in folder.iterdir())


@pytest.mark.slow
def test_swapping_the_images_of_a_symmetric_registration_inverts_it(pair, shifting_weights, tmp_path):
    options = {"weights": shifting_weights, "never_worse": False, "symmetric": True, "device": "cpu"}
    fixed_grid, moving_grid = grids(pair)
    register(pair["moving"], pair["fixed"], str(tmp_path / "there"), **options)
    register(pair["fixed"], pair["moving"], str(tmp_path / "back"), **options)
    there = read_any(str(tmp_path / "there" / "transform.h5"), fixed_grid, moving_grid)
    back = read_any(str(tmp_path / "back" / "transform.h5"), moving_grid, fixed_grid)
    np.testing.assert_allclose(there.alignment @ back.alignment, np.eye(4), atol=1e-4)
    points = voxels(fixed_grid.crop((12, 12, 12), (30, 34, 30)))
    moved = points + there.displacement_at(points)
    apart = (moved + back.displacement_at(moved) - points).norm(dim=1)
    assert apart.mean() < 0.05 * 4.1  # a twentieth of a voxel
    assert json.loads((tmp_path / "there" / "registration.json").read_text())["settings"]["symmetric"]


def test_bfloat16_is_used_where_the_cpu_has_it_or_the_user_asks_for_it(registered, pair, tmp_path):
    _, default, options = registered
    assert default["settings"]["bfloat16"] == computes_bfloat16(torch.device("cpu"))
    for asked in (True, False) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (False,):
        found = register(**images(pair), output_dir=str(tmp_path / str(asked)), bfloat16=asked, **options)
        assert found["settings"]["bfloat16"] is asked
    with pytest.raises(ValueError, match="bfloat16 takes True or False"):
        register(**images(pair), output_dir=str(tmp_path / "text"), bfloat16="yes", **options)


def spoiled(path, mask, folder, seed=0):
    """The image with a bright lesion where its mask is."""
    image = nibabel.load(path)
    values, region = image.get_fdata().astype(np.float32), nibabel.load(mask).get_fdata() > 0
    values[region] = values.max() * (1.5 + 0.2 * np.random.default_rng(seed).standard_normal(region.sum()))
    nibabel.save(nibabel.Nifti1Image(values, image.affine), folder / "spoiled.nii.gz")
    return str(folder / "spoiled.nii.gz")


def share_that_differs(image, other):
    """Share of voxels that are not alike; all of them where an alignment far off led to another grid."""
    return 1.0 if image.shape != other.shape else float(((image - other).abs() > 0.1).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("role", ["moving", "fixed"])
def test_what_lies_in_a_cost_mask_changes_neither_alignment_nor_similarity_nor_what_the_network_sees(
    pair, tmp_path, role
):
    keys = ["moving", "fixed", "moving_cost_mask", "fixed_cost_mask"]
    read, match = ReadVolumed(keys, labels=keys[2:]), MatchPaird("rigid", spacing_mm=4.1)
    mask = {f"{role}_cost_mask": pair[f"{role}_cost_mask"]}
    lesion = {role: spoiled(pair[role], pair[f"{role}_cost_mask"], tmp_path)}
    clean, with_mask, without = (match(read(images(pair) | more)) for more in (mask, mask | lesion, lesion))
    assert share_that_differs(with_mask["image"], clean["image"]) < 3e-4  # clipped at other percentiles
    assert share_that_differs(without["image"], clean["image"]) > 1.5e-3
    np.testing.assert_allclose(with_mask["alignment"], clean["alignment"], atol=0.2)
    assert with_mask["alike"]["similarity_aligned"] == pytest.approx(clean["alike"]["similarity_aligned"], abs=5e-3)
    assert with_mask["ignored"].sum() > 50


def test_the_similarity_leaves_out_what_does_not_count_and_every_window_that_holds_it():
    rng = np.random.default_rng(0)
    fixed = torch.from_numpy(gaussian_filter(rng.standard_normal((24, 26, 22)), 1.5)).float()[None]
    fixed = (fixed - fixed.min()) / (fixed.max() - fixed.min())
    warped, ignored = fixed.clone(), torch.zeros_like(fixed, dtype=torch.bool)
    ignored[:, 8:12, 9:13, 7:11] = True
    warped[ignored] = torch.rand(64)
    assert similarity(warped, fixed) < 0.97
    assert similarity(warped, fixed, ignored) == pytest.approx(similarity(fixed, fixed, ignored), abs=1e-3)


@pytest.mark.slow
def test_the_field_runs_smoothly_through_a_cost_mask(pair, shifting_weights, tmp_path):
    """Inside the mask the field has no noise of its own: its second differences are small."""
    options = {"weights": shifting_weights, "affine": "none", "never_worse": False, "device": "cpu", "spacing_mm": 4.1}
    fixed_grid, moving_grid = grids(pair)
    rough = {}
    for name, mask in (("with", {"fixed_cost_mask": pair["fixed_cost_mask"]}), ("without", {})):
        register(**images(pair), output_dir=str(tmp_path / name), **mask, **options)
        field = read_any(str(tmp_path / name / "transform.h5"), fixed_grid, moving_grid).displacement_field()
        inside = field[:, 26:31, 24:30, 22:27]
        rough[name] = float(sum(inside.diff(n=2, dim=dim).abs().mean() for dim in (1, 2, 3)))
    assert rough["with"] < 0.7 * rough["without"]
