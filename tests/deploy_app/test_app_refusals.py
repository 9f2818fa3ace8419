"""What the application refuses, and with which exit code: nothing is written then."""

import shutil

import pydicom
import pytest
from application import ROOT, manifest_of, refused, run, tree
from panreg.runtime.command_line import look_at


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"FIXED_SERIES_UID": "1.2.3"}, ("E_NO_MATCH", 31)),
        ({"QUALITY_ON_FAILURE": "fail", "QUALITY_MAX_DISPLACEMENT_MM": 0.001}, ("E_QUALITY", 50)),
        ({"MISSPELT": 1}, ("E_INTERNAL", 70)),
    ],
)
@pytest.mark.property(12)
def test_settings_that_nothing_meets_end_in_their_code_and_no_object(phantom, coarse_models, tmp_path, settings, code):
    done = run(phantom, tmp_path / "out", models=coarse_models, **settings)
    assert refused(done, tmp_path / "out") == code


@pytest.mark.property(1)
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


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_an_input_that_is_not_there_leaves_a_manifest_and_its_code(tmp_path, monkeypatch, by):
    if by == "argument":
        done = run(tmp_path / "absent", tmp_path / "out")
    else:
        done = run(None, tmp_path / "out", HOLOSCAN_INPUT_PATH=tmp_path / "absent")
    assert refused(done, tmp_path / "out") == ("E_NO_INPUT", 10)
    assert "HOLOSCAN_INPUT_PATH" in manifest_of(tmp_path / "out")["message"]
    assert str(tmp_path) not in manifest_of(tmp_path / "out")["message"]


def test_models_that_are_not_there_leave_a_manifest_and_their_code(phantom, tmp_path):
    done = run(phantom, tmp_path / "out", models=tmp_path / "absent")
    assert refused(done, tmp_path / "out") == ("E_WEIGHTS", 70)


def test_an_absent_input_leaves_the_results_of_another_run_alone(tmp_path):
    (tmp_path / "out" / "dicom").mkdir(parents=True)
    (tmp_path / "out" / "run_manifest.json").write_text("{}")
    before = tree(tmp_path / "out")
    done = run(tmp_path / "absent", tmp_path / "out")
    assert done.returncode == 10
    assert "E_NO_INPUT" in done.stderr + done.stdout  # and not the used output, which would come next
    assert "holds results already" in done.stderr + done.stdout
    assert tree(tmp_path / "out") == before


@pytest.mark.property(13)
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


@pytest.mark.parametrize("words", [("--bogus",), ("--bogus", "-i"), ("-l", "LOUD"), ("stray",)])
def test_a_command_line_that_is_not_understood_ends_in_a_code_of_the_table(phantom, tmp_path, words):
    done = run(phantom, tmp_path / "out", *words)
    told = done.stderr + done.stdout
    assert done.returncode == 70
    assert "E_INTERNAL: The command line is not understood" in told
    if words[-1] in ("--bogus", "stray"):  # else nobody can know where the output is
        assert refused(done, tmp_path / "out") == ("E_INTERNAL", 70)
        assert ("--bogus" in told) == ("--bogus" in words)
    else:
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["-o", "-w"])
def test_a_file_in_the_place_of_a_folder_ends_in_a_code_of_the_table(phantom, tmp_path, option):
    (tmp_path / "file").touch()
    done = run(phantom, tmp_path / "out", option, tmp_path / "file")
    assert done.returncode == 60
    assert "folder is a file: name a folder (HOLOSCAN_" in done.stderr + done.stdout
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(("option", "code"), [("-i", "E_NO_INPUT"), ("-m", "E_WEIGHTS"), ("-w", "E_OUTPUT")])
def test_a_file_in_the_place_of_a_folder_is_told_as_such(tmp_path, option, code):
    (tmp_path / "file").touch()
    places = {"-i": tmp_path, "-m": tmp_path, "-o": tmp_path / "out", option: tmp_path / "file"}
    words = [str(word) for pair in places.items() for word in pair]
    output, fault = look_at(["deploy_app", *words], {})
    assert (output, fault.code.value) == (tmp_path / "out", code)
    assert "folder is a file: name a folder (HOLOSCAN_" in fault.message
    assert f", {option})" in fault.message


@pytest.mark.parametrize("name", ["", " "])
@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize(
    ("option", "variable", "code"),
    [("-i", "INPUT", "E_NO_INPUT"), ("-m", "MODEL", "E_WEIGHTS"), ("-o", "OUTPUT", "E_OUTPUT")],
)
def test_a_folder_with_an_empty_name_is_a_lost_choice_and_not_the_current_folder(
    tmp_path, option, variable, code, by, name
):
    places = {"-i": tmp_path, "-m": tmp_path, "-o": tmp_path / "out"} | ({option: name} if by == "argument" else {})
    words = [str(word) for pair in places.items() for word in pair if by == "argument" or pair[0] != option]
    environ = {f"HOLOSCAN_{variable}_PATH": name if by == "environment" else str(tmp_path / "other")}
    output, fault = look_at(["deploy_app", *words], environ)
    assert (output, fault.code.value) == (None if option == "-o" else tmp_path / "out", code)
    assert f"name is empty: name a folder (HOLOSCAN_{variable}_PATH, {option})." in fault.message


def test_an_empty_name_of_the_output_writes_nothing_into_the_current_folder(phantom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(phantom, "")
    assert done.returncode == 60
    assert "E_OUTPUT: The output folder's name is empty" in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("", "HOLOSCAN_CONFIG_PATH is empty: name the settings file, or unset it for the application's own."),
        ("absent.yaml", "The settings file can't be read (FileNotFoundError)."),
    ],
)
def test_settings_that_are_not_there_end_in_their_code(phantom, tmp_path, place, sentence):
    done = run(phantom, tmp_path / "out", HOLOSCAN_CONFIG_PATH=place)
    assert refused(done, tmp_path / "out") == ("E_INTERNAL", 70)
    assert manifest_of(tmp_path / "out")["message"] == sentence


def test_an_output_that_can_not_be_made_is_refused(phantom, tmp_path):
    (tmp_path / "file").touch()
    done = run(phantom, tmp_path / "file" / "out")
    assert done.returncode == 60
    assert "E_OUTPUT" in done.stderr + done.stdout
    ours, *_ = done.stderr.split("Exception ignored in atexit callback: <bound method Coverage")  # of make coverage
    assert "Traceback" not in ours
