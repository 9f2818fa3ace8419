"""The whole application, as a platform starts it: folders in, exit code and folders out."""

import json
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from signal import SIG_DFL, Signals, signal

import bundle
import nibabel
import numpy as np
import pydicom
import pytest
from application import DEFORMABLE, MR, ROOT, SC, SEG, SR, manifest_of, objects_of, run, tree
from canaries import found, found_below, parts_of_page
from panreg.objects.provenance import VERSION


@pytest.fixture(scope="module")
def untouched(phantom):
    """The hashes of the input before any run."""
    return tree(phantom)


@pytest.fixture(scope="module")
def start(coarse_models):
    """Start the application; its accuracy is measured elsewhere (test_app_studies.py, test_gate.py)."""
    return partial(run, models=coarse_models)


@pytest.fixture(scope="module")
def registered(phantom, untouched, tmp_path_factory, start):
    """A run on the phantom."""
    output = tmp_path_factory.mktemp("registered")
    done = start(phantom, output, fresh=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done


@pytest.mark.property(4)
def test_a_run_leaves_its_input_as_it_was(phantom, untouched, registered):
    assert tree(phantom) == untouched


def test_the_version_is_the_bundles():
    assert bundle.__version__ == VERSION


@pytest.mark.property(17)
def test_a_run_leaves_every_object_and_a_manifest_with_their_hashes(registered, phantom):
    output, done = registered
    manifest = manifest_of(output)
    assert manifest["status"] == "ok"
    assert [len(objects_of(output, kind)) for kind in (MR, DEFORMABLE, SR, SC, SEG)] == [24, 1, 1, 1, 1]
    files = {f"dicom/{name}": digest for name, digest in tree(output / "dicom").items()}
    assert {manifest["page"]["path"]: manifest["page"]["sha256"]} == {"report.html": tree(output)["report.html"]}
    assert sorted(path.name for path in output.iterdir()) == ["dicom", "report.html", "run_manifest.json"]
    assert files == {entry["path"]: entry["sha256"] for entry in manifest["outputs"]}
    images = {digest for name, digest in tree(phantom).items() if "lesions" not in name}
    assert {entry["sha256"] for entry in manifest["inputs"]} == images
    assert manifest["device"] in ("cpu", "cuda")
    assert set(manifest["timings"]) >= {"ingest", "pairing", "registration", "writers"}
    assert "[error]" not in done.stdout + done.stderr  # Holoscan's way to say that an operator never ran


@pytest.mark.property(6)
def test_nothing_identifies_the_patient_outside_the_objects(registered, phantom, tmp_path, start):
    output, done = registered
    assert found(done.stdout + done.stderr) == []
    assert found_below(output) == []
    debug = start(phantom, tmp_path / "out", "-l", "DEBUG", SERIES_NUMBERS_REPORT="901")  # taken: a refusal
    assert debug.returncode != 0
    assert found(debug.stdout + debug.stderr) == []
    assert found_below(tmp_path / "out") == []


@pytest.mark.property(6)
def test_the_page_shows_the_images_and_names_nobody(registered, phantom):
    output, _ = registered
    text = (output / "report.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["names"] == {"fixed": "fixed", "moving": "moving"}
    assert "research use only" in data["summary"]["notes"][0]
    assert {"fixed", "moving", "aligned", "warped", "jacobian"} <= data["volumes"].keys()
    told = {value for path in phantom.rglob("*.dcm") for value in identifying(pydicom.dcmread(path))}
    told |= ({path.name for path in phantom.rglob("*")} | {str(phantom)}) - {"fixed", "moving"}
    assert len(told) > 100
    words, (*volumes, _) = parts_of_page(text)  # the field comes last, and has no header
    assert len(volumes) == len(data["volumes"])
    for volume in volumes:
        header = nibabel.Nifti1Header(volume[:348], check=False)
        texts = [header[key].tobytes() for key in ("data_type", "db_name", "intent_name", "descrip", "aux_file")]
        assert set(b"".join(texts)) <= {0}
        assert volume[348:352] == bytes(4)  # nothing more follows
        assert len(volume) == 352 + np.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    words = re.sub(r"<script>.*?</script>|<pre>.*?</pre>", "", words, flags=re.DOTALL)  # viewer and licences
    assert [value for value in told if value in words] == []


def identifying(dataset):
    """List the values that tell of whom or when an image is: UIDs, dates, times, names and texts of some length."""
    kinds = ("UI", "DA", "TM", "DT", "PN", "LO", "SH", "LT", "ST", "UT")
    return [str(e.value) for e in dataset.iterall() if e.VR in kinds and len(str(e.value)) > 5]


@pytest.mark.slow
@pytest.mark.property(5)
def test_the_same_input_gives_the_same_objects_and_another_setting_gives_all_of_them_other_uids(
    registered, phantom, tmp_path, start
):
    output, _ = registered
    again, other = tmp_path / "again", tmp_path / "other"
    assert start(phantom, again).returncode == 0
    assert start(phantom, other, LABEL="AI-derived").returncode == 0
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


@pytest.mark.slow
@pytest.mark.property(18)
def test_own_results_fed_back_make_no_new_pair(registered, phantom, tmp_path, start):
    output, _ = registered
    source = tmp_path / "in"
    for name, renamed in (("fixed", "a"), ("moving", "b")):
        shutil.copytree(phantom / name, source / renamed)  # two studies: the days decide
    shutil.copytree(output / "dicom", source / "c")
    assert start(source, tmp_path / "out").returncode == 0
    pair = manifest_of(tmp_path / "out")["pair"]
    assert pair["rule"] == "dates"
    uids = [
        {entry["sop_instance_uid"] for entry in manifest_of(folder)["inputs"]} for folder in (output, tmp_path / "out")
    ]
    assert uids[0] == uids[1]


@pytest.mark.slow
@pytest.mark.hazard("half a result is used")
@pytest.mark.property(3)
@pytest.mark.parametrize("asked", [Signals.SIGTERM, Signals.SIGINT])
def test_a_run_that_is_asked_to_end_leaves_a_failed_manifest_and_no_object(phantom, coarse_models, tmp_path, asked):
    output, heed = tmp_path / "out", partial(signal, asked, SIG_DFL)  # a job in the background ignores SIGINT
    line = [sys.executable, ROOT / "deploy_app", "-i", phantom, "-o", output, "-m", coarse_models]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    while process.poll() is None and not (output / ".panreg.part" / "registration.dcm").exists():
        time.sleep(0.01)
    process.send_signal(asked)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + asked
    assert [path.name for path in output.iterdir()] == ["run_manifest.json"]
    manifest = manifest_of(output)
    assert (manifest["status"], manifest["code"], manifest["outputs"]) == ("failed", "E_TERMINATED", [])
    assert asked.name in manifest["message"]
    assert "E_TERMINATED" in told


@pytest.fixture
def killed(registered, tmp_path):
    """What a run leaves that is killed between its results and its last word."""
    output = tmp_path / "killed"
    shutil.copytree(registered[0], output)
    path = output / "run_manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    return output


@pytest.mark.slow
def test_a_setting_leaves_the_page_out(phantom, tmp_path, start):
    done = start(phantom, tmp_path / "out", PAGE="false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dicom", "run_manifest.json"]
    assert manifest_of(tmp_path / "out")["page"] is None


@pytest.mark.hazard("half a result is used")
def test_a_run_killed_after_publication_is_recognised_as_complete_by_the_next(registered, phantom, killed, start):
    objects = tree(killed / "dicom")
    done = start(phantom, killed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert manifest_of(killed) == manifest_of(registered[0])
    assert tree(killed / "dicom") == objects


def test_a_run_killed_before_its_page_appeared_is_completed_by_the_next(registered, phantom, killed, start):
    (killed / "report.html").rename(killed / ".report.html.part")
    done = start(phantom, killed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(killed) == tree(registered[0])


def test_results_of_a_killed_run_that_are_not_what_this_run_makes_are_refused(phantom, killed, tmp_path, start):
    before = tree(killed)
    assert start(phantom, killed, LABEL="AI-derived").returncode == 60  # another setting
    shutil.copytree(phantom / "moving", tmp_path / "in" / "fixed")
    shutil.copytree(phantom / "fixed", tmp_path / "in" / "moving")
    assert start(tmp_path / "in", killed).returncode == 60  # another pair
    assert tree(killed) == before
    (killed / "dicom" / "report.dcm").write_bytes(b"torn")
    before = tree(killed)
    assert start(phantom, killed).returncode == 60
    assert tree(killed) == before


@pytest.mark.property(20)
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
