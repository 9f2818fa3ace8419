"""The image's Python packages: downloaded once under the host's pip settings, listed in a bill of materials."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from container.staging import ROOT

__all__ = ["download", "write_bill"]

SOURCES = {"index-url", "extra-index-url", "find-links", "no-index", "constraint", "pre", "prefer-binary"}


def download(requirements: Path, folder: Path) -> None:
    """Fetch the wheels of the pins, unless the folder holds them already, from where pip's settings say now.

    The build sees no package index and no setting of this host: what it installs lies in this folder.
    """
    stamp, wanted = folder / ".requirements", f"{requirements.read_text()}# sources: {_digest_of_sources()}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    subprocess.run([*pip, "-r", str(requirements), "-d", str(folder)], check=True)
    stamp.write_text(wanted)


def _digest_of_sources() -> str:
    """Digest the settings of pip that decide which wheels it finds; users and passwords of addresses are left out."""
    listing = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    lines = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()
    chosen = [line for line in lines if line.partition("=")[0].rpartition(".")[2] in SOURCES]
    return hashlib.sha256(re.sub(r"//[^/@\s]*@", "//", "\n".join(chosen)).encode()).hexdigest()


def write_bill(wheels: Path, bill: Path, version: str) -> None:
    """Write the CycloneDX bill of materials of exactly these wheels.

    The tool lists an environment; this one holds nothing but the wheels' metadata, so that no tool of the host and no
    test package is listed.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)
        packages = next(Path(folder).glob("lib/python*/site-packages"))
        for wheel in sorted(wheels.glob("*.whl")):
            _unpack_metadata(wheel, packages)
        tool = [sys.executable, "-m", "cyclonedx_py", "environment", str(Path(folder) / "bin" / "python")]
        options = ["--output-reproducible", "--of", "JSON", "--sv", "1.6", "--mc-type", "application"]
        subprocess.run([*tool, *options, "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(bill)], check=True)
    document = json.loads(bill.read_text())
    document["metadata"]["component"]["version"] = version  # which the tool cannot take from code
    bill.write_text(json.dumps(document, indent=2))


def _unpack_metadata(wheel: Path, packages: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.split("/")[0].endswith(".dist-info"):
                archive.extract(name, packages)
