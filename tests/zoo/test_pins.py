"""The pins of constraints.txt hold for every Python that the project takes."""

from importlib.metadata import PackageNotFoundError, metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def test_what_is_pinned_for_the_oldest_python_runs_there(bundle_root):
    """Of the packages that are here: another version may stand in the list for that Python alone."""
    lines = [line.partition("#")[0].strip() for line in (bundle_root / "constraints.txt").read_text().splitlines()]
    looked_at = set()
    for pin in map(Requirement, filter(None, lines)):
        if pin.marker and not pin.marker.evaluate({"python_version": "3.10"}):
            continue
        try:
            about = metadata(pin.name)
        except PackageNotFoundError:  # of another environment
            continue
        if pin.specifier.contains(about["Version"]):
            looked_at.add(pin.name)
            assert SpecifierSet(about.get("Requires-Python", "")).contains("3.10.0"), pin.name
    assert {"monai", "torch", "alembic"} <= looked_at
