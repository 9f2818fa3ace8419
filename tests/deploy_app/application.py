"""Start the application as a platform does, and look at what it leaves."""

import hashlib
import json
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pydicom
from tests.forked import run_forked

ROOT = Path(__file__).parents[2]
PACKAGES = ["torch", "monai.deploy.core", "monai.bundle", "monai.data", "monai.engines", "ignite.engine", "highdicom"]
PACKAGES += ["SimpleITK", "nibabel", "scipy.ndimage", "scipy.optimize", "matplotlib.backends.backend_agg", "tqdm"]
DEFORMABLE, SEG, MR, SR, SC = (
    "1.2.840.10008.5.1.4.1.1.66.3",
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.7",
)


def run(source, output, *options, models=ROOT, fresh=False, **settings):
    """Start the application; settings are environment variables without PANREG_, or with their HOLOSCAN_.

    ``fresh`` starts a new interpreter, as a platform does; else a process with other packages imported already.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PANREG_", "HOLOSCAN_"))}
    environment |= {
        name if name.startswith("HOLOSCAN_") else f"PANREG_{name}": str(value) for name, value in settings.items()
    }
    line = [ROOT / "deploy_app", "-o", output, "-m", models]
    line += ["-i", source] if source is not None else []
    line += options
    words = [str(word) for word in line]
    if fresh:
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=600)
    return run_forked(words, partial(_run_folder, environment=environment), PACKAGES, timeout=600)


def _run_folder(line, environment):
    """Take the place of ``python FOLDER``, with an environment."""
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]
    runpy.run_path(line[0], run_name="__main__")


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
