from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from bundle.io.files import write_text
from bundle.io.tables import read_csv, write_csv


def test_the_columns_of_a_table_are_those_of_all_its_rows(tmp_path):
    write_csv(tmp_path / "table.csv", [{"pair": "a", "folding": 0.5}, {"pair": "b", "dice": 0.25, "folding": 1.0}])
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "pair,folding,dice",
        "a,0.500000,",
        "b,1.000000,0.250000",
    ]
    assert read_csv(tmp_path / "table.csv")[0]["dice"] == ""


def test_a_table_is_in_utf8_whatever_names_it_holds(tmp_path):
    write_csv(tmp_path / "table.csv", [{"moving": "/d/é脳.nii"}, {"moving": "/d/\udcff.nii"}])
    assert [row["moving"] for row in read_csv(tmp_path / "table.csv")] == ["/d/é脳.nii", "/d/\\udcff.nii"]
    assert "é脳" in (tmp_path / "table.csv").read_bytes().decode("utf-8")


class Cell:
    """A cell at whose writing something happens."""

    def __init__(self, happens, text="x"):
        self.happens, self.text = happens, text

    def __str__(self):
        self.happens()
        return self.text


def test_a_table_whose_writing_is_broken_off_stays_as_it_was(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, [{"epoch": 1}])

    def end():
        assert read_csv(path) == [{"epoch": "1"}]  # in between, too: a kill leaves it
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_csv(path, [{"epoch": 1}, {"epoch": Cell(end)}])
    assert read_csv(path) == [{"epoch": "1"}]
    assert [*tmp_path.iterdir()] == [path]


def test_two_writers_of_one_table_at_once_each_write_a_whole_one(tmp_path):
    path, both = tmp_path / "batch.csv", Barrier(2, timeout=20)
    tables = [[{"pair": Cell(both.wait, name)}, {"pair": name}] for name in "ab"]
    with ThreadPoolExecutor(2) as pool:  # of one process, as two containers have one process number
        for written in [pool.submit(write_csv, path, rows) for rows in tables]:
            written.result()
    assert [row["pair"] for row in read_csv(path)] in (["a", "a"], ["b", "b"])
    assert [*tmp_path.iterdir()] == [path]


def test_a_text_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "made" / "terms.json"
    write_text(path, "äöü\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "a" * 10000 + "\udc80")
    assert path.read_bytes() == "äöü\n".encode()
    assert [*path.parent.iterdir()] == [path]
