"""Tests of our files in other tools and of theirs here, and the table in docs/transforms.md that their results make."""

from pathlib import Path

import pytest
from tests.interop import pair as pairs
from tests.interop import table

DOCUMENT = Path(__file__).parents[2] / "docs" / "transforms.md"
CELLS = pytest.StashKey[list]()


def pytest_addoption(parser):
    parser.addoption("--table", action="store_true", help="write the results into docs/transforms.md")


def pytest_configure(config):
    config.stash[CELLS] = []


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return pairs.make(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def plumb_pair(tmp_path_factory):
    """The same along the axes of space."""
    fixed, moving = pairs.along_the_axes(pairs.FIXED), pairs.along_the_axes(pairs.MOVING)
    centre = pairs.oblique((40, 40, 40), (2.9, 2.8, 2.7), (0, 0, 0), fixed.centre_mm)
    return pairs.make(tmp_path_factory.mktemp("plumb"), fixed, moving, centre)


@pytest.fixture(scope="session")
def alike_pair(tmp_path_factory):
    """Images of one orientation, as the challenges have them: a field in voxels is small."""
    moving = pairs.oblique((50, 46, 40), (-1.9, 1.4, 2.3), (11, -7, 16), pairs.FIXED.centre_mm)
    return pairs.make(tmp_path_factory.mktemp("alike"), moving=moving)


@pytest.fixture
def cell(request):
    """Note a result for the table, and hold it to what it should be."""

    def note(direction, tool, file, mm, tolerance=1e-3, remark=""):
        assert mm <= tolerance, f"{tool}, {file}: {mm} mm"
        request.config.stash[CELLS].append(table.Cell(direction, tool, file, table.at_most(mm), remark))

    return note


@pytest.fixture
def differs(request):
    """Note what a tool does otherwise."""

    def note(direction, tool, file, what):
        request.config.stash[CELLS].append(table.Cell(direction, tool, file, "differs", what))

    return note


def pytest_sessionfinish(session, exitstatus):
    """Fail where a tool was missing; write the table, or hold the document to it, after a whole run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter.stats.get("skipped"):
        print("\nerror: a tool is missing: tests of it were skipped")  # noqa: T201
        session.exitstatus = 1
    if exitstatus != 0 or reporter.stats.get("deselected") or session.testscollected < table.WHOLE:
        return
    made = table.write(session.config.stash[CELLS])
    if session.config.getoption("table"):
        DOCUMENT.write_text(table.put(DOCUMENT.read_text(), made))
    elif made not in DOCUMENT.read_text():
        sentence = f"{DOCUMENT.name} is not what this run found: make test-interop TABLE=--table writes it"
        print(f"\nerror: {sentence}")  # noqa: T201
        session.exitstatus = 1
