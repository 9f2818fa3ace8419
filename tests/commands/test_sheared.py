"""Images of a tilted gantry, whose axes are sheared: forms that count voxels count those of the files."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.commands.apply import apply
from bundle.commands.apply_points import apply_points
from bundle.commands.convert import convert
from bundle.commands.invert import invert
from bundle.io.formats.fsl import points_of_fsl
from bundle.io.images import write_image
from bundle.io.itk import write_transform
from bundle.io.transforms import read_any
from bundle.spatial import Grid, SpatialTransform, ras_from_lps
from tests.spatial.oblique import indices_of, linear_map, oblique, smooth_ddf


def tilted(grid):
    shear = np.eye(4)
    shear[1, 2] = 0.25
    return Grid(grid.shape, grid.affine @ shear)


STRAIGHT = {
    "fixed": oblique((20, 16, 14), (-1.9, 1.4, 2.3), (11, -7, 16), (12, -21, 33)),
    "moving": oblique((26, 24, 22), (1.7, 2.1, 1.8), (-8, 12, 5), (9, -25, 30)),
}
SHEARED = [("fixed",), ("moving",), ("fixed", "moving")]


def grids_of(sheared):
    return {role: tilted(grid) if role in sheared else grid for role, grid in STRAIGHT.items()}


def prepare(folder, sheared):
    """The grids of two images, sheared or not, and T between them, linear and bent; all as files, too."""
    grids = grids_of(sheared)
    for seed, (role, grid) in enumerate(grids.items()):
        values = np.random.default_rng(seed).random(grid.shape, np.float32)
        nibabel.save(nibabel.Nifti1Image(values, ras_from_lps(grid.affine)), folder / f"{role}.nii.gz")
    field = STRAIGHT["fixed"].crop((-4, -4, -4), (23, 19, 17))
    bent = SpatialTransform(linear_map(), smooth_ddf(field.shape, 2), field, grids["fixed"], grids["moving"])
    for name, transform in {"bent.h5": bent, "linear.h5": bent.without_field()}.items():
        write_transform(transform, folder / name)
    return grids, bent


def run(folder, transform, output, **options):
    paths = {"transform": transform, "moving": "moving.nii.gz", "fixed": "fixed.nii.gz", "output": output}
    return convert(**{key: str(folder / path) for key, path in paths.items()}, **options)


def targets(transform, grid):
    places = grid.to_points(indices_of(grid))
    return places + transform.displacement_at(places).numpy()


@pytest.mark.parametrize("sheared", SHEARED)
def test_flirts_matrix_is_of_the_sheared_voxels_both_ways(tmp_path, sheared):
    grids, bent = prepare(tmp_path, sheared)
    run(tmp_path, "linear.h5", "T.mat", to="flirt")
    index = indices_of(grids["fixed"]).reshape(-1, 3)
    there = np.linalg.inv(np.loadtxt(tmp_path / "T.mat")) @ points_of_fsl(grids["fixed"])
    in_moving = np.linalg.inv(points_of_fsl(grids["moving"])) @ there
    found = grids["moving"].to_points(index @ in_moving[:3, :3].T + in_moving[:3, 3])
    assert np.abs(found - targets(bent.without_field(), grids["fixed"]).reshape(-1, 3)).max() < 1e-4
    run(tmp_path, "T.mat", "back.h5", to="itk", kind="flirt")
    np.testing.assert_allclose(read_any(tmp_path / "back.h5").alignment, bent.alignment, atol=1e-6)


@pytest.mark.parametrize("sheared", SHEARED)
@pytest.mark.parametrize("form", ["learn2reg", "fnirt"])
def test_fields_in_voxels_are_of_the_sheared_ones_both_ways(tmp_path, form, sheared):
    grids, bent = prepare(tmp_path, sheared)
    run(tmp_path, "bent.h5", "T.nii.gz", to=form)
    image = nibabel.load(tmp_path / "T.nii.gz")
    np.testing.assert_allclose(image.affine, ras_from_lps(grids["fixed"].affine), atol=1e-4)
    index, field = indices_of(grids["fixed"]), np.asarray(image.dataobj)
    if form == "fnirt":
        fixed, moving = points_of_fsl(grids["fixed"]), np.linalg.inv(points_of_fsl(grids["moving"]))
        places = index @ fixed[:3, :3].T + fixed[:3, 3] + field
        found = grids["moving"].to_points(places @ moving[:3, :3].T + moving[:3, 3])
    else:
        found = grids["moving"].to_points(index + field)
    assert np.abs(found - targets(bent, grids["fixed"])).max() < 1e-3
    run(tmp_path, "T.nii.gz", "back.h5", to="itk", kind=form)
    inner = grids["fixed"].crop((2, 2, 2), np.array(grids["fixed"].shape) - 3)
    assert np.abs(targets(read_any(tmp_path / "back.h5"), inner) - targets(bent, inner)).max() < 1e-3


@pytest.mark.parametrize("sheared", SHEARED)
def test_an_lta_states_the_sheared_geometries_by_which_its_direction_is_told(tmp_path, sheared):
    _, bent = prepare(tmp_path, sheared)
    run(tmp_path, "linear.h5", "T.lta", to="freesurfer")
    run(tmp_path, "T.lta", "back.h5", to="itk")
    np.testing.assert_allclose(read_any(tmp_path / "back.h5").alignment, bent.alignment, atol=1e-6)


@pytest.mark.parametrize("sheared", SHEARED)
def test_apply_and_apply_points_go_by_flirts_matrix_as_by_the_transform_it_was_made_of(tmp_path, sheared):
    run_of = {"moving": str(tmp_path / "moving.nii.gz"), "fixed": str(tmp_path / "fixed.nii.gz")}
    prepare(tmp_path, sheared)
    run(tmp_path, "linear.h5", "T.mat", to="flirt")
    (tmp_path / "p.csv").write_text("x,y,z\n9,-25,30\n12,-20,33\n")
    results = {}
    for name, kind in (("linear.h5", None), ("T.mat", "flirt")):
        apply(str(tmp_path / name), **run_of, output=str(tmp_path / "o.nii.gz"), kind=kind)
        points = str(tmp_path / "p.csv"), str(tmp_path / "q.csv")
        apply_points(str(tmp_path / name), *points, "fixed", "lps", **run_of, kind=kind)
        table = np.loadtxt(tmp_path / "q.csv", delimiter=",", skiprows=1)
        results[name] = np.asarray(nibabel.load(tmp_path / "o.nii.gz").dataobj), table
    for ours, theirs in zip(results["linear.h5"], results["T.mat"]):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


@pytest.mark.parametrize("sheared", SHEARED)
def test_a_field_in_mm_lies_on_a_straight_grid_and_a_note_says_so_of_that_alone(tmp_path, sheared, capsys):
    _, bent = prepare(tmp_path, sheared)
    run(tmp_path, "bent.h5", "T.nii.gz", to="ants")
    assert ("fixed" in sheared) == ("fixed.nii.gz): few toolkits open" in (said := capsys.readouterr().out))
    assert "moving.nii.gz): few toolkits open" not in said
    found = read_any(tmp_path / "T.nii.gz")
    assert sitk.ReadImage(str(tmp_path / "T.nii.gz")).GetSize() == found.field_grid.shape  # which refuses sheared ones
    places = STRAIGHT["fixed"].crop((4, 4, 4), (15, 11, 9))
    assert np.abs(targets(found, places) - targets(bent, places)).max() < 0.2  # linear between its voxels
    run(tmp_path, "bent.h5", "T.h5", to="itk")
    assert "few toolkits open" not in capsys.readouterr().out


def test_afni_is_refused_sheared_images_though_straight_ones_would_lie_along_the_axes(tmp_path):
    plumb = {role: Grid(grid.shape, np.diag([*grid.spacing_mm, 1.0])) for role, grid in STRAIGHT.items()}
    write_image(torch.rand(1, *plumb["moving"].shape), plumb["moving"], tmp_path / "moving.nii.gz")
    sheared = nibabel.Nifti1Image(np.ones(plumb["fixed"].shape), ras_from_lps(tilted(plumb["fixed"]).affine))
    nibabel.save(sheared, tmp_path / "fixed.nii.gz")
    linear = SpatialTransform(np.eye(4), None, plumb["fixed"], plumb["fixed"], plumb["moving"])
    write_transform(linear, tmp_path / "linear.h5")
    with pytest.raises(ValueError, match=r"The fixed image's axes are oblique.*3dWarp"):
        run(tmp_path, "linear.h5", "T.aff12.1D", to="afni")


@pytest.mark.parametrize("sheared", SHEARED)
def test_the_inverse_of_flirts_matrix_is_that_of_the_transform_it_was_made_of(tmp_path, sheared):
    _, bent = prepare(tmp_path, sheared)
    run(tmp_path, "linear.h5", "T.mat", to="flirt")
    invert(str(tmp_path / "T.mat"), str(tmp_path / "moving.nii.gz"), str(tmp_path / "fixed.nii.gz"), kind="flirt")
    np.testing.assert_allclose(read_any(tmp_path / "inverse.h5").alignment, np.linalg.inv(bent.alignment), atol=1e-6)
