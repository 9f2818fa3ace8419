"""Transforms in a row, turned around, on several volumes, and interpolated by splines; beside SimpleITK."""

import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.__main__ import main
from bundle.commands.apply import apply
from bundle.commands.apply_points import apply_points
from bundle.commands.compose import compose
from bundle.commands.convert import convert
from bundle.commands.invert import invert
from bundle.commands.jacobian import jacobian
from bundle.commands.reading import read_chain, read_one
from bundle.io.images import write_image
from bundle.io.itk import grid_from_itk, write_transform
from bundle.spatial import SpatialTransform, invert_points, ras_from_lps
from tests.commands.chained import FIXED, MOVING, composite, picture, write_chain
from tests.spatial.oblique import indices_of, linear_map


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_chain(tmp_path_factory.mktemp("chain"))


def run(folder, transform, output="out.nii.gz", moving="moving.nii.gz", fixed="fixed.nii.gz", **options):
    names = ",".join(str(folder / name) for name in transform)
    apply(names, str(folder / moving), str(folder / fixed), str(folder / output), **options)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / output)))


def by_itk(folder, transforms, how=sitk.sitkLinear, moving="moving.nii.gz"):
    composite = sitk.CompositeTransform([sitk.ReadTransform(str(folder / name)) for name in transforms])
    image, reference = sitk.ReadImage(str(folder / moving)), sitk.ReadImage(str(folder / "fixed.nii.gz"))
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, composite, how, 0.0))


def test_transforms_in_a_row_are_itk_s_composite_and_the_image_is_interpolated_once(folder):
    chain = ["t0.h5", "t1.h5"]
    np.testing.assert_allclose(run(folder, chain, fill=0.0), by_itk(folder, chain), atol=2e-3)


def test_a_path_with_a_comma_is_one_transform_if_there_is_such_a_file(folder):
    np.testing.assert_allclose(run(folder, ["linear,5.h5"], fill=0.0), by_itk(folder, ["linear,5.h5"]), atol=2e-3)


def test_splines_are_itk_s_up_to_the_border_and_beyond_it(folder):
    found = run(folder, ["t0.h5"], interpolation="bspline", fill=0.0)
    np.testing.assert_allclose(found, by_itk(folder, ["t0.h5"], sitk.sitkBSpline), atol=5e-3)
    assert (found == 0).any()


def test_each_volume_of_a_series_goes_by_the_same_transform_and_the_time_between_them_stays(folder):
    run(folder, ["t0.h5"], "series_out.nii.gz", "series.nii.gz", fill=0.0)
    result = nibabel.load(folder / "series_out.nii.gz")
    assert (result.shape, result.header.get_zooms()[3]) == ((*FIXED.shape, 3), 2.5)
    assert result.header.get_xyzt_units() == ("mm", "sec")
    for n in range(3):
        write_image(torch.from_numpy(picture(MOVING.shape, n))[None], MOVING, folder / "one.nii.gz")
        one = by_itk(folder, ["t0.h5"], moving="one.nii.gz").transpose(2, 1, 0)
        np.testing.assert_allclose(result.get_fdata()[..., n], one, atol=2e-3)
    series = nibabel.load(folder / "series.nii.gz")
    header = nibabel.MGHImage(series.get_fdata(dtype=np.float32), series.affine).header
    header.set_zooms((*header.get_zooms()[:3], 2500.0))
    nibabel.save(nibabel.MGHImage(series.get_fdata(dtype=np.float32), series.affine, header), folder / "series.mgz")
    run(folder, ["t0.h5"], "mgz_out.nii.gz", "series.mgz", fill=0.0)
    of_mgz = nibabel.load(folder / "mgz_out.nii.gz")
    assert (of_mgz.header.get_zooms()[3], of_mgz.header.get_xyzt_units()) == (2500.0, ("mm", "msec"))
    np.testing.assert_allclose(of_mgz.get_fdata(), result.get_fdata(), atol=1e-4)
    run(folder, ["t0.h5"], "series_out.mha", "series.nii.gz", fill=0.0)
    as_mha = sitk.ReadImage(str(folder / "series_out.mha"))
    assert (as_mha.GetSize(), as_mha.GetSpacing()[3]) == ((*FIXED.shape, 3), 2.5)
    assert grid_from_itk(as_mha[:, :, :, 0]).is_close(FIXED)
    run(folder, ["t0.h5"], "series_out.nrrd", "series.mgz", fill=0.0)
    assert sitk.ReadImage(str(folder / "series_out.nrrd")).GetSpacing()[3] == 2.5  # s, which MGH counts in ms
    for unit, step in {"msec": 2500.0, "usec": 2.5e6, "sec": 2.5}.items():
        series.header.set_zooms((*series.header.get_zooms()[:3], step))
        series.header.set_xyzt_units("mm", unit)
        nibabel.save(series, folder / "unit.nii.gz")
        run(folder, ["t0.h5"], "series_out.mha", "unit.nii.gz", fill=0.0)
        by_itk_itself = sitk.ReadImage(str(folder / "unit.nii.gz")).GetSpacing()[3]
        spacing = sitk.ReadImage(str(folder / "series_out.mha")).GetSpacing()[3]
        np.testing.assert_allclose([spacing, by_itk_itself], 2.5, rtol=1e-6)


def test_the_inverse_brings_an_image_of_the_fixed_side_to_where_the_inverted_transform_does(folder, capsys):
    residual = invert(str(folder / "t0.h5"), str(folder / "moving.nii.gz"), str(folder / "fixed.nii.gz"))
    assert 0 < residual["mean_mm"] < 0.2
    assert "|p − T⁻¹(T(p))| of inverse.h5" in capsys.readouterr().out
    options = {"moving": "fixed.nii.gz", "fixed": "moving.nii.gz", "fill": 0.0}
    by_inverse = run(folder, ["t0.h5"], inverse=[True], **options)
    by_field = run(folder, ["inverse_displacement.nii.gz"], **options)
    by_lattice = run(folder, ["inverse.h5"], **options)
    np.testing.assert_allclose(by_inverse, by_field, atol=0.05)
    inner = (by_inverse != 0) & (by_lattice != 0)
    assert inner.mean() > 0.05
    assert np.abs(by_inverse - by_lattice)[inner].mean() < 1.5  # of a range of about 100
    reference = sitk.ReadImage(str(folder / "moving.nii.gz"))
    itk = sitk.Resample(
        sitk.ReadImage(str(folder / "fixed.nii.gz")), reference, sitk.ReadTransform(str(folder / "inverse.h5"))
    )
    np.testing.assert_allclose(by_lattice, sitk.GetArrayFromImage(itk), atol=2e-3)


def test_there_and_back_in_a_row_moves_nothing(folder):
    there_and_back = run(folder, ["t0.h5", "t0.h5"], moving="fixed.nii.gz", inverse=[True, False], fill=0.0)
    fixed = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "fixed.nii.gz")))
    np.testing.assert_allclose(there_and_back, fixed, atol=0.2)


@pytest.mark.parametrize("ending", [".h5", ".nii.gz"])
def test_a_composed_transform_does_what_its_parts_do(folder, ending):
    chain = ["t0.h5", "linear5.h5", "t1.h5"]
    (folder / "linear5.h5").write_bytes((folder / "linear,5.h5").read_bytes())
    names = ",".join(str(folder / name) for name in chain)
    compose(names, str(folder / "moving.nii.gz"), str(folder / "fixed.nii.gz"), str(folder / f"whole{ending}"))
    np.testing.assert_allclose(run(folder, [f"whole{ending}"], fill=0.0), by_itk(folder, chain), atol=2e-2)


def test_flags_for_another_number_of_transforms_are_refused(folder):
    with pytest.raises(ValueError, match="--inverse takes one value or 2, one for each transform, not 3"):
        run(folder, ["t0.h5", "t1.h5"], inverse=[True, False, True])


def test_composing_to_another_format_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.h5 or \.nii\.gz"):
        compose("missing.h5", "m.nii.gz", "f.nii.gz", str(tmp_path / "whole.mat"))


@pytest.mark.parametrize("command", ["jacobian", "compose", "invert", "apply_points"])
def test_what_a_header_leaves_open_is_noted_by_every_command_that_reads_it(folder, tmp_path, command, capsys):
    for name in ("fixed.nii.gz", "moving.nii.gz"):
        image = nibabel.load(folder / name)
        image.header["qform_code"], image.header["sform_code"] = 0, 0
        nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), tmp_path / name)
    transform, fixed, moving = str(folder / "t0.h5"), str(tmp_path / "fixed.nii.gz"), str(tmp_path / "moving.nii.gz")
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    if command == "jacobian":
        jacobian(transform, fixed, str(tmp_path / "j.nii.gz"), moving=moving)
    elif command == "compose":
        compose(transform, moving, fixed, str(tmp_path / "c.h5"))
    elif command == "invert":
        field = SpatialTransform(np.eye(4), None, FIXED, FIXED, MOVING)
        write_transform(field, tmp_path / "t.h5")
        invert(str(tmp_path / "t.h5"), moving, fixed)
    else:
        points = str(tmp_path / "p.csv")
        apply_points(transform, points, str(tmp_path / "q.csv"), "fixed", "lps", moving=moving, fixed=fixed)
    out = capsys.readouterr().out
    for name, path in {"moving image": moving, "fixed image": fixed}.items():
        assert f"note: {name} ({path}): its header has no orientation" in out


BY_ITK = {
    "linear": sitk.sitkLinear,
    "bspline": sitk.sitkBSpline,
    "nearest": sitk.sitkNearestNeighbor,
    "label_gaussian": sitk.sitkNearestNeighbor,
}


@pytest.mark.parametrize("how", BY_ITK)
def test_a_single_slice_is_resampled_where_it_lies(folder, how):
    middle = MOVING.plane(2, 15)
    values = np.round(picture(middle.shape, 4)) + 400
    write_image(torch.from_numpy(values)[None], middle, folder / "slice.nii.gz")
    result = run(folder, ["linear,5.h5"], moving="slice.nii.gz", interpolation=how)
    expected = by_itk(folder, ["linear,5.h5"], BY_ITK[how], moving="slice.nii.gz")
    assert (expected != 0).sum() > 20
    assert np.array_equal(result != 0, expected != 0)
    if how == "label_gaussian":
        assert np.isin(result[result != 0], values).all()
    else:
        np.testing.assert_allclose(result, expected, atol=1e-3)
    flat = sitk.Image(20, 20, sitk.sitkFloat32) + 1
    sitk.WriteImage(flat, str(folder / "plane.mha"))
    with pytest.raises(ValueError, match=r"moving image \(.*plane\.mha\) is no volume but has 2 axes"):
        run(folder, ["linear,5.h5"], moving="plane.mha")


def test_a_spline_before_another_transform_is_to_be_converted_first(folder, tmp_path):
    transform, _ = composite("spline, affine")
    sitk.WriteTransform(transform, str(tmp_path / "spline.h5"))
    names = f"{tmp_path / 'spline.h5'},{folder / 't0.h5'}"
    images = (str(folder / "moving.nii.gz"), str(folder / "fixed.nii.gz"))
    with pytest.raises(ValueError, match=r"spline\.h5\) is sampled .*, of one among several, first convert it"):
        apply(names, *images, str(tmp_path / "o.nii.gz"))


def test_inverse_is_a_flag_of_the_command_line(folder, monkeypatch):
    line = ["bundle", "apply", "--transform", str(folder / "t0.h5"), "--moving", str(folder / "fixed.nii.gz")]
    line += ["--fixed", str(folder / "moving.nii.gz"), "--output", str(folder / "cli.nii.gz"), "--inverse"]
    monkeypatch.setattr("sys.argv", line)
    main()
    expected = run(folder, ["t0.h5"], moving="fixed.nii.gz", fixed="moving.nii.gz", inverse=[True])
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "cli.nii.gz"))), expected)


def test_an_inverse_never_overwrites_its_own_transform(folder, tmp_path):
    (tmp_path / "inverse.h5").write_bytes((folder / "t0.h5").read_bytes())
    with pytest.raises(ValueError, match=r"The transform .* would be overwritten by the output"):
        invert(str(tmp_path / "inverse.h5"), str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz"))
    assert [path.name for path in tmp_path.iterdir()] == ["inverse.h5"]


def test_a_transform_of_other_images_is_not_inverted(folder, tmp_path):
    far = np.eye(4)
    far[:3, 3] = 1000
    write_transform(SpatialTransform(far, None, FIXED, FIXED, MOVING), tmp_path / "far.h5")
    with pytest.raises(ValueError, match=r"far\.h5\) takes nothing that the fixed image .* into the moving image"):
        invert(str(tmp_path / "far.h5"), str(folder / "moving.nii.gz"), str(folder / "fixed.nii.gz"))
    assert [path.name for path in tmp_path.iterdir()] == ["far.h5"]


def test_a_result_that_shows_nothing_of_the_image_is_noted(folder, capsys):
    far = np.eye(4)
    far[:3, 3] = 1000
    write_transform(SpatialTransform(far, None, FIXED, FIXED, MOVING), folder / "far.h5")
    run(folder, ["far.h5"])
    assert "no voxel of the result shows anything of the image" in capsys.readouterr().out
    run(folder, ["t0.h5"])
    assert "no voxel" not in capsys.readouterr().out


# --- from Python ---


def test_paths_and_lists_of_them_are_taken_for_text(folder, tmp_path):
    moving, fixed, field = folder / "moving.nii.gz", folder / "fixed.nii.gz", folder / "t0.h5"
    for n, given in enumerate((field, [field], [str(field)])):
        apply(given, moving, fixed, tmp_path / f"{n}.nii.gz", fill=0.0)
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{n}.nii.gz")))
        np.testing.assert_allclose(found, by_itk(folder, ["t0.h5"]), atol=2e-3)
    convert(field, moving, fixed, tmp_path / "c.nii.gz", to="ants")
    jacobian(field, fixed, tmp_path / "j.nii.gz", moving=moving)
    invert(field, moving, fixed, tmp_path / "back")
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    apply_points(field, tmp_path / "p.csv", tmp_path / "q.csv", "fixed", "lps", moving=moving, fixed=fixed)
    written = {"c.nii.gz", "j.nii.gz", "q.csv", "back"}
    assert written <= {path.name for path in tmp_path.iterdir()}


def test_in_a_list_commas_are_of_names(folder, tmp_path):
    images = [folder / "moving.nii.gz", folder / "fixed.nii.gz"]
    chain = [tmp_path / "a.h5,b.h5", tmp_path / "c.h5"]
    for path, name in zip(chain, ("t0.h5", "t1.h5")):
        path.write_bytes((folder / name).read_bytes())
    output = compose(chain, *images, tmp_path / "whole.h5", inverse=[False, False])
    assert output == str(tmp_path / "whole.h5")
    found = run(folder, [output], fill=0.0)
    np.testing.assert_allclose(found, by_itk(folder, ["t0.h5", "t1.h5"]), atol=2e-2)


def test_lists_that_name_no_transform_or_one_too_many_are_refused_in_a_sentence(folder, tmp_path):
    images = [folder / "moving.nii.gz", folder / "fixed.nii.gz"]
    with pytest.raises(ValueError, match="The list of transforms is empty: give at least one"):
        compose([], *images, tmp_path / "whole.h5")
    with pytest.raises(ValueError, match=r"One transform is taken here, not a list \(.*t0\.h5, .*t1\.h5\): .* compose"):
        jacobian([folder / "t0.h5", folder / "t1.h5"], images[1], tmp_path / "j.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"The transform \(.*none,\.h5\) does not exist"):
        apply([folder / "t0.h5", folder / "none,.h5"], *images, tmp_path / "o.nii.gz")
    with pytest.raises(ValueError, match=r"The transform \(.*t0\.h5\) would be overwritten"):
        compose([folder / "t1.h5", folder / "t0.h5"], *images, folder / "t0.h5")
    assert not list(tmp_path.iterdir())


# --- commas ---


def files(folder, *names):
    for name in names:
        write_transform(SpatialTransform(linear_map(2), None, FIXED, FIXED, MOVING), folder / name)
    return folder


def test_a_comma_in_the_name_of_one_of_several_files_is_told_from_those_between_them(folder, tmp_path):
    for path in ("t0.h5", "t1.h5"):
        (tmp_path / f"a,{path}").write_bytes((folder / path).read_bytes())
    for chain in (["a,t0.h5", "a,t1.h5"], ["a,t0.h5", str(folder / "t1.h5")], [str(folder / "t0.h5"), "a,t1.h5"]):
        names = [str(tmp_path / name) for name in chain]
        found = run(folder, names, fill=0.0)
        np.testing.assert_allclose(found, by_itk(folder, names), atol=2e-3)
    output = compose(
        f"{tmp_path / 'a,t0.h5'}, {tmp_path / 'a,t1.h5'}",
        *(str(folder / f"{role}.nii.gz") for role in ("moving", "fixed")),
        str(tmp_path / "whole,1.h5"),
    )
    assert output.endswith("whole,1.h5")


def test_commas_that_may_be_of_a_name_or_between_two_are_asked_about(tmp_path, monkeypatch):
    monkeypatch.chdir(files(tmp_path, "a.h5", "b.h5", "a.h5,b.h5"))
    with pytest.raises(ValueError, match=r"\(a\.h5,b\.h5\) may be a\.h5 and b\.h5, or a\.h5,b\.h5") as caught:
        read_chain("a.h5,b.h5", False)
    assert "other names" in str(caught.value)


def test_of_a_list_the_missing_file_is_named_together_with_what_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(files(tmp_path, "a.h5"))
    with pytest.raises(FileNotFoundError, match=r"Of the transforms given \(a\.h5, b\.h5\), .* 'b\.h5' is no file"):
        read_chain("a.h5, b.h5", False)
    with pytest.raises(FileNotFoundError, match=r"The transform \(b\.h5\) does not exist"):
        read_chain("b.h5", False)


def test_several_transforms_where_one_is_taken_are_refused_as_they_were_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(files(tmp_path, "a.h5", "b.h5"))
    with pytest.raises(ValueError, match=r"One transform is taken here, not several \(a\.h5,b\.h5\): .* by compose"):
        read_one("a.h5,b.h5")
    with pytest.raises(FileNotFoundError, match=r"The transform \(a\.h5,c\.h5\) does not exist"):
        read_one("a.h5,c.h5")


@pytest.mark.parametrize("interpolation", ["nearest", "label_gaussian"])
def test_a_fill_value_for_labels_is_refused_but_for_the_0_that_they_have(folder, interpolation):
    with pytest.raises(ValueError, match=f"--fill is for images: with --interpolation {interpolation} it is 0"):
        run(folder, ["t0.h5"], interpolation=interpolation, fill=7.0)
    (folder / "label.nii.gz").unlink(missing_ok=True)
    write_image((torch.rand(1, *MOVING.shape) * 5).byte(), MOVING, folder / "label.nii.gz")
    found = run(folder, ["t0.h5"], moving="label.nii.gz", interpolation=interpolation, fill=0.0)
    assert found.min() == 0


def slipping(folder):
    """A field that takes all its points away from one side of the fixed image, as transform.h5."""
    ddf = torch.zeros(3, *FIXED.shape)
    ddf[1] = 3.0
    write_transform(SpatialTransform(np.eye(4), ddf, FIXED, FIXED, MOVING), folder / "slip.h5")
    return folder / "slip.h5"


UNREACHED = r"note: no point of the field comes to about \d\S* % of the voxels"


def test_voxels_that_the_field_does_not_reach_are_said_and_the_two_inverses_are_one_there(folder, tmp_path, capsys):
    transform = str(slipping(tmp_path))
    moving, fixed = str(folder / "moving.nii.gz"), str(folder / "fixed.nii.gz")
    invert(transform, moving, fixed)
    assert re.search(UNREACHED, capsys.readouterr().out)
    field, lattice = (read_one(str(tmp_path / n)) for n in ("inverse_displacement.nii.gz", "inverse.h5"))
    on_moving = lattice.displacement_field(MOVING)
    inner = torch.from_numpy(is_inside_of(lattice.field_grid))
    assert (field.displacement_field(MOVING) - on_moving)[:, inner].abs().max() < 1e-3
    run(folder, [transform], moving="fixed.nii.gz", fixed="moving.nii.gz", inverse=[True])
    assert re.search(UNREACHED, capsys.readouterr().out)
    compose(transform, fixed, moving, str(tmp_path / "c.nii.gz"), inverse=[True])
    assert re.search(UNREACHED, capsys.readouterr().out)
    run(folder, [transform])
    assert "no point of the field" not in capsys.readouterr().out


def is_inside_of(grid):
    index = grid.to_index(MOVING.to_points(indices_of(MOVING)))
    return ((index >= 0) & (index <= np.array(grid.shape) - 1)).all(-1)


def colours(path, grid):
    values = np.zeros(grid.shape, np.dtype([(c, "u1") for c in "RGB"]))
    nibabel.save(nibabel.Nifti1Image(values, ras_from_lps(grid.affine)), path)


def series_with_nan(path, grid):
    values = np.stack([picture(grid.shape, seed) for seed in range(2)], -1)
    values[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, ras_from_lps(grid.affine)), path)


def constant(path, grid):
    nibabel.save(nibabel.Nifti1Image(np.full(grid.shape, 7.0), ras_from_lps(grid.affine)), path)


@pytest.mark.parametrize(
    ("write", "grid"),
    [(colours, FIXED), (series_with_nan, FIXED), (constant, FIXED), (constant, FIXED.plane(2, 6))],
    ids=["colours", "series with NaN", "constant", "single slice"],
)
def test_whatever_the_fixed_image_holds_a_transform_is_inverted(folder, tmp_path, write, grid, capsys):
    write(tmp_path / "fixed.nii.gz", grid)
    result = invert(str(folder / "t0.h5"), str(folder / "moving.nii.gz"), str(tmp_path / "fixed.nii.gz"), str(tmp_path))
    assert 0 < result["mean_mm"] < 0.3
    assert "nan" not in capsys.readouterr().out
    expected = invert_points(read_one(str(folder / "t0.h5")), MOVING.to_points([[13.0, 12, 15]]))[0]
    found = read_one(str(tmp_path / "inverse_displacement.nii.gz"))
    there = MOVING.to_points([[13.0, 12, 15]])
    assert np.abs(there + found.displacement_at(there).numpy() - expected).max() < 1e-3
