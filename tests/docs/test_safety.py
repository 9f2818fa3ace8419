"""docs/safety.md names the tests that are marked with its hazards and properties, and no others."""

import subprocess
import sys

import pytest
from safety_tables import DOCUMENT, filled, generated, marks

TABLE = "| hazard | requirement | tests |\n|---|---|---|\n| fire | a way out | `test_old` |\n| 7 | it is quick | |\n"
MARKED = """
import pytest
import there_is_no_such_package

@pytest.mark.hazard("fire", "flood")
@pytest.mark.parametrize("door", [1, 2])
@pytest.mark.property(7)
def test_all_get_out(door):
    pass
"""


def test_the_document_names_the_marked_tests(bundle_root):
    assert (bundle_root / DOCUMENT).read_text() == generated(bundle_root)


def test_the_script_says_that_the_document_is_current(bundle_root):
    subprocess.run([sys.executable, bundle_root / "tests/docs/safety_tables.py", "--check"], check=True)


def test_marks_are_found_without_importing_the_test(tmp_path):
    (tmp_path / "test_doors.py").write_text(MARKED)
    found = [("hazard", "fire"), ("hazard", "flood"), ("property", "7")]
    assert [*marks(tmp_path / "test_doors.py")] == [(*mark, "test_all_get_out") for mark in found]


def test_tests_are_written_into_the_rows_that_they_are_marked_with():
    rows = filled(TABLE, {"fire": ["test_all_get_out", "test_alarm"], "7": ["test_all_get_out"]}).splitlines()
    assert rows[:2] == TABLE.splitlines()[:2]
    assert rows[2:] == [
        "| fire | a way out | `test_all_get_out`, `test_alarm` |",
        "| 7 | it is quick | `test_all_get_out` |",
    ]


@pytest.mark.parametrize(
    ("document", "found", "message"),
    [
        (TABLE, {"7": ["test_all_get_out"]}, "no test is marked with 'fire'"),
        (TABLE, {"fire": ["test_a"], "7": ["test_a"], "flood": ["test_a"]}, "no row begins with 'flood'"),
        (TABLE + "| fire | again | |\n", {"fire": ["test_a"], "7": ["test_a"]}, "two rows begin with 'fire'"),
    ],
)
def test_a_row_without_a_test_and_a_mark_without_a_row_are_faults(document, found, message):
    with pytest.raises(ValueError, match=message):
        filled(document, found)


@pytest.mark.parametrize("mark", ["hazard(3)", "property('fire')", "hazard(NAME)"])
def test_a_mark_of_another_kind_is_a_fault(tmp_path, mark):
    (tmp_path / "test_doors.py").write_text(f"@pytest.mark.{mark}\ndef test_all_get_out():\n    pass\n")
    with pytest.raises(ValueError, match=r"hazard\(3\)|property\('fire'\)|malformed"):
        list(marks(tmp_path / "test_doors.py"))
