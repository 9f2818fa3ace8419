"""The image, run as a platform runs it: user 1000, no network, read-only but for the output (``make test-map``)."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from container.engines import Buildah
from container.image import IMAGE
from container.staging import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from synthetic import write_phantom_pair

pytestmark = pytest.mark.debian
MODELS = ROOT / "build" / "map" / "models"
INPUT, OUTPUT, ENTRY_POINT = "/var/holoscan/input", "/var/holoscan/output", "/var/holoscan/tools"


class Container:
    """A working container of the image and the folders it is given."""

    def __init__(self, engine, name, folder):
        self.engine, self.name, self.folder = engine, name, folder

    def run(self, *command, given=None):
        """Run a command on a folder; the process and the output folder."""
        output = Path(self.folder) / f"output{len(list(self.folder.iterdir()))}"
        output.mkdir()
        os.chown(output, 1000, 1000)
        given = given or self.folder / "input0"
        given.mkdir(exist_ok=True)
        mounts = {given: f"{INPUT}:ro", output: OUTPUT}
        return within_time(lambda: self.engine.run(self.name, *command, mounts=mounts)), output

    def python(self, code):
        """What a line of Python prints in the image."""
        done, _ = self.run("python3", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def within_time(run):
    """Run once more what did not end in time: it happens on build machines, on what is not known; the warning tells."""
    try:
        return run()
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        warnings.warn(str(error), stacklevel=2)
        return run()


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    engine = Buildah()
    with engine.container(IMAGE) as name:
        yield Container(engine, name, tmp_path_factory.mktemp("mounts"))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom_pair(folder)
    folder.chmod(0o755)  # the container's user is another one
    return folder


def objects(output):
    """The objects of an output by their UIDs."""
    datasets = [pydicom.dcmread(path) for path in sorted((output / "dicom").rglob("*.dcm"))]
    return {d.SOPInstanceUID: d for d in datasets}


def pixels(dataset):
    return dataset.pixel_array.astype(int) if "PixelData" in dataset else np.zeros(0, int)


def vectors_mm(dataset):
    items = dataset.get("DeformableRegistrationSequence", [])
    grids = [g.VectorGridData for item in items for g in item.get("DeformableRegistrationGridSequence", [])]
    return np.frombuffer(b"".join(grids), np.float32)


@pytest.mark.hazard("the container is not what was tested")
@pytest.mark.property(14)
def test_container_gives_the_objects_of_the_plain_run(container, phantom, tmp_path):
    done, output = container.run(ENTRY_POINT, given=phantom)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[error]" not in done.stdout + done.stderr
    assert json.loads((output / "run_manifest.json").read_text())["status"] == "ok"
    command = [sys.executable, "deploy_app", "-i", str(phantom), "-o", str(tmp_path), "-m", str(MODELS)]
    within_time(lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600))
    assert len(objects(output)) > len(list((phantom / "fixed").iterdir()))
    found, plain = objects(output), objects(tmp_path)
    assert found.keys() == plain.keys()
    for uid, dataset in found.items():  # the same but for rounding
        same = plain[uid]
        assert (dataset.SOPClassUID, dataset.SeriesInstanceUID) == (same.SOPClassUID, same.SeriesInstanceUID)
        apart = np.abs(pixels(dataset) - pixels(same))
        if dataset.Modality == "OT":  # a line of the montage's grid may come to lie a quarter of a pixel further
            assert np.count_nonzero(apart > 20) <= 1e-4 * apart.size
        else:
            assert apart.max(initial=0) <= 1
        assert np.count_nonzero(apart) <= 0.01 * apart.size
        np.testing.assert_allclose(vectors_mm(dataset), vectors_mm(same), rtol=0, atol=0.02)


@pytest.mark.hazard("a failure is not noticed")
def test_empty_input_makes_the_container_exit_with_the_code_of_no_input(container):
    done, output = container.run(ENTRY_POINT)
    assert done.returncode == 10, done.stdout + done.stderr
    assert json.loads((output / "run_manifest.json").read_text())["code"] == "E_NO_INPUT"
    assert not list(output.rglob("*.dcm"))


@pytest.mark.hazard("the container is not what was tested")
def test_image_holds_the_pinned_versions(container):
    lines = [line for line in (ROOT / "deploy_app" / "requirements.txt").read_text().splitlines() if "==" in line]
    ours = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate({"python_version": "3.11"})]
    pins = {canonicalize_name(r.name): str(r.specifier)[2:] for r in ours}
    assert {name: installed(container)[name].partition("+")[0] for name in pins} == pins


@pytest.mark.hazard("the container is not what was tested")
@pytest.mark.property(17)
def test_bill_of_materials_lists_what_the_image_holds(container):
    text = container.python("print(open('/opt/holoscan/docs/sbom.cdx.json').read())")
    listed = {canonicalize_name(c["name"]): c["version"] for c in json.loads(text)["components"]}
    assert listed == installed(container)


def installed(container):
    code = "import json, site; from importlib.metadata import distributions as d; "
    code += "print(json.dumps({x.name: x.version for x in d(path=[site.getusersitepackages()])}))"
    return {canonicalize_name(name): version for name, version in json.loads(container.python(code)).items()}


@pytest.mark.hazard("data leave the machine")
@pytest.mark.property(4, 14)
def test_container_runs_as_user_1000_without_a_network_on_a_read_only_root_and_input(container):
    assert container.python("import os; print(os.getuid(), os.getgid())") == "1000 1000"
    reach = "import errno, socket; print(errno.errorcode[socket.socket().connect_ex(('192.0.2.1', 80))])"
    assert container.python(reach) == "ENETUNREACH"
    for folder in (INPUT, "/tmp", "/home/holoscan", "/var/holoscan"):
        written, _ = container.run("touch", f"{folder}/file")
        assert written.returncode != 0
        assert "Read-only file system" in written.stderr
    written, output = container.run("touch", f"{OUTPUT}/file")
    assert (written.returncode, [path.name for path in output.iterdir()]) == (0, ["file"])


def test_a_container_that_hangs_is_ended_and_tells_where(container, tmp_path):
    command = ["python3", "-c", "import time; time.sleep(600)"]
    with pytest.raises(TimeoutError, match=r'did not end within 10 s:\n(.*\n)*  File "<string>", line 1'):
        container.engine.run(container.name, *command, mounts={tmp_path: OUTPUT}, seconds=10)


def test_image_keeps_nothing_of_the_host_s_package_settings(container):
    settings, _ = container.run("python3", "-m", "pip", "config", "list")
    assert (settings.returncode, settings.stdout.strip()) == (0, "")
    environment, _ = container.run(ENTRY_POINT, "env")
    assert not [line for line in environment.stdout.splitlines() if line.startswith(("PIP_", "SSL_", "REQUESTS_"))]
