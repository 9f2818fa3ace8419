import hashlib
import json
import os
import re
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.commands.apply import apply
from bundle.commands.register import register
from bundle.failures import bad_input
from bundle.io.itk_composites import read_transform
from bundle.spatial import Grid
from bundle.stages import STAGES as STAGES_TOLD
from matplotlib.image import imread

FILES = ["displacement.nii.gz", "overview.png", "registration.json", "report.html", "thumbnail.png", "transform.h5"]
FILES += ["warped.nii.gz"]
STAGES = ["read", "align", "network", "resample", "report", "write", "total"]


def save(array, affine, path):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return str(path)


def labelled(pair):
    return {k: v for k, v in pair.items() if not k.endswith("_mask")}


@pytest.fixture(scope="module")
def result(pair, weights, tmp_path_factory):
    """A registration with everything on, its folder and what it returned."""
    folder = tmp_path_factory.mktemp("registered") / "result"
    options = dict(weights=weights, affine="rigid", device="cpu", never_worse=False)
    return folder, register(**labelled(pair), output_dir=str(folder), **options)


def test_a_registration_writes_its_files_and_nothing_else(result):
    folder, _ = result
    assert sorted(p.name for p in folder.iterdir()) == sorted([*FILES, "warped_label.nii.gz"])
    assert json.loads((folder / "registration.json").read_text())["outputs"] == sorted(p.name for p in folder.iterdir())
    assert [p.name for p in folder.parent.iterdir()] == ["result"]


def test_the_summary_says_how_good_it_is_and_how_it_came_about(result, pair, weights):
    folder, returned = result
    summary = json.loads((folder / "registration.json").read_text())
    assert summary == returned
    for measure in ("similarity", "dice"):
        assert all(0 <= summary[f"{measure}_{stage}"] <= 1 for stage in ("before", "aligned", "after"))
    assert summary["dice_aligned"] > summary["dice_before"]
    assert summary["similarity_aligned"] > summary["similarity_before"]
    assert 0 <= summary["folding_percent"] < 1
    assert 1e-3 < summary["log_jacobian_sd"] < 1
    assert list(summary["seconds"]) == STAGES
    assert summary["seconds"]["total"] == pytest.approx(sum(summary["seconds"][s] for s in STAGES[:-1]), abs=1e-6)
    assert 100 < summary["peak_memory_mb"] < 20_000
    assert summary["versions"].keys() >= {"pan_registration", "python", "torch", "monai", "SimpleITK"}
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["weights_sha256"] == hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    assert (summary["moving"], summary["fixed"]) == (pair["moving"], pair["fixed"])
    assert summary["device"] == "cpu"
    rotation = np.array(summary["alignment_lps_mm"])[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("name", ["warped", "warped_label", "displacement"])
def test_what_is_written_lies_on_the_grid_of_the_fixed_image(result, pair, name):
    image, fixed = nibabel.load(result[0] / f"{name}.nii.gz"), nibabel.load(pair["fixed"])
    assert image.shape[:3] == fixed.shape
    assert np.allclose(image.affine, fixed.affine, atol=1e-4)
    assert np.asarray(image.dataobj).any()


def test_warped_labels_are_whole_numbers_of_the_moving_labels(result, pair):
    warped = nibabel.load(result[0] / "warped_label.nii.gz")
    assert warped.get_data_dtype() == np.uint8
    assert set(np.unique(warped.dataobj)) <= set(np.unique(nibabel.load(pair["moving_label"]).dataobj))
    assert len(np.unique(warped.dataobj)) > 15


def test_the_picture_shows_something(result):
    picture = imread(result[0] / "overview.png")
    assert picture.shape[:2] == (820, 2000)
    panels = picture[:750, :, :3].reshape(3, 250, 8, 250, 3).std((1, 3, 4))
    assert (panels > 0.02).all()  # none of the 3 × 8 is blank


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj).astype(np.float64)


def grid_of(path):
    image = nibabel.load(path)
    return Grid.from_ras(image.shape[:3], image.affine)


def test_apply_repeats_the_registration_from_its_transform_alone(result, pair, tmp_path):
    folder, _ = result
    for interpolation, moving, expected in (
        ("linear", pair["moving"], "warped.nii.gz"),
        ("label_gaussian", pair["moving_label"], "warped_label.nii.gz"),
    ):
        output = tmp_path / "new" / expected
        returned = apply(str(folder / "transform.h5"), moving, pair["fixed"], str(output), interpolation)
        assert returned == str(output)
        again, first = voxels(output), voxels(folder / expected)
        tolerance = 1e-4 * np.ptp(first) if interpolation == "linear" else 0
        assert np.abs(again - first).max() <= tolerance
        assert grid_of(output).is_close(grid_of(pair["fixed"]))


def resampled_by_itk(moving, fixed, folder):
    """What the README tells users of SimpleITK to write, as arrays: by transform.h5, and by displacement.nii.gz."""
    fill = json.loads((folder / "registration.json").read_text())["fill"]
    images = sitk.ReadImage(moving), sitk.ReadImage(fixed)
    vectors = sitk.ReadImage(str(folder / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    transforms = sitk.ReadTransform(str(folder / "transform.h5")), sitk.DisplacementFieldTransform(vectors)
    found = [sitk.Resample(*images, t, sitk.sitkLinear, fill, sitk.sitkFloat32) for t in transforms]
    return [sitk.GetArrayFromImage(image).astype(float) for image in found]


def ct_like(paths, folder):
    """A moving image of whole numbers, air of −1024, that covers a part of the fixed one."""
    image = nibabel.load(paths["moving"])
    part = image.slicer[6:-9, 8:, :-5]
    values = (np.asarray(part.dataobj) * 1.5 - 1024).astype(np.int16)
    return {"moving": save(values, part.affine, folder / "ct.nii.gz"), "fixed": paths["fixed"]}


def odd_headers(paths, folder):
    """A moving image whose forms disagree, and a fixed one without forms, in microns."""
    moving, fixed = (nibabel.load(paths[role]) for role in ("moving", "fixed"))
    turned = moving.affine.copy()
    turned[:3, 3] += 9, -4, 6
    moving.set_qform(turned, 1)
    moving.set_sform(moving.affine, 4)
    header = nibabel.Nifti1Image(np.zeros(fixed.shape, np.float32), None).header
    header["qform_code"], header["sform_code"], header["xyzt_units"] = 0, 0, 3
    header.set_zooms([4200, 4000, 4400])
    nibabel.save(moving, folder / "moving.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(fixed.dataobj), None, header), folder / "fixed.nii.gz")
    return {role: str(folder / f"{role}.nii.gz") for role in ("moving", "fixed")}


@pytest.mark.parametrize("make", [lambda paths, _: paths, ct_like, odd_headers])
def test_simpleitk_makes_the_warped_image_of_the_users_own_files_at_every_voxel(pair, weights, tmp_path, make):
    paths = make({role: pair[role] for role in ("moving", "fixed")}, tmp_path)
    folder = tmp_path / "out"
    options = dict(weights=weights, affine="center", device="cpu", never_worse=False, spacing_mm=5)
    summary = register(**paths, output_dir=str(folder), **options)
    warped = sitk.ReadImage(str(folder / "warped.nii.gz"))
    values = sitk.GetArrayFromImage(warped).astype(float)
    assert (values == summary["fill"]).mean() > 0.02  # the border counts
    # the image of displacements is float32: a voxel that lands on the very border of the moving image may miss it
    for by_itk, on_the_border in zip(resampled_by_itk(paths["moving"], paths["fixed"], folder), (0, 1)):
        assert (np.abs(values - by_itk) >= 1e-3 * np.ptp(values)).sum() <= on_the_border
    fixed = sitk.ReadImage(paths["fixed"])
    last = [n - 1 for n in fixed.GetSize()]
    ends = [image.TransformIndexToPhysicalPoint(last) for image in (warped, fixed)]
    assert np.allclose(*ends, atol=1e-3)
    assert np.allclose(nibabel.load(folder / "warped.nii.gz").affine, nibabel.load(paths["fixed"]).affine, atol=1e-3)


def test_the_fill_value_is_air_for_a_ct_and_what_the_user_asks_for(pair, weights, tmp_path):
    paths = ct_like({role: pair[role] for role in ("moving", "fixed")}, tmp_path)
    options = dict(weights=weights, affine="center", device="cpu", spacing_mm=9)
    air = voxels(paths["moving"]).min()
    assert air < -1000
    assert register(**paths, output_dir=str(tmp_path / "air"), **options)["fill"] == air
    assert register(**paths, output_dir=str(tmp_path / "asked"), fill=-3000, **options)["fill"] == -3000
    assert voxels(tmp_path / "asked" / "warped.nii.gz").min() == -3000


def test_what_a_header_leaves_open_is_printed_and_kept(pair, weights, tmp_path, capsys):
    paths = odd_headers({role: pair[role] for role in ("moving", "fixed")}, tmp_path)
    options = dict(weights=weights, affine="center", device="cpu", spacing_mm=9)
    notes = register(**paths, output_dir=str(tmp_path / "out"), **options)["notes"]
    assert [note.split()[0] for note in notes] == ["moving", "fixed"]
    printed = capsys.readouterr().out
    assert all(f"note: {note}\n" in printed for note in notes)


def test_large_labels_in_another_order_of_axes_give_the_same_result(result, pair, weights, tmp_path):
    folder, first = result
    ids = np.concatenate([[0], 614454277 + 7 * np.arange(300)]).astype(np.uint32)
    item = {role: pair[role] for role in ("moving", "fixed")}
    for role in item:
        label = nibabel.load(pair[f"{role}_label"])
        large = nibabel.Nifti1Image(ids[np.asarray(label.dataobj).astype(int)], label.affine)
        turned = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(label.affine), nibabel.orientations.axcodes2ornt("PSR")
        )
        path = tmp_path / f"{role}_label.nii.gz"
        nibabel.save(large.as_reoriented(turned), path)
        item = item | {f"{role}_label": str(path)}
    options = dict(weights=weights, affine="rigid", device="cpu", never_worse=False)
    again = register(**item, output_dir=str(tmp_path / "out"), **options)
    for stage in ("before", "aligned", "after"):
        assert again[f"dice_{stage}"] == pytest.approx(first[f"dice_{stage}"], abs=1e-6)
    small = np.asarray(nibabel.load(folder / "warped_label.nii.gz").dataobj)
    warped = nibabel.load(tmp_path / "out" / "warped_label.nii.gz")
    assert np.array_equal(np.asarray(warped.dataobj), ids[small])


@pytest.mark.parametrize("kind", ["empty", "another label at every voxel"])
def test_no_label_map_costs_a_registration(pair, fresh_weights, tmp_path, kind):
    item = {role: pair[role] for role in ("moving", "fixed")}
    for role in list(item):
        image = nibabel.load(pair[role])
        shape, affine = image.shape, image.affine
        values = np.arange(np.prod(shape)).reshape(shape) * 100_003 if "another" in kind else np.zeros(shape, int)
        path = tmp_path / f"{role}_label.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values, affine, dtype=np.int64), path)
        item = item | {f"{role}_label": str(path)}
    options = dict(weights=str(fresh_weights), affine="none", device="cpu", spacing_mm=9)
    found = register(**item, output_dir=str(tmp_path / "out"), **options)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*FILES, "warped_label.nii.gz"])
    assert found["dice_after"] is None if kind == "empty" else 0 <= found["dice_after"] < 0.1


def test_a_field_that_aligns_nothing_is_dropped_and_the_user_told(pair, weights, tmp_path, capsys):
    images = {role: pair[role] for role in ("moving", "fixed")}
    summary = register(**images, output_dir=str(tmp_path / "out"), weights=weights, affine="rigid", device="cpu")
    assert summary["field_dropped"] == 1
    assert summary["similarity_after"] == summary["similarity_aligned"]
    assert summary["max_field_displacement_mm"] == 0
    assert "dropped" in capsys.readouterr().out


def test_noise_onto_a_head_is_not_plausible_and_the_user_told_why(pair, weights, tmp_path, capsys):
    image = nibabel.load(pair["fixed"])
    noise = np.random.default_rng(0).random(image.shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, image.affine), tmp_path / "noise.nii.gz")
    images = {"moving": str(tmp_path / "noise.nii.gz"), "fixed": pair["fixed"]}
    found = register(**images, output_dir=str(tmp_path / "out"), weights=weights, affine="none", device="cpu")
    assert found["verdict"] == "not plausible"
    assert any(sentence.startswith("foreground_similarity is ") for sentence in found["limits_missed"])
    said = capsys.readouterr().out
    assert "verdict: not plausible; " in said
    assert all(sentence in said for sentence in found["limits_missed"])


def test_optimised_images_are_more_alike_and_nothing_folds(pair, fresh_weights, tmp_path):
    found = register(**pair, weights=str(fresh_weights), output_dir=str(tmp_path), affine="none", optimise=5)
    assert found["similarity_after"] > found["similarity_aligned"]
    assert found["folding_percent"] == 0


def test_the_written_field_is_the_written_transform(result, pair):
    folder, _ = result
    transform = read_transform(folder / "transform.h5", grid_of(pair["fixed"]), grid_of(pair["moving"]))
    vectors = np.moveaxis(voxels(folder / "displacement.nii.gz")[:, :, :, 0], -1, 0)
    assert np.abs(vectors - transform.displacement_field().numpy()).max() < 1e-3
    by_alignment = transform.without_field().displacement_field().numpy()
    assert np.linalg.norm(vectors - by_alignment, axis=0).max() > 2  # mm: there is a field to get wrong
    assert np.abs(by_alignment).max() > 2


def test_the_report_tells_of_this_registration_and_is_left_out_on_request(
    result, pair, fresh_weights, tmp_path, capsys
):
    folder, _ = result
    summary = json.loads((folder / "registration.json").read_text())
    page = (folder / "report.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
    assert data["judgement"] == summary["judgement"]
    assert (data["judgement"]["level"] == "failed") == (summary["verdict"] == "not plausible")
    assert data["summary"]["weights_sha256"] == summary["weights_sha256"]
    assert data["summary"]["command"] == summary["command"]
    assert {"fixed_label", "moving_label", "aligned_label", "warped_label"} <= data["volumes"].keys()
    assert len(page) < 15e6

    images = {role: pair[role] for role in ("moving", "fixed")}
    options = dict(weights=str(fresh_weights), affine="none", device="cpu", spacing_mm=9)
    (tmp_path / "report.html").touch()  # left there by an earlier registration
    register(**images, **options, output_dir=str(tmp_path), report=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({*FILES} - {"report.html", "thumbnail.png"})
    assert "report.html" not in capsys.readouterr().out


def test_an_initial_transform_stands_for_the_alignment_and_a_fresh_network_leaves_it(pair, fresh_weights, tmp_path):
    initial = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.05, -0.03, 0.04, (3.0, -5.0, 2.0))
    sitk.WriteTransform(initial, str(tmp_path / "initial.tfm"))
    masked = {k: v for k, v in pair.items() if not k.endswith("_label")}
    initial_path = str(tmp_path / "initial.tfm")
    # the images are not alike enough under it for one contrast: no optimisation
    options = dict(initial_transform=initial_path, weights=str(fresh_weights), device="cpu", spacing_mm=6, optimise=0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "warped_label.nii.gz").touch()  # left there by an earlier registration
    summary = register(**masked, **options, output_dir=str(tmp_path / "out"))
    matrix = np.array(summary["alignment_lps_mm"])
    point = (12.0, -34.0, 56.0)
    assert np.allclose(matrix[:3, :3] @ point + matrix[:3, 3], initial.TransformPoint(point))
    assert np.allclose(summary["field_grid"]["spacing_mm"], 6)
    assert summary["folding_percent"] == 0
    assert summary["log_jacobian_sd"] < 1e-3
    assert 0 <= summary["mean_field_displacement_mm"] <= summary["max_field_displacement_mm"] < 0.1  # a fresh network
    assert summary["max_displacement_mm"] > 5  # the alignment's
    assert summary["similarity_after"] == pytest.approx(summary["similarity_aligned"], abs=1e-3)
    assert not any(name.startswith("dice") for name in summary)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES  # no label, no warped label


@pytest.mark.parametrize("sign", ["", "a@#b%#c/", "p@##4#"])
def test_a_path_is_a_path_whatever_it_starts_with_or_holds(pair, weights, tmp_path, monkeypatch, sign):
    monkeypatch.chdir(tmp_path)
    Path(sign).mkdir(exist_ok=True)
    moving, fixed, model, out = (sign + name for name in ("$moving.nii.gz", "@fixed.nii.gz", "%model.pt", "%out"))
    for name, role in ((moving, "moving"), (fixed, "fixed")):
        Path(name).write_bytes(Path(pair[role]).read_bytes())
    os.link(weights, model)
    before = set(tmp_path.rglob("*"))
    summary = register(moving, fixed, out, weights=model, affine="center", device="cpu", spacing_mm=9)
    assert Path(summary["moving"]) == tmp_path / moving
    assert sorted(p.name for p in (tmp_path / out).iterdir()) == FILES
    assert {p for p in tmp_path.rglob("*") if p.parent != tmp_path / out} == before | {tmp_path / out}


def test_a_log_is_told_the_stages_and_what_is_left(pair, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bundle.progress.QUICK", 0.0)
    register(pair["moving"], pair["fixed"], str(tmp_path), weights=weights, affine="center", device="cpu")
    told = re.findall(r"registering: (.*), \d\d:\d\d so far, about \d\d:\d\d left", capsys.readouterr().err)
    assert [stage for stage in dict.fromkeys(told) if stage != "reading and aligning"] == list(STAGES_TOLD[1:])


def test_a_registration_that_fails_leaves_no_clock_running(pair, weights, tmp_path):
    image = nibabel.load(pair["moving"])
    far = image.affine + np.array([[0, 0, 0, 5000]] * 3 + [[0, 0, 0, 0]])
    moving = save(np.asarray(image.dataobj), far, tmp_path / "far.nii.gz")
    threads = threading.active_count()
    with pytest.raises(ValueError, match="share no physical space"):
        register(moving, pair["fixed"], str(tmp_path / "out"), weights=weights, affine="none", device="cpu")
    assert threading.active_count() == threads


def test_from_python_paths_are_taken_and_a_missing_file_is_an_error_of_its_own(pair, weights, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^The moving \(.*none\.nii\.gz\) does not exist") as failure:
        register(tmp_path / "none.nii.gz", Path(pair["fixed"]), tmp_path / "out", weights=Path(weights), device="cpu")
    assert bad_input(failure.value) == str(failure.value)
