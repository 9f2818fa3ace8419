import os
import tempfile
from pathlib import Path

import pytest
from panreg.failures import Code
from panreg.runtime import scratch


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """An environment and a tempfile module that forget what a test does to them."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("TMPDIR", "CUPY_CACHE_DIR", "MPLCONFIGDIR"):
        os.environ.pop(name, None)


def no_folder():
    raise FileNotFoundError


def test_with_a_home_folder_nothing_is_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    before = dict(os.environ)
    scratch.provide()
    assert os.environ == before


def test_a_home_folder_that_is_read_only_or_absent_is_replaced_for_caches(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "absent")
    os.environ["MPLCONFIGDIR"] = "chosen"
    scratch.provide()
    assert Path(os.environ["CUPY_CACHE_DIR"]).is_dir()
    assert os.environ["MPLCONFIGDIR"] == "chosen"
    assert "TMPDIR" not in os.environ


def test_shared_memory_stands_in_for_a_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", no_folder)
    monkeypatch.setattr(scratch, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    scratch.provide()
    assert (os.environ["TMPDIR"], tempfile.tempdir) == (str(tmp_path), str(tmp_path))


def test_without_any_folder_the_run_ends_with_a_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "gettempdir", no_folder)
    monkeypatch.setattr(scratch, "SHARED_MEMORY", str(tmp_path / "absent"))
    with pytest.raises(SystemExit) as info:
        scratch.provide()
    assert info.value.code == Code.E_OUTPUT.exit_code
    assert "docker run --tmpfs /tmp" in capsys.readouterr().err
