"""What ``pip install`` gives: the wheel, in an environment of its own, far from the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

NAME = "pan_registration"
FEWEST_OF_THE_COMMANDS = 300  # of their tests


@pytest.fixture(scope="module")
def wheel(released):
    (path,) = (released / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, bundle_root, tmp_path_factory):
    """The folder with the programs of an environment that holds the wheel, what it depends on, and pytest."""
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", bundle_root / "constraints.txt", f"{wheel}[surfaces,x5]", "pytest"], check=True)
    return folder / "bin"


def run(*line, cwd, environment=()):
    """Run a command in an empty folder, without any path to the checkout."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict(environment)
    done = subprocess.run(list(map(str, line)), cwd=cwd, capture_output=True, text=True, env=clean, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def root(installed, tmp_path_factory):
    return run(installed / "pan-registration", "root", cwd=tmp_path_factory.mktemp("empty")).strip()


@pytest.fixture(scope="module")
def heads(installed, tmp_path_factory):
    """A small data set, made by the command."""
    folder = tmp_path_factory.mktemp("data")
    sizes = ("--training", 2, "--validation", 2, "--test", 2, "--size", "32,40,32", "--spacing", 5)
    run(installed / "pan-registration", "phantom", "--output_dir", "heads", *sizes, cwd=folder)
    return folder / "heads"


def test_it_holds_configs_weights_licences_and_types(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (metadata,) = (file.read(name).decode() for name in names if name.endswith("dist-info/METADATA"))
    share = ("configs/inference.json", "configs/train.json", "models/model.pt", "docs/data_license.txt", "LICENSE")
    assert {f"bundle/share/{name}" for name in share} | {"bundle/py.typed", "bundle/root.py"} <= names
    assert not [name for name in names if "deploy_app" in name or name.startswith("tests")]
    expression = "Apache-2.0 AND CC-BY-SA-3.0 AND CC-BY-SA-4.0 AND BSD-2-Clause AND MIT AND ISC"
    assert f"License-Expression: {expression}" in metadata
    assert "License-File: bundle/report/assets/viewer.LICENSE.txt" in metadata
    assert "License-File: docs/data_license.txt" in metadata


@pytest.fixture
def source(released, tmp_path):
    """The folder that the source distribution unpacks to."""
    (path,) = (released / "dist").glob("*.tar.gz")
    with tarfile.open(path) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    return folder


def test_the_source_distribution_holds_what_its_own_recipes_and_tests_need(source, bundle_root):
    if not (bundle_root / ".git").exists():
        pytest.skip("what belongs to the repository is known in a checkout alone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=bundle_root, capture_output=True, text=True, check=True)
    left_out = {".ci", ".gitignore", ".pre-commit-config.yaml", "findings"}
    tracked = [name for name in listed.stdout.split("\0") if name and name.split("/")[0] not in left_out]
    assert not [name for name in tracked if not (source / name).is_file()]
    recipes = ["test", "test-zoo", "test-peers", "test-pacs", "test-map", "models", "map", "release", "lint"]
    run("make", "--dry-run", *recipes, cwd=source)
    configs = re.findall(r"--config(?:-file)? \.\./(\S+)", (source / "Makefile").read_text())
    assert configs
    assert not [name for name in configs if not (source / name).is_file()]
    run(sys.executable, "-c", "import release, container.staging", cwd=source)


def test_the_source_distribution_can_be_built_again(wheel, source, tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=source, check=True)
    with zipfile.ZipFile(tmp_path / wheel.name) as again, zipfile.ZipFile(wheel) as first:
        assert {entry.filename: entry.CRC for entry in again.infolist()} == {
            entry.filename: entry.CRC for entry in first.infolist()
        }


def test_weights_that_do_not_belong_to_the_bundle_are_not_packed(released, tmp_path):
    import release

    bundle = tmp_path / NAME
    shutil.copytree(released / NAME, bundle)
    (bundle / "models/hippocampus.pt").unlink()
    with pytest.raises(ValueError, match=r"not the bundle's: move models/hippocampus\.pt elsewhere"):
        release.build_distributions(tmp_path / "dist", bundle)


def test_two_phantoms_are_registered_by_its_command(installed, heads, tmp_path):
    first, second = (heads / item["image"] for item in json.loads((heads / "dataset.json").read_text())["test"])
    run(installed / "pan-registration", "register", first, second, "out", "--affine", "center", cwd=tmp_path)
    result = json.loads((tmp_path / "out" / "registration.json").read_text())
    assert result["similarity_after"] > result["similarity_before"]
    assert (tmp_path / "out" / "transform.h5").is_file()


def test_its_root_is_what_monai_asks_for(installed, root, heads, bundle_root, tmp_path):
    assert "site-packages" in root
    assert not root.startswith(str(bundle_root))
    line = [
        installed / "python",
        "-m",
        "monai.bundle",
        "run",
        "training",
        "--config_file",
        f"{root}/configs/train.json",
    ]
    line += ["--bundle_root", root, "--output_dir", tmp_path / "run", "--dataset_dir", heads, "--epochs", 1]
    run(*line, cwd=tmp_path)
    assert (tmp_path / "run" / "models" / "model.pt").is_file()


def test_the_tests_of_the_commands_pass_on_it(installed, bundle_root, tmp_path):
    shutil.copytree(bundle_root / "tests" / "commands", tmp_path / "tests" / "commands")
    (tmp_path / "tests" / "spatial").mkdir()
    for name in ("tests/conftest.py", "tests/spatial/oblique.py", "pyproject.toml"):
        shutil.copyfile(bundle_root / name, tmp_path / name)
    line = [installed / "python", "-m", "pytest", "-q", "-m", "not slow", "tests/commands"]
    said = run(*line, cwd=tmp_path, environment={"OMP_NUM_THREADS": "1"})
    assert int(re.search(r"(\d+) passed", said)[1]) > FEWEST_OF_THE_COMMANDS
    assert "skipped" not in said
    where = run(installed / "python", "-c", "import bundle; print(bundle.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))
