"""The image's build context: made by the SDK's packager without Docker or a network, then adapted."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from container import context, wheels
from container.adaptations import DEBIAN, ENTRY_POINT, EVERYWHERE, Edit, apply, labels
from container.staging import NAME, ROOT, stage_application, stage_model, version

TEMPLATES = Path(context.BuilderBase.__init__.__code__.co_filename).parent / "templates"
CONFIGURATION = {"application": {"title": "PAN", "version": version()}, "resources": {"cpu": 1, "memory": "1Gi"}}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The context of an application of one line, with the real model folder."""
    folder = tmp_path_factory.mktemp("map")
    app = folder / "app"
    app.mkdir()
    (app / "__main__.py").write_text("raise SystemExit(10)\n")
    (app / "app.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    (app / "requirements.txt").write_text((ROOT / "deploy_app" / "requirements.txt").read_text())
    stage_model(folder / "models" / NAME)
    arguments = [str(app), "-c", str(app / "app.yaml"), "-t", f"{NAME}:{version()}", "--platform", "x86_64"]
    arguments += ["--version", version(), "-m", str(folder / "models")]
    for name in ("context", "again"):
        context.write_context(arguments, {"licenses": "Apache-2.0", "source": ""}, folder / name)
    return folder


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_give_the_same_context(built):
    assert tree(built / "context") == tree(built / "again")


def test_dockerfile_is_for_debian_and_installs_from_the_wheels_alone(built):
    text = (built / "context" / "Dockerfile").read_text()
    assert "3.12" not in text
    assert "nvidia.com" not in text
    assert f"FROM {context.BASE_IMAGE} AS base" in text
    assert text.index("ARG PIP_NO_INDEX=1") < text.index("RUN pip install")
    (library_path,) = re.findall(r"^ENV LD_LIBRARY_PATH=(.*)$", text, re.MULTILINE)
    packages = "/home/${UNAME}/.local/lib/python3.11/site-packages"
    assert library_path.split(":") == [f"{packages}/holoscan/lib", f"{packages}/nvidia/cu13/lib"]


def test_python_is_started_between_the_installations(built):
    """At the first start after Holoscan's wheel, wheel-axle imports the system's pip, and a newer one fails."""
    steps = re.findall(
        r"^RUN (pip install|python3 -c pass)", (built / "context" / "Dockerfile").read_text(), re.MULTILINE
    )
    assert steps == ["pip install", "pip install", "python3 -c pass", "pip install"]


@pytest.mark.property(17)
def test_image_is_labelled(built):
    text = (built / "context" / "Dockerfile").read_text()
    found = dict(re.findall(r'^LABEL org\.opencontainers\.image\.(\w+)="(.*)"$', text, re.MULTILINE))
    assert found == {"title": "PAN", "version": version(), "licenses": "Apache-2.0"}


def test_requirements_of_the_image_are_the_application_s(built):
    ours = (ROOT / "deploy_app" / "requirements.txt").read_text()
    assert (built / "context" / "pip" / "requirements.txt").read_text() == ours


def test_model_folder_holds_the_bundle_its_weights_and_their_terms(built):
    files = tree(built / "context" / "models" / NAME)
    wanted = {
        "bundle/__init__.py",
        "configs/inference.json",
        "models/model.pt",
        "models/any_contrast.json",
        "models/one_person.json",
        "LICENSE",
        "docs/data_license.txt",
    }
    assert wanted <= files.keys()
    weights = ["models/any_contrast.pt", "models/model.pt", "models/one_person.pt"]
    assert sorted(name for name in files if name.endswith((".pt", ".pyc"))) == weights
    manifest = json.loads((built / "context" / "map" / "pkg.json").read_text())
    assert manifest["models"] == {NAME: f"/opt/holoscan/models/{NAME}"}


@pytest.mark.parametrize("code", [0, 10])
@pytest.mark.hazard("a failure is not noticed")
def test_entry_point_passes_on_the_exit_code_that_the_packager_s_own_loses(tmp_path, built, code):
    jq = tmp_path / "jq"  # stands for the real one, which reads the command from app.json
    jq.write_text(f"#!/bin/sh\necho \"bash -c 'exit {code}'\"\n")
    jq.chmod(0o755)
    for script, expected in ((built / "context" / "tools", code), (TEMPLATES / "tools.sh", 0)):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        ended = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
        assert ended.returncode == expected, ended.stderr


@pytest.mark.parametrize("edit", [*DEBIAN, *EVERYWHERE, *ENTRY_POINT, labels({})], ids=lambda edit: edit.why)
def test_text_of_another_packager_is_refused(edit):
    with pytest.raises(ValueError, match="0 matches instead of"):
        apply("FROM another\n", [edit])


def test_edit_that_matches_too_often_is_refused():
    with pytest.raises(ValueError, match="2 matches instead of 1"):
        apply("a\na\n", [Edit("once", "a", "b")])


def test_image_holds_the_application_s_modules_and_packages_without_what_tools_left_there(tmp_path):
    source = ROOT / "deploy_app"
    stage_application(source, tmp_path / "app")
    files = tree(tmp_path / "app")
    assert {path.relative_to(source).as_posix() for path in source.rglob("*.py")} == {
        name for name in files if name.endswith(".py")
    }
    assert {"__main__.py", "app.yaml", "panreg/operators/app.py"} <= files.keys()
    assert not [name for name in files if "__pycache__" in name or "_cache/" in name]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "app").rglob("*") if path.is_file()} == {0o644}


def test_bill_of_materials_lists_the_wheels_and_nothing_of_this_machine(tmp_path):
    for name in ("first", "second"):
        with zipfile.ZipFile(tmp_path / f"{name}-1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(f"{name}-1.2.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    wheels.write_bill(tmp_path, tmp_path / "sbom.cdx.json", "0.1")
    text = (tmp_path / "sbom.cdx.json").read_text()
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "pan-registration"
    assert bill["metadata"]["component"]["version"] == "0.1"
    assert {(c["name"], c["version"]) for c in bill["components"]} == {("first", "1.2"), ("second", "1.2")}
    assert str(ROOT) not in text
    assert sys.prefix not in text


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """What pip was asked to download; it downloads nothing, and its settings are this machine's and the test's."""
    calls, run = [], subprocess.run

    def note_downloads(command, **options):
        return calls.append(command) if "download" in command else run(command, **options)

    monkeypatch.setattr(wheels.subprocess, "run", note_downloads)
    monkeypatch.setattr(wheels.shutil, "rmtree", lambda path, ignore_errors: path.mkdir(exist_ok=True))
    return calls


def test_wheels_are_kept_until_the_pins_change(tmp_path, downloads):
    requirements, folder = tmp_path / "requirements.txt", tmp_path / "wheels"
    for pins in ("a==1", "a==1", "a==2"):
        requirements.write_text(pins)
        wheels.download(requirements, folder)
    assert len(downloads) == 2


def test_wheels_are_kept_until_pip_finds_others_and_no_password_is_written_down(tmp_path, downloads, monkeypatch):
    requirements, folder = tmp_path / "requirements.txt", tmp_path / "wheels"
    requirements.write_text("a==1")
    for user, index in (("user:first", "cpu"), ("user:second", "cpu"), ("user:second", "cu130")):
        monkeypatch.setenv("PIP_INDEX_URL", f"https://{user}@packages.example/{index}")
        wheels.download(requirements, folder)
    assert len(downloads) == 2
    assert "second" not in (folder / ".requirements").read_text()
