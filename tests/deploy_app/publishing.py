"""Runs that publish objects, without a registration."""

import json
import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from panreg.failures import Failure
from panreg.output.manifest import Manifest
from panreg.output.publication import Publication, output_failures
from synthetic import FIXED_AFFINE, write_series

SLICES = 2
PAGE = "<p>a page</p>"


@cache
def objects():
    """Bytes of a series in a folder, and of one object beside it, by path."""
    with TemporaryDirectory() as folder:
        paths = write_series(Path(folder) / "registered", np.ones((SLICES, 4, 5)), FIXED_AFFINE, name="registered")
        paths += write_series(folder, np.ones((1, 4, 5)), FIXED_AFFINE, name="report")
        return {path.relative_to(folder): path.read_bytes() for path in paths}


def write_objects(staging):
    """What the writers do, with a page beside the objects."""
    (staging / "report.html").write_text(PAGE)
    (staging / "registered").mkdir()
    for path, content in objects().items():
        (staging / path).write_bytes(content)


def run(output, work=None, write=write_objects, validators=()):
    """A whole run, as the application does it; the failure's code or None."""
    with Publication(output, work) as publication:
        manifest = Manifest(output)
        try:
            with output_failures():
                write(publication.staging)
            manifest.succeed(publication.publish(validators), publication.page)
        except Failure as failure:
            publication.withdraw()
            return manifest.fail(failure)


def failed(action):
    with pytest.raises(Failure) as info:
        action()
    return info.value


def status_of(output):
    path = output / "run_manifest.json"
    return json.loads(path.read_text())["status"] if path.exists() else None


def is_complete(output):
    files = sorted(path for path in (output / "dicom").rglob("*") if path.is_file())
    assert len(files) == SLICES + 1
    return all("PixelData" in pydicom.dcmread(path) for path in files)


def names_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def is_published(output):
    if not (output / "dicom").exists() or not is_complete(output) or status_of(output) != "ok":
        return False
    return (output / "report.html").read_text() == PAGE


def in_child(action):
    """Do something in a process of its own; its exit status, or the signal that killed it, negative."""
    process = os.fork()
    if process == 0:
        status = 99
        try:
            status = action() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def exit_code_of(action):
    try:
        code = action()
    except Failure as failure:
        code = failure.code
    return code.exit_code if code else 0
