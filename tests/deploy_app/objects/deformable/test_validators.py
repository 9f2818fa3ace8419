"""Our objects before other programs: dciodvfy and dcentvfy (dicom3tools), plastimatch, dcmconv (dcmtk)."""

import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from panreg.objects.deformable.reader import read_deformable_registration
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.objects.registered_series import warp_moving, write_registered_series
from panreg.settings import DeformableSettings, Settings
from synthetic import displacement, phantom_registration, provenance_of

pytestmark = pytest.mark.debian

# DeviceUID is newer than the validator; ImageType value 4 is free; Rescale in MR Image is a standard extension
ALLOWED = ("DeviceUID", "ImageType(0008,0008)[4]", "Rescale")


def complaints(path):
    """Errors and unexpected warnings of dciodvfy about a file."""
    lines = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True).stderr.splitlines()
    return [x for x in lines if x.startswith("Error") or (x.startswith("Warning") and not any(a in x for a in ALLOWED))]


@pytest.fixture(scope="module", params=["MR", "CT", "MR with a slope", "MR in one study"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    one = {"study": "one", "frame_of_reference": "one"} if "one" in request.param else {}
    registration = phantom_registration(folder, modality=request.param[:2], **one)
    if "slope" in request.param:
        registration.moving_values[:] *= 0.37
    provenance = provenance_of(registration.fixed, registration.moving)
    settings = Settings(deformable=DeformableSettings(spacing_mm=3.0, two_items="one" in request.param))
    paths = write_registered_series(registration, provenance, settings, folder / "registered", provenance.uid("dsro"))
    write_deformable_registration(registration, provenance, settings, folder / "deformable.dcm")
    return registration, paths, folder / "deformable.dcm"


def test_dciodvfy_finds_no_error_in_the_registered_series(run):
    assert [complaints(path) for path in run[1][::6]] == [[], [], [], []]


def test_dciodvfy_finds_no_error_in_the_registration_object(run):
    assert complaints(run[2]) == []


def test_dciodvfy_finds_an_error_in_a_broken_object(run, tmp_path):
    dataset = pydicom.dcmread(run[2])
    del dataset.ContentLabel
    dataset.save_as(tmp_path / "x.dcm")
    assert complaints(tmp_path / "x.dcm")


def test_dcentvfy_finds_the_output_consistent_with_the_fixed_study(run):
    files = [str(frame.path) for frame in run[0].fixed.frames] + [str(path) for path in (*run[1], run[2])]
    found = subprocess.run(["dcentvfy", *files], capture_output=True, text=True)
    assert found.stdout + found.stderr == ""


def test_a_big_endian_copy_by_dcmtk_reads_the_same(run, tmp_path):
    subprocess.run(["dcmconv", "+te", "+tb", str(run[2]), str(tmp_path / "big.dcm")], check=True)
    theirs, ours = (read_deformable_registration(path).deforming.grid for path in (tmp_path / "big.dcm", run[2]))
    assert np.array_equal(theirs.vectors, ours.vectors)
    assert np.array_equal(theirs.affine, ours.affine)


def sitk_image(values, affine, vector=False):
    image, sides = sitk.GetImageFromArray(values, isVector=vector), np.linalg.norm(affine[:3, :3], axis=0)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(sides.tolist())
    image.SetDirection((affine[:3, :3] / sides).ravel().tolist())
    return image


@pytest.mark.property(9)
def test_plastimatch_warps_by_the_stored_field_to_the_same_picture(run, tmp_path):
    registration, _, path = run
    grid = read_deformable_registration(path).deforming.grid
    names = {name: str(tmp_path / f"{name}.mha") for name in ("field", "moving", "fixed", "warped")}
    sitk.WriteImage(sitk_image(grid.vectors, grid.affine, vector=True), names["field"])
    sitk.WriteImage(sitk_image(registration.moving_values, registration.moving.affine), names["moving"])
    sitk.WriteImage(
        sitk_image(np.zeros(registration.fixed.shape, np.float32), registration.fixed.affine), names["fixed"]
    )
    options = ["--input", names["moving"], "--xf", names["field"], "--fixed", names["fixed"], "--output-img"]
    command = ["plastimatch", "convert", *options, names["warped"], "--default-value", "-9999"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(names["warped"]))
    ours, inside = warp_moving(registration, -9999)
    inner = inside & (theirs > -9999)
    inner[[0, -1]] = inner[:, [0, -1]] = inner[:, :, [0, -1]] = False
    assert inner.mean() > 0.4
    assert np.abs(theirs - ours)[inner].mean() < 0.1
    points = registration.fixed.points()
    assert np.abs(displacement(points)).max() > 4  # the identity would not do


def test_plastimatch_s_own_export_of_the_field_moves_points_as_our_object_does(run, tmp_path):
    registration, _, path = run
    ours = read_deformable_registration(path)
    field = str(tmp_path / "field.mha")
    sitk.WriteImage(sitk_image(ours.deforming.grid.vectors, ours.deforming.grid.affine, vector=True), field)
    command = ["plastimatch", "xf-convert", "--input", field, "--fixed", field, "--output-type", "vf"]
    for role in ("fixed", "moving"):
        command += [f"--{role}-rcs", str(getattr(registration, role).frames[0].path.parent)]
    subprocess.run([*command, "--output-dicom", str(tmp_path / "export")], check=True, capture_output=True)
    (exported,) = (tmp_path / "export").iterdir()
    theirs = read_deformable_registration(exported)
    assert theirs.deforming.source_uid == registration.moving.frame_of_reference_uid
    points = registration.fixed.points()[4:-4, 6:-6, 6:-6]
    expected = ours.displacement_at(points)
    assert (theirs.displacement_at(points) - expected).abs().max() < 1e-4
    assert expected.abs().max() > 4
