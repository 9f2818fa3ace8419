import hashlib
import os
import shutil

import numpy as np
import pydicom
import pytest
from panreg.apply import command
from panreg.failures import Code
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.objects.provenance import VERSION
from panreg.objects.registered_series import write_registered_series
from panreg.settings import DeformableSettings, Settings
from synthetic import (
    MOVING_AFFINE,
    MOVING_SHAPE,
    displacement,
    phantom_registration,
    points_of,
    provenance_of,
    scene,
    write_series,
)


@pytest.fixture(autouse=True)
def _settings_of_this_machine(monkeypatch):
    """None: what PANREG_ variables there are must not choose for the tests."""
    for name in [name for name in os.environ if name.startswith(("PANREG_", "HOLOSCAN_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's input and output: ``fixed/``, ``moving/``, ``registered/``, ``deformable.dcm``."""
    return written(tmp_path_factory.mktemp("run"))


def written(folder, **options):
    registration = phantom_registration(folder, **options)
    provenance = provenance_of(registration.fixed, registration.moving)
    write_registered_series(registration, provenance, Settings(), folder / "registered", provenance.uid("dsro"))
    settings = Settings(deformable=DeformableSettings(spacing_mm=3.0))
    write_deformable_registration(registration, provenance, settings, folder / "deformable.dcm")
    return folder


def arguments(run, output, fixed=None, moving="moving", registration="deformable.dcm"):
    options = ["--registration", run / registration, "--moving", run / moving, "--output", output]
    return [str(option) for option in [*options, *(["--fixed", run / fixed] if fixed else [])]]


def images_in(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def pixels(images):
    return np.stack([image.pixel_array for image in images]).astype(float)


@pytest.mark.parametrize("fixed", ["fixed", "registered"])
def test_applying_the_object_reproduces_the_registered_series(run, tmp_path, capsys, fixed):
    assert command.main(arguments(run, tmp_path, fixed)) == 0
    assert "24 images" in capsys.readouterr().out
    ours, theirs = images_in(run / "registered"), images_in(tmp_path / "registered")
    for a, b in zip(ours, theirs):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            assert np.allclose(a[keyword].value, b[keyword].value)
        assert a.FrameOfReferenceUID == b.FrameOfReferenceUID
        assert (
            a.SourceInstanceSequence[0].ReferencedSOPInstanceUID == b.SourceInstanceSequence[0].ReferencedSOPInstanceUID
        )
        assert a.SOPInstanceUID != b.SOPInstanceUID
    difference = np.abs(pixels(ours) - pixels(theirs))
    assert np.percentile(difference, 99) <= 1  # the phantom's steepest slope times 0.02 mm, and the rounding
    assert difference.mean() < 0.05
    unregistered = np.abs(pixels(ours) - pixels(images_in(run / "fixed")))
    assert unregistered.mean() > 10 * difference.mean()


def test_without_a_fixed_series_the_result_lies_on_the_objects_own_grid(run, tmp_path):
    assert command.main(arguments(run, tmp_path)) == 0
    grid = (
        pydicom.dcmread(run / "deformable.dcm").DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
    )
    images = images_in(tmp_path / "registered")
    assert (images[0].Columns, images[0].Rows, len(images)) == tuple(grid.GridDimensions)
    origin = np.array([float(v) for v in grid.ImagePositionPatient])
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = origin
    points = points_of((len(images), images[0].Rows, images[0].Columns), affine)
    inverse = np.linalg.inv(MOVING_AFFINE)
    index = (points + displacement(points)) @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((index >= 0) & (index <= np.array(MOVING_SHAPE[::-1]) - 1)).all(-1)
    assert np.abs(pixels(images) - scene(points + displacement(points)))[inside].mean() < 1
    assert not any("ReferencedImageSequence" in image for image in images)
    assert np.allclose([float(v) for v in images[4].ImagePositionPatient], origin + np.array([0, 0, 12]))
    assert images[0].PatientID == "PAT-1"


def refuse(run, tmp_path, capsys, code, **options):
    output = tmp_path / "out"
    assert command.main(arguments(run, output, **options)) == code.exit_code
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert code.value in printed.err
    assert "Canary" not in printed.err + printed.out
    assert "PAT-" not in printed.err + printed.out
    assert not output.exists() or list(output.iterdir()) == []


def test_another_patients_series_is_refused(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    for path in (folder / "moving").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "PAT-2"
        dataset.save_as(path)
    refuse(folder, tmp_path, capsys, Code.E_PATIENT, fixed="fixed")
    refuse(folder, tmp_path, capsys, Code.E_PATIENT)


def test_a_series_that_the_object_does_not_name_is_refused(run, tmp_path, capsys):
    refuse(run, tmp_path, capsys, Code.E_NO_MATCH, moving="fixed", fixed="fixed")


def test_a_fixed_series_in_another_space_is_refused(run, tmp_path, capsys):
    refuse(run, tmp_path, capsys, Code.E_NO_MATCH, fixed="moving")


def test_an_object_of_another_kind_is_refused(run, tmp_path, capsys):
    refuse(run, tmp_path, capsys, Code.E_NO_INPUT, registration="fixed/fixed_0000.dcm")
    refuse(run, tmp_path, capsys, Code.E_NO_INPUT, registration="absent.dcm")


def test_an_empty_folder_or_one_of_two_series_is_refused(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    refuse(run, tmp_path, capsys, Code.E_NO_INPUT, moving=tmp_path / "empty", fixed="fixed")
    both = tmp_path / "both"
    for name in ("one", "two"):
        write_series(both / name, np.zeros((16, 8, 8)), MOVING_AFFINE, name=name)
    refuse(run, tmp_path, capsys, Code.E_AMBIGUOUS, moving=both, fixed="fixed")


def test_a_damaged_object_is_refused(run, tmp_path, capsys):
    dataset = pydicom.dcmread(run / "deformable.dcm")
    item = dataset.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
    item.VectorGridData = item.VectorGridData[:-12]
    dataset.save_as(tmp_path / "short.dcm")
    refuse(run, tmp_path, capsys, Code.E_DECODE, registration=tmp_path / "short.dcm", fixed="fixed")


def test_a_result_that_is_there_already_is_kept(run, tmp_path, capsys):
    (tmp_path / "registered").mkdir()
    (tmp_path / "registered" / "mine").write_text("keep")
    assert command.main(arguments(run, tmp_path, "fixed")) == Code.E_OUTPUT.exit_code
    assert (tmp_path / "registered" / "mine").read_text() == "keep"
    assert "registered" in capsys.readouterr().err


def test_a_failure_in_the_middle_leaves_nothing(run, tmp_path, capsys, monkeypatch):
    def fail(*arguments, **options):
        (tmp_path / "out").mkdir(exist_ok=True)
        raise OSError(28, "No space left on device", "/secret/PAT-1")

    monkeypatch.setattr("panreg.objects.registered_series.save", fail)
    assert command.main(arguments(run, tmp_path / "out", "fixed")) == Code.E_OUTPUT.exit_code
    assert list((tmp_path / "out").iterdir()) == []
    error = capsys.readouterr().err
    assert "no space left" in error
    assert "secret" not in error


def test_the_result_names_no_weights_and_its_uids_come_from_the_object_s_bytes(run, tmp_path):
    """No network takes part: what the object was made with, the object says."""
    object_path = run / "deformable.dcm"
    other = pydicom.dcmread(object_path)
    other.ContentDescription = "edited"
    other.save_as(tmp_path / "edited.dcm")
    found = {}
    for name, path in (("one", object_path), ("again", object_path), ("edited", tmp_path / "edited.dcm")):
        assert command.main(arguments(run, tmp_path / name, "fixed", registration=path)) == 0
        found[name] = images_in(tmp_path / name / "registered")
    first = found["one"][0]
    assert first.SoftwareVersions == first.ContributingEquipmentSequence[0].SoftwareVersions == VERSION
    digest = hashlib.sha256(object_path.read_bytes()).hexdigest()
    assert not [path for path in (tmp_path / "one").rglob("*.dcm") if digest.encode() in path.read_bytes()]
    uids = {name: [image.SOPInstanceUID for image in images] for name, images in found.items()}
    assert uids["one"] == uids["again"]
    assert not set(uids["one"]) & set(uids["edited"])
    devices = {images[0].ContributingEquipmentSequence[0].DeviceUID for images in found.values()}
    assert len(devices) == 1  # one application, whatever it applies


def test_an_object_of_masked_images_is_applied_under_the_setting_that_made_it(tmp_path, capsys, monkeypatch):
    def mask(ds, k):
        ds.PatientID, ds.PatientName, ds.PatientBirthDate = "", "ANON", ""

    masked = written(tmp_path / "masked", edit=mask)
    refuse(masked, tmp_path, capsys, Code.E_PATIENT, fixed="fixed")
    monkeypatch.setenv("PANREG_PATIENT_CHECK", "allow_unidentified")
    for fixed in ("fixed", None):
        assert command.main(arguments(masked, tmp_path / str(fixed), fixed)) == 0
        assert "can't be checked" in capsys.readouterr().err
        assert len(images_in(tmp_path / str(fixed) / "registered")) > 20


@pytest.mark.parametrize("option", ["--output", "--moving", "--registration", "--fixed"])
def test_an_empty_path_is_refused_and_not_taken_for_the_current_folder(run, tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command.main([*arguments(run, tmp_path / "out", "fixed"), option, ""])
    assert ended.value.code == 2
    assert f"argument {option}: takes a path that is not empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_empty_variable_for_the_settings_file_is_refused(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOLOSCAN_CONFIG_PATH", "")
    assert command.main(arguments(run, tmp_path / "out")) == 70
    assert "HOLOSCAN_CONFIG_PATH is empty: name the settings file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_settings_are_those_of_the_application(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PANREG_SERIES_NUMBERS_REGISTERED", "950")
    monkeypatch.setenv("PANREG_LABEL", "of the test")
    assert command.main(arguments(run, tmp_path, "fixed")) == 0
    image = images_in(tmp_path / "registered")[0]
    assert (image.SeriesNumber, image.ImageComments) == (950, "of the test")
    capsys.readouterr()
    monkeypatch.setenv("PANREG_LABLE", "misspelt")
    refuse(run, tmp_path, capsys, Code.E_INTERNAL, fixed="fixed")


def test_what_the_source_declares_as_no_image_becomes_the_output_s_padding(run, tmp_path, monkeypatch):
    def declare(ds, k):
        ds.add_new("PixelPaddingValue", "SS", -2000)

    write_series(tmp_path / "empty", np.full(MOVING_SHAPE, -2000), MOVING_AFFINE, name="moving", edit=declare)
    monkeypatch.setenv("PANREG_PADDING_MR", "-5")
    assert command.main(arguments(run, tmp_path / "out", "fixed", moving=tmp_path / "empty")) == 0
    assert np.unique(pixels(images_in(tmp_path / "out" / "registered"))).tolist() == [-5]
