"""The image's Python packages: downloaded once under the host's pip settings, listed in a bill of materials."""

import json
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from container.staging import ROOT

__all__ = ["download", "write_bill"]


def download(requirements: Path, folder: Path) -> None:
    """Fetch the wheels of the pins, unless the folder holds them already.

    The build sees no package index and no setting of this host: what it installs lies in this folder.
    """
    stamp, wanted = folder / ".requirements", requirements.read_text()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    subprocess.run([*pip, "-r", str(requirements), "-d", str(folder)], check=True)
    stamp.write_text(wanted)


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
