"""The Model Zoo's linters with the zoo's settings, on all Python code: what is published there is held to them."""

import json
import subprocess
import sys

import pytest

LINTERS = {
    "flake8": [
        "--max-line-length=120",
        "--select=B,C,E,F,N,P,T4,W,B9",
        "--extend-ignore=E203,E501,E741,W503,W504,C408,N812,B023,B905,B028,B907,C419",
        "--per-file-ignores=__init__.py:F401",
    ],
    "black": ["--check", "--line-length=120", "--skip-magic-trailing-comma"],
    "isort": ["--check", "--profile=black", "--line-length=120", "--project=models", "--src=models"],
}


@pytest.mark.parametrize("linter", LINTERS)
def test_the_zoos_linters_find_nothing(bundle_root, tmp_path, linter):
    folders = [str(bundle_root / name) for name in ("bundle", "container", "deploy_app", "tests", "release.py")]
    line = [sys.executable, "-m", linter, *LINTERS[linter], *folders]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)  # there, no settings of ours are found
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_zoos_hooks_find_nothing(released):
    """End of file, trailing whitespace, JSON as the zoo formats it, no file over 1024 kB, no private key."""
    paths = [path for path in (released / "zoo").rglob("*") if path.is_file()]
    assert {path.suffix for path in paths} >= {".py", ".json", ".md", ".txt", ".yml"}
    for path in paths:
        assert path.stat().st_size <= 1024 * 1024, path
        if path.suffix == ".png":
            continue
        text = path.read_bytes().decode()
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), path
        assert "\r" not in text, path
        assert path.suffix == ".ipynb" or all(line == line.rstrip() for line in text.splitlines()), path
        assert "PRIVATE" + " KEY" not in text, path
        if path.suffix == ".json":
            assert text == json.dumps(json.loads(text), indent=4) + "\n", path


def test_no_personal_path_is_published(released):
    for path in (released / "pan_registration").rglob("*"):
        if path.suffix in (".json", ".md", ".py", ".txt", ".ipynb", ".yaml", ".sbatch", ".conf"):
            text = path.read_text()
            assert not [word for word in ("/home/", "/root/", "/Users/", "/tmp/", "C:\\") if word in text], path
