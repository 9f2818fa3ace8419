"""The whole application, as a platform starts it: folders in, exit code and folders out."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bundle
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from canaries import found, found_below, plant
from deformable_reader import read_deformable_registration
from provenance import VERSION
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from segments import masks_on, write_segmentation
from synthetic import MOVING_AFFINE, MOVING_SHAPE, affine_of, points_of, stack_of, write_phantom_pair, write_series

ROOT = Path(__file__).parents[2]
DEFORMABLE, SEG, MR, SR, SC = (
    "1.2.840.10008.5.1.4.1.1.66.3",
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.7",
)


def run(source, output, *options, models=ROOT, script="", **settings):
    """Start the application; settings are environment variables without their prefix."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PANREG_", "HOLOSCAN_"))}
    environment |= {f"PANREG_{name}": str(value) for name, value in settings.items()} | {"OMP_NUM_THREADS": "2"}
    line = [sys.executable, ROOT / "deploy_app", "-i", source, "-o", output, "-m", models, *options]
    return subprocess.run([*map(str, line)], capture_output=True, text=True, env=environment, timeout=600)


def manifest_of(output):
    return json.loads((output / "run_manifest.json").read_text())


def objects_of(output, sop_class):
    paths = (output / entry["path"] for entry in manifest_of(output)["outputs"] if entry["sop_class_uid"] == sop_class)
    return [pydicom.dcmread(path) for path in sorted(paths)]


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(done, output):
    """Assert what every refusal has in common; its code."""
    manifest = manifest_of(output)
    assert manifest["status"] == "failed"
    assert manifest["code"] in done.stderr + done.stdout
    assert [path.name for path in output.iterdir()] == ["run_manifest.json"]
    return manifest["code"], done.returncode


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """The semantic phantom as two studies with a segmentation of the moving one, every identifying text a canary."""
    folder = tmp_path_factory.mktemp("phantom")
    _, moving = write_phantom_pair(folder, edit=lambda ds, k: plant(ds))
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    write_segmentation(folder / "moving" / "lesions.dcm", stack_of(moving, MOVING_AFFINE), masks)
    return folder


@pytest.fixture(scope="module")
def untouched(phantom):
    """The hashes of the input before any run."""
    return tree(phantom)


@pytest.fixture(scope="module")
def registered(phantom, untouched, tmp_path_factory):
    """A run on the phantom."""
    output = tmp_path_factory.mktemp("registered")
    done = run(phantom, output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done


def test_a_run_leaves_its_input_as_it_was(phantom, untouched, registered):
    assert tree(phantom) == untouched


def test_the_version_is_the_bundles():
    assert bundle.__version__ == VERSION


def test_a_run_leaves_every_object_and_a_manifest_with_their_hashes(registered, phantom):
    output, done = registered
    manifest = manifest_of(output)
    assert manifest["status"] == "ok"
    assert [len(objects_of(output, kind)) for kind in (MR, DEFORMABLE, SR, SC, SEG)] == [24, 1, 1, 1, 1]
    files = {f"dicom/{name}": digest for name, digest in tree(output / "dicom").items()}
    assert files == {entry["path"]: entry["sha256"] for entry in manifest["outputs"]}
    images = {digest for name, digest in tree(phantom).items() if "lesions" not in name}
    assert {entry["sha256"] for entry in manifest["inputs"]} == images
    assert manifest["device"] in ("cpu", "cuda")
    assert set(manifest["timings"]) >= {"ingest", "pairing", "registration", "writers"}
    assert "[error]" not in done.stdout + done.stderr  # Holoscan's way to say that an operator never ran


def test_nothing_identifies_the_patient_outside_the_objects(registered, phantom, tmp_path):
    output, done = registered
    assert found(done.stdout + done.stderr) == []
    assert found_below(output) == []
    debug = run(phantom, tmp_path / "out", "-l", "DEBUG", SERIES_NUMBERS_REPORT="901")  # taken: a refusal
    assert debug.returncode != 0
    assert found(debug.stdout + debug.stderr) == []
    assert found_below(tmp_path / "out") == []


def test_the_same_input_gives_the_same_objects_and_another_setting_gives_all_of_them_other_uids(
    registered, phantom, tmp_path
):
    output, _ = registered
    again, other = tmp_path / "again", tmp_path / "other"
    assert run(phantom, again).returncode == 0
    assert run(phantom, other, LABEL="AI-derived").returncode == 0
    uids = [
        [entry["sop_instance_uid"] for entry in manifest_of(folder)["outputs"]] for folder in (output, again, other)
    ]
    assert uids[0] == uids[1]
    assert not set(uids[0]) & set(uids[2])
    pixels = [[ds.PixelData for ds in objects_of(folder, MR)] for folder in (output, again)]
    assert pixels[0] == pixels[1]
    vectors = [
        objects_of(folder, DEFORMABLE)[0]
        .DeformableRegistrationSequence[0]
        .DeformableRegistrationGridSequence[0]
        .VectorGridData
        for folder in (output, again)
    ]
    assert vectors[0] == vectors[1]


def test_own_results_fed_back_make_no_new_pair(registered, phantom, tmp_path):
    output, _ = registered
    source = tmp_path / "in"
    for name, renamed in (("fixed", "a"), ("moving", "b")):
        shutil.copytree(phantom / name, source / renamed)  # two studies: the days decide
    shutil.copytree(output / "dicom", source / "c")
    assert run(source, tmp_path / "out").returncode == 0
    pair = manifest_of(tmp_path / "out")["pair"]
    assert pair["rule"] == "dates"
    uids = [
        {entry["sop_instance_uid"] for entry in manifest_of(folder)["inputs"]} for folder in (output, tmp_path / "out")
    ]
    assert uids[0] == uids[1]


def test_applying_the_registration_object_gives_the_registered_series(registered, phantom, tmp_path):
    output, _ = registered
    command = [sys.executable, ROOT / "deploy_app" / "apply_registration.py"]
    command += ["--registration", output / "dicom" / "registration.dcm", "--moving", phantom / "moving"]
    command += ["--fixed", phantom / "fixed", "--output", tmp_path / "applied"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    series = objects_of(output, MR)
    applied = sorted(map(pydicom.dcmread, (tmp_path / "applied").rglob("*.dcm")), key=lambda ds: ds.InstanceNumber)
    assert len(applied) == len(series)
    difference = [np.abs(a.pixel_array.astype(float) - b.pixel_array) for a, b in zip(applied, series)]
    assert np.mean(difference) < 1  # grey value of a range of 1000; the stored grid is coarser than the field


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"FIXED_SERIES_UID": "1.2.3"}, ("E_NO_MATCH", 31)),
        ({"QUALITY_ON_FAILURE": "fail", "QUALITY_MAX_DISPLACEMENT_MM": 0.001}, ("E_QUALITY", 50)),
        ({"MISSPELT": 1}, ("E_INTERNAL", 70)),
    ],
)
def test_settings_that_nothing_meets_end_in_their_code_and_no_object(phantom, tmp_path, settings, code):
    assert refused(run(phantom, tmp_path / "out", **settings), tmp_path / "out") == code


def test_another_patient_is_refused(phantom, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(phantom, source)
    for path in (source / "moving").iterdir():
        ds = pydicom.dcmread(path)
        ds.PatientID = "SOMEBODY-ELSE"
        ds.save_as(path)
    assert refused(run(source, tmp_path / "out"), tmp_path / "out") == ("E_PATIENT", 20)


def test_truncated_pixels_are_refused(phantom, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(phantom, source)
    path = source / "moving" / "moving_0007.dcm"
    path.write_bytes(path.read_bytes()[:-500])
    assert refused(run(source, tmp_path / "out"), tmp_path / "out") == ("E_DECODE", 41)


def test_an_empty_input_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    assert refused(run(tmp_path / "in", tmp_path / "out"), tmp_path / "out") == ("E_NO_INPUT", 10)


def test_altered_weights_are_refused(phantom, tmp_path):
    models = tmp_path / "models" / "pan_registration"
    for name in ("bundle", "configs"):
        shutil.copytree(ROOT / name, models / name)
    (models / "models").mkdir()
    shutil.copy(ROOT / "models" / "model.json", models / "models")
    weights = bytearray((ROOT / "models" / "model.pt").read_bytes())
    weights[len(weights) // 2] ^= 1
    (models / "models" / "model.pt").write_bytes(weights)
    done = run(phantom, tmp_path / "out", models=tmp_path / "models")
    assert refused(done, tmp_path / "out") == ("E_WEIGHTS", 70)


def test_an_output_that_is_not_empty_is_refused_and_left_as_it_is(phantom, tmp_path):
    (tmp_path / "out" / "dicom").mkdir(parents=True)
    (tmp_path / "out" / "dicom" / "old.dcm").write_text("old")
    before = tree(tmp_path / "out")
    assert run(phantom, tmp_path / "out").returncode == 60
    assert tree(tmp_path / "out") == before


def test_an_output_that_can_not_be_made_is_refused(phantom, tmp_path):
    (tmp_path / "file").touch()
    done = run(phantom, tmp_path / "file" / "out")
    assert done.returncode == 60
    assert "E_OUTPUT" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


# --- real images ---


def series_uids(folder):
    """The T1 series without and with the scanner's intensity normalisation."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.rglob("*.dcm")]
    volumes = {ds.SeriesInstanceUID: "NORM" in ds.ImageType for ds in headers if ds.SeriesNumber in (5001, 6001)}
    return [next(uid for uid, normalised in volumes.items() if normalised == which) for which in (False, True)]


def test_two_reconstructions_of_one_acquisition_are_left_where_they_are(siemens_study_folder, tmp_path):
    plain, normalised = series_uids(siemens_study_folder)
    done = run(siemens_study_folder, tmp_path / "out", FIXED_SERIES_UID=normalised, MOVING_SERIES_UID=plain)
    assert done.returncode == 0, done.stdout + done.stderr
    field = read_deformable_registration(tmp_path / "out/dicom/registration.dcm")
    series = objects_of(tmp_path / "out", MR)
    assert len(series) == 96
    values = np.stack([ds.pixel_array for ds in series])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sorted(map(str, (tmp_path / "out/dicom/registered").iterdir())))
    image = reader.Execute()
    index = np.argwhere(values > 0.2 * np.percentile(values, 99))[::37]  # inside the object
    points = np.array([image.TransformIndexToPhysicalPoint([int(n) for n in row[::-1]]) for row in index])
    length = np.linalg.norm(field.displacement_at(points).numpy(), axis=-1)
    assert length.mean() <= 0.3
    assert np.percentile(length, 99) <= 1


def test_two_series_of_one_study_are_not_guessed_apart(siemens_study_folder, tmp_path):
    done = run(siemens_study_folder, tmp_path / "out")
    assert refused(done, tmp_path / "out") == ("E_AMBIGUOUS", 30)


def smooth_field(points):
    """The truth of the longitudinal case, mm: up to 6 mm, centimetres wide."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack(
        [5 * np.sin(y / 24 + 0.4), -4 * np.cos(x / 28 - 0.3) * np.sin(z / 30), 4 * np.sin((x + z) / 26 + 0.2)], -1
    )


@pytest.fixture(scope="module")
def longitudinal(head, tmp_path_factory):
    """A head, and the same head deformed and moved, as two oblique anisotropic studies; the truth, fixed to moving."""
    folder = tmp_path_factory.mktemp("longitudinal")
    values, affine = head
    centre = (affine @ [*(np.array(values.shape) - 1) / 2, 1])[:3]
    rigid, shift = Rotation.from_euler("xyz", (6, -4, 8), degrees=True).as_matrix(), np.array([12.0, -7, 5])

    def at(points):
        index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        return map_coordinates(gaussian_filter(values, 0.5), np.moveaxis(index, -1, 0), order=1)

    def truth(points):
        moved = points + smooth_field(points - centre)
        return (moved - centre) @ rigid.T + centre + shift

    def grid(shape, spacing, turn):
        direction = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
        corner = centre - direction @ (np.array(spacing) * (np.array(shape[::-1]) - 1) / 2)
        return affine_of(direction, spacing, corner)

    fixed_shape, moving_shape = (84, 104, 100), (92, 112, 92)  # slices, rows, columns
    fixed, moving = grid(fixed_shape, (1.9, 2.2, 2.4), (10, -5, 4)), grid(moving_shape, (2.1, 2.0, 2.2), (-4, 6, -8))
    moving[:3, 3] += shift
    # the moving image holds the head, moved rigidly: at M p lies what lies at p
    moving_points = (points_of(moving_shape, moving) - shift - centre) @ rigid + centre
    fixed_points = points_of(fixed_shape, fixed)
    write_series(folder / "a", at(fixed_points + smooth_field(fixed_points - centre)), fixed, "fixed", date="20240110")
    write_series(folder / "b", at(moving_points), moving, "moving", date="20230105")
    inside = fixed_points[at(fixed_points) > 0.25 * np.percentile(values, 99)]
    return folder, truth, inside[:: len(inside) // 2000]


def test_a_longitudinal_pair_is_registered_across_frames_of_reference(longitudinal, tmp_path):
    folder, truth, landmarks = longitudinal
    done = run(folder, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = manifest_of(tmp_path / "out")
    assert manifest["pair"]["rule"] == "dates"
    assert manifest["dsro"]["max_error_mm"] <= 0.5
    assert manifest["dsro"]["p99_error_mm"] <= 0.2
    field = read_deformable_registration(tmp_path / "out/dicom/registration.dcm")
    wanted = truth(landmarks) - landmarks
    before = np.linalg.norm(wanted, axis=-1).mean()
    after = np.linalg.norm(wanted - field.displacement_at(landmarks).numpy(), axis=-1).mean()
    assert after < before / 2
    by_affine = np.linalg.norm(truth(landmarks) - _linear_part(landmarks, truth(landmarks)), axis=-1).mean()
    assert after < 0.8 * by_affine  # better than any affine map


def _linear_part(points, moved):
    """The affine map that fits best."""
    homogeneous = np.column_stack([points, np.ones(len(points))])
    return homogeneous @ np.linalg.lstsq(homogeneous, moved, rcond=None)[0]
