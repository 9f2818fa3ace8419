"""A transform written in every form and read again; what cannot be written leaves nothing behind."""

import re
import shlex
import sys
from contextlib import nullcontext

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.__main__ import main
from bundle.commands.apply import apply
from bundle.commands.convert import convert
from bundle.io.export import FORMS, write_as
from bundle.io.images import write_image
from bundle.io.itk import write_transform
from bundle.io.transforms import read_any
from bundle.spatial import Grid, SpatialTransform, invert_points
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import oblique

FIXED = oblique((20, 16, 14), (-1.9, 1.4, 2.3), (11, -7, 16), (12, -21, 33))
MOVING = oblique((26, 24, 22), (1.7, 2.1, 1.8), (-8, 12, 5), (9, -25, 30))
FIELD = oblique((26, 25, 24), (2.4, 2.3, 2.2), (3, 0, -5), (12, -21, 33))
PLUMB = Grid.from_ras((20, 16, 14), np.array([[-1.9, 0, 0, 30], [0, 1.4, 0, -9], [0, 0, 2.3, 2], [0, 0, 0, 1]]))


def smooth(shape, seed):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4.0)
    return noise / np.abs(noise).max()


def transform(fixed=FIXED, moving=MOVING, deformable=True):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (6, -4, 9), degrees=True).as_matrix() @ np.diag([1.04, 0.97, 1.02])
    matrix[:3, 3] = moving.centre_mm - matrix[:3, :3] @ fixed.centre_mm + (2.0, -1.5, 3.0)
    field_grid = FIELD if fixed is FIXED else fixed
    ddf = torch.from_numpy(1.5 * np.stack([smooth(field_grid.shape, seed) for seed in range(3)])).float()
    found = SpatialTransform(matrix, ddf, field_grid, fixed, moving)
    return found if deformable else found.without_field()


def largest(found, expected):
    return float((found.displacement_field() - expected.displacement_field()).abs().max())


@pytest.fixture
def folder(tmp_path):
    """A registration's transform and its two images."""
    write_transform(transform(), tmp_path / "transform.h5")
    write_transform(transform(deformable=False), tmp_path / "linear.h5")
    write_image(torch.rand(1, *FIXED.shape), FIXED, tmp_path / "fixed.nii.gz")
    write_image(torch.from_numpy(smooth(MOVING.shape, 9))[None].float(), MOVING, tmp_path / "moving.nii.gz")
    return tmp_path


def run(folder, output, to=None, name="transform.h5", kind=None):
    paths = {"transform": name, "moving": "moving.nii.gz", "fixed": "fixed.nii.gz", "output": output}
    return convert(**{key: str(folder / path) for key, path in paths.items()}, to=to, kind=kind)


WHOLE = [
    (form, end) for form, of in FORMS.items() for group in of.whole for end in group if form not in ("afni", "greedy")
]
LINEAR = [(form, end) for form, of in FORMS.items() for group in of.linear for end in group if form != "afni"]


@pytest.mark.parametrize(("form", "ending"), [pair for pair in WHOLE if pair[1] != ".npz"])
def test_what_a_form_holds_of_a_deformable_transform_is_the_whole_of_it(folder, form, ending):
    run(folder, f"T{ending}", form)
    assert largest(read_any(folder / f"T{ending}", FIXED, MOVING, form), transform()) < 1e-4


@pytest.mark.parametrize(("form", "ending"), [*LINEAR, *(pair for pair in WHOLE if pair[1] != ".npz")])
def test_every_form_holds_a_linear_transform(folder, form, ending):
    run(folder, f"T{ending}", form, "linear.h5")
    assert largest(read_any(folder / f"T{ending}", FIXED, MOVING, form), transform(deformable=False)) < 1e-4


def test_the_two_files_for_greedy_are_the_field_and_what_follows_it(folder, capsys):
    run(folder, "warp.nii.gz", "greedy")
    field = read_any(folder / "warp.nii.gz", FIXED, MOVING)
    matrix = read_any(folder / "warp_affine.mat", FIXED, MOVING, "greedy")
    places = torch.stack([points for _, points in FIXED.slabs()][:1])[0]
    between = places + field.displacement_at(places)
    found = between + matrix.displacement_at(between)
    assert (found - places - transform().displacement_at(places)).abs().max() < 1e-4
    assert f"-r {folder / 'warp.nii.gz'} {folder / 'warp_affine.mat'}" in capsys.readouterr().out


def test_half_the_resolution_keeps_a_smooth_field_within_a_fraction_of_a_voxel(folder):
    alike = oblique((24, 20, 18), (-1.9, 1.4, 2.3), (11, -7, 16), FIXED.centre_mm)
    expected = transform(moving=alike)
    write_as(expected, folder / "T.npz", "learn2reg", str(folder / "fixed.nii.gz"))
    assert np.load(folder / "T.npz")["arr_0"].shape == (3, 10, 8, 7)
    apart = read_any(folder / "T.npz", FIXED, alike, "learn2reg").displacement_field() - expected.displacement_field()
    assert apart[:, 3:-3, 3:-3, 3:-3].abs().max() < 0.1


def test_afnis_forms_are_written_for_images_along_the_axes_alone(folder):
    for deformable, ending in ((True, ".nii.gz"), (False, ".aff12.1D")):
        expected = transform(PLUMB, PLUMB, deformable)
        write_image(torch.rand(1, *PLUMB.shape), PLUMB, folder / "plumb.nii.gz")
        write_as(expected, folder / f"T{ending}", "afni", str(folder / "plumb.nii.gz"))
        assert largest(read_any(folder / f"T{ending}", PLUMB, PLUMB, "afni"), expected) < 1e-4
    with pytest.raises(ValueError, match=r"The fixed image's axes are oblique.*3dWarp"):
        run(folder, "oblique.nii.gz", "afni")


@pytest.mark.parametrize(("degrees", "taken"), [(0.009, True), (0.02, False), (4.0, False)])
def test_afni_calls_an_image_oblique_from_a_hundredth_of_a_degree_on(folder, degrees, taken):
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    linear = transform(Grid(PLUMB.shape, turned @ PLUMB.affine), PLUMB, deformable=False)
    write_image(torch.rand(1, *PLUMB.shape), PLUMB, folder / "plumb.nii.gz")
    with nullcontext() if taken else pytest.raises(ValueError, match="The fixed image's axes are oblique"):
        write_as(linear, folder / "T.aff12.1D", "afni", str(folder / "plumb.nii.gz"))


@pytest.mark.parametrize("shape", [(20, 16, 13), (20, 2, 14)])
def test_half_the_resolution_is_refused_where_the_sides_cannot_be_halved(folder, shape):
    odd = oblique(shape, (-1.9, 1.4, 2.3), (11, -7, 16), FIXED.centre_mm)
    with pytest.raises(ValueError, match=f"{'×'.join(map(str, shape))} cannot be halved so; write a .nii.gz"):
        write_as(transform(odd, deformable=False), folder / "T.npz", "learn2reg", str(folder / "fixed.nii.gz"))
    assert not (folder / "T.npz").exists()


def test_a_field_on_a_sheared_grid_is_written_for_itk_on_the_fixed_images(folder):
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    moved = Grid(FIELD.shape, sheared @ FIELD.affine)
    expected = SpatialTransform(np.eye(4), transform().ddf, moved, FIXED, MOVING)
    write_as(expected, folder / "T.h5", "itk", str(folder / "fixed.nii.gz"))
    assert largest(read_any(folder / "T.h5", FIXED, MOVING), expected) < 1e-4


def test_a_field_on_a_sheared_grid_is_written_for_greedy_on_the_fixed_images(folder):
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    moved = Grid(FIELD.shape, sheared @ FIELD.affine)
    expected = SpatialTransform(transform().alignment, transform().ddf, moved, FIXED, MOVING)
    write_as(expected, folder / "T.nii.gz", "greedy", str(folder / "fixed.nii.gz"))
    assert sitk.ReadImage(str(folder / "T.nii.gz")).GetSize() == FIXED.shape  # which ITK refuses for a sheared grid
    assert np.array_equal(np.loadtxt(folder / "T_affine.mat"), np.eye(4))
    assert largest(read_any(folder / "T.nii.gz", FIXED, MOVING), expected) < 1e-4


@pytest.mark.parametrize("form", ["learn2reg", "voxelmorph", "fnirt"])
def test_a_field_of_images_of_opposite_handedness_folds_nothing_and_ends_at_its_border(folder, form):
    assert np.linalg.det(FIXED.affine) < 0 < np.linalg.det(MOVING.affine)
    run(folder, "T.nii.gz", form.replace("voxelmorph", "learn2reg"))
    found, expected = read_any(folder / "T.nii.gz", FIXED, MOVING, form), transform().jacobian_on(FIXED)
    assert expected.min() > 0.3
    assert (found.without_alignment().jacobian_on(FIXED) - expected).abs().max() < 0.05  # the field goes on elsewhere
    assert not found.displacement_at(FIXED.to_points(np.array(FIXED.shape) + 5.0)).any()
    inner = np.array([[9.0, 7, 6], [8, 8, 7]])
    there = FIXED.to_points(inner) + found.displacement_at(FIXED.to_points(inner)).numpy()
    assert np.abs(invert_points(found, there)[0] - FIXED.to_points(inner)).max() < 0.01


def test_the_headers_say_whose_numbers_they_are(folder):
    about = {"ants": (1007, 5), "freesurfer": (1006, 5), "fnirt": (2006, 4), "learn2reg": (0, 4)}
    for form, (intent, axes) in about.items():
        run(folder, f"{form}.nii.gz", form)
        image = nibabel.load(folder / f"{form}.nii.gz")
        assert (int(image.header["intent_code"]), image.ndim) == (intent, axes)
        assert np.abs(image.affine - np.diag([-1, -1, 1, 1]) @ FIXED.affine).max() < 1e-5
    field = np.asarray(nibabel.load(folder / "ants.nii.gz").dataobj)[3, 4, 5, 0]
    place = FIXED.to_points([3, 4, 5])
    target = np.array(sitk.ReadTransform(str(folder / "transform.h5")).TransformPoint(place.tolist()))
    assert np.abs(field - (target - place)).max() < 1e-4
    ras = np.asarray(nibabel.load(folder / "freesurfer.nii.gz").dataobj)[3, 4, 5, 0]
    assert np.abs(ras - (target - place) * (-1, -1, 1)).max() < 1e-4
    voxels = np.asarray(nibabel.load(folder / "learn2reg.nii.gz").dataobj)[3, 4, 5]
    assert np.abs(voxels - (MOVING.to_index(target) - (3, 4, 5))).max() < 1e-4


def test_apply_takes_every_form(folder):
    outputs = {}
    for form, ending in (("itk", ".h5"), ("fnirt", ".nii.gz"), ("learn2reg", ".nii.gz"), ("freesurfer", ".nii.gz")):
        run(folder, f"{form}{ending}", form)
        output = str(folder / f"by_{form}.nii.gz")
        kind = None if form != "learn2reg" else form
        apply(
            str(folder / f"{form}{ending}"),
            str(folder / "moving.nii.gz"),
            str(folder / "fixed.nii.gz"),
            output,
            kind=kind,
        )
        outputs[form] = sitk.GetArrayFromImage(sitk.ReadImage(output))
    assert np.abs(outputs["itk"]).max() > 0.3
    for image in outputs.values():
        assert np.abs(image - outputs["itk"]).max() < 1e-4


BAD = {
    "an unknown form": (("T.h5", "spm"), r"--to is one of itk, .*, not 'spm'"),
    "an ending of several forms": (("T.nii.gz",), r"may be of several forms: say which by --to itk or ants or greedy"),
    "an ending of none": (("T.vtk",), r"must end in \.aff12\.1D, .* or \.x5"),
    "another form's ending": (("T.lta", "itk"), r"must end in \.h5 or .*, as --to itk has it"),
    "a field as a matrix": (("T.lta",), r"is deformable, and T\.lta would hold a matrix alone: write \.nii\.gz"),
    "a field as flirt's": (("T.mat", "flirt"), r"would hold a matrix alone: choose another form"),
    "a matrix as a warp": (("T.nii.gz", "greedy", "linear.h5"), r"is linear, and greedy takes it as a matrix"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_written_is_said_in_one_sentence_and_leaves_nothing(folder, name):
    arguments, message = BAD[name]
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match=message):
        run(folder, *arguments)
    assert sorted(folder.iterdir()) == before


def test_odd_sides_have_no_half(folder):
    odd = oblique((21, 16, 14), (1, 1, 1), (0, 0, 0), (0, 0, 0))
    with pytest.raises(ValueError, match=r"21×16×14 cannot be halved so; write a \.nii\.gz"):
        write_as(transform(odd, odd), folder / "T.npz", "learn2reg", "")
    assert not (folder / "T.npz").exists()


@pytest.mark.parametrize(("output", "to"), [("T.h5", "itk"), ("T.nii.gz", "ants"), ("T.x5", None), ("T.npz", None)])
def test_a_failure_while_writing_leaves_what_was_there(folder, output, to, monkeypatch):
    run(folder, output, to)
    before = (folder / output).read_bytes(), sorted(folder.iterdir())
    monkeypatch.setattr("bundle.io.export.Path.iterdir", lambda self: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run(folder, output, to, "linear.h5")
    monkeypatch.undo()
    assert ((folder / output).read_bytes(), sorted(folder.iterdir())) == before


def test_the_command_line_converts(folder, monkeypatch, capsys):
    options = {"transform": "transform.h5", "moving": "moving.nii.gz", "fixed": "fixed.nii.gz", "output": "new/T.x5"}
    line = [word for key, name in options.items() for word in (f"--{key}", str(folder / name))]
    monkeypatch.setattr(sys, "argv", ["bundle", "convert", *line])
    main()
    assert f"written: {folder / 'new/T.x5'}" in capsys.readouterr().out
    assert [file.name for file in (folder / "new").iterdir()] == ["T.x5"]
    monkeypatch.setattr(sys, "argv", ["bundle", "convert", *line, "--kind", "flirt"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "error: The transform" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "ending"), [pair for pair in WHOLE if pair[1] != ".npz"])
def test_a_single_slice_as_the_fixed_image_is_written_and_read_where_it_lies(folder, form, ending):
    middle = FIXED.plane(2, 6)
    write_image(torch.rand(1, *middle.shape), middle, folder / "fixed.nii.gz")
    run(folder, f"T{ending}", form)
    expected = SpatialTransform(transform().alignment, transform().ddf, FIELD, middle, MOVING)
    assert largest(read_any(folder / f"T{ending}", middle, MOVING, form), expected) < 1e-4
    kind = form if form == "learn2reg" else None
    paths = [str(folder / name) for name in (f"T{ending}", "moving.nii.gz", "fixed.nii.gz", "warped.nii.gz")]
    apply(*paths, kind=kind)
    assert nibabel.load(folder / "warped.nii.gz").shape == middle.shape


def test_afnis_warp_on_a_single_slice_is_read_where_it_lies(folder):
    middle = PLUMB.plane(2, 6)
    expected = transform(middle, PLUMB)
    write_image(torch.rand(1, *middle.shape), middle, folder / "plumb.nii.gz")
    write_as(expected, folder / "T.nii.gz", "afni", str(folder / "plumb.nii.gz"))
    assert largest(read_any(folder / "T.nii.gz", middle, PLUMB, "afni"), expected) < 1e-4


def test_the_line_for_greedy_quotes_paths_with_spaces(folder, capsys):
    (folder / "two words").mkdir()
    run(folder, "two words/warp.nii.gz", "greedy")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("apply it by: "))
    files = [str(folder / "two words" / name) for name in ("warp.nii.gz", "warp_affine.mat")]
    assert shlex.split(line)[-3:] == ["-r", *files]


def test_what_half_the_resolution_loses_is_said(folder, capsys):
    run(folder, "T.npz", "learn2reg")
    said = capsys.readouterr().out
    mean, p99, most = (float(word) for word in re.findall(r"(\d+\.\d{3})", said[said.index("half resolution") :]))
    again = read_any(folder / "T.npz", FIXED, MOVING, "learn2reg").displacement_field()
    apart = (again - transform().displacement_field()).norm(dim=0).numpy()
    assert (mean, p99, most) == pytest.approx((apart.mean(), np.percentile(apart, 99), apart.max()), abs=1e-3)
    assert 0 < mean < p99 < most
    run(folder, "T.nii.gz", "learn2reg")
    assert "half resolution" not in capsys.readouterr().out
