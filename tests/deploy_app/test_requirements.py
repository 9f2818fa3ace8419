"""The application's pins against those of the bundle that it carries."""

import sys
from importlib.metadata import metadata, packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it along there
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

APPLICATION, TESTS = ROOT / "deploy_app" / "requirements.txt", ROOT / "tests" / "deploy_app" / "requirements.txt"
BUNDLE = ROOT / "constraints.txt"


def requirements(path, python="3.11"):
    """Read the version of each package that a Python takes."""
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    taken = [
        r
        for r in map(Requirement, filter(None, lines))
        if not r.marker or r.marker.evaluate({"python_version": python})
    ]
    assert len({r.name for r in taken}) == len(taken)
    return {canonicalize_name(r.name): r.specifier for r in taken}


@pytest.mark.parametrize("python", ["3.10", "3.11"])
@pytest.mark.parametrize("path", [APPLICATION, TESTS, BUNDLE], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_requirement_is_one_exact_version(path, python):
    assert requirements(path, "3.10").keys() == requirements(path).keys()
    for specifiers in requirements(path, python).values():
        assert [s.operator for s in specifiers] == ["=="]
        assert not any("*" in s.version for s in specifiers)


@pytest.mark.parametrize("path", [APPLICATION, TESTS], ids=lambda path: path.parent.name)
def test_what_is_pinned_for_the_oldest_python_runs_there(path):
    """Of the packages that are here: another version may stand in the list for that Python alone."""
    for name, specifiers in requirements(path, "3.10").items():
        if specifiers.contains(version(name)):
            assert SpecifierSet(metadata(name).get("Requires-Python", "")).contains("3.10.0"), name


@pytest.mark.parametrize("python", ["3.10", "3.11"])
@pytest.mark.parametrize("path", [APPLICATION, TESTS], ids=lambda path: path.parent.name)
def test_application_and_bundle_pin_what_they_share_to_the_same_version(path, python):
    ours, theirs = requirements(path, python), requirements(BUNDLE, python)
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def test_application_pins_what_the_bundle_needs_to_register():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    assert needed - requirements(APPLICATION).keys() == {"fire", "tensorboard"}  # command line and training


@pytest.mark.parametrize("folder", [ROOT / "deploy_app", ROOT], ids=["application", "repository"])
def test_nothing_at_the_top_of_the_path_hides_the_standard_library_or_an_installed_package(folder):
    modules = [path.stem for path in folder.iterdir() if path.suffix == ".py" and path.stem != "__main__"]
    packages = [path.parent.name for path in folder.glob("*/__init__.py")]
    others = {name for name, owners in packages_distributions().items() if set(owners) != {"pan-registration"}}
    hidden = sys.stdlib_module_names | others
    assert packages
    assert not hidden.intersection(modules + packages)
