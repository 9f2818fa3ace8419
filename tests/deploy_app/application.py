"""Start the application as a platform does, and look at what it leaves."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pydicom

ROOT = Path(__file__).parents[2]
DEFORMABLE, SEG, MR, SR, SC = (
    "1.2.840.10008.5.1.4.1.1.66.3",
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.7",
)


def run(source, output, *options, models=ROOT, **settings):
    """Start the application; settings are environment variables without PANREG_, or with their HOLOSCAN_."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PANREG_", "HOLOSCAN_"))}
    environment |= {
        name if name.startswith("HOLOSCAN_") else f"PANREG_{name}": str(value) for name, value in settings.items()
    }
    line = [sys.executable, ROOT / "deploy_app", "-o", output, "-m", models, *options]
    line += ["-i", source] if source is not None else []
    return subprocess.run([*map(str, line)], capture_output=True, text=True, env=environment, timeout=600)


def manifest_of(output):
    return json.loads((output / "run_manifest.json").read_text())


def objects_of(output, sop_class):
    paths = (output / entry["path"] for entry in manifest_of(output)["outputs"] if entry["sop_class_uid"] == sop_class)
    return [pydicom.dcmread(path) for path in sorted(paths)]


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(done, output):
    """Assert what every refusal has in common; its code."""
    manifest = manifest_of(output)
    assert manifest["status"] == "failed"
    assert manifest["code"] in done.stderr + done.stdout
    assert [path.name for path in output.iterdir()] == ["run_manifest.json"]
    return manifest["code"], done.returncode
