"""Objects that highdicom made, before the validators of dicom3tools."""

import re
import subprocess

import numpy as np
import pydicom
import pytest
from panreg.objects.montage import write_montage
from panreg.objects.quality_report import MEASUREMENTS, write_quality_report
from panreg.objects.segmentation.propagation import propagate_segmentations
from panreg.settings import Settings
from segments import masks_on, write_segmentation
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    provenance_of,
    registration_of,
    stack_of,
    write_phantom_pair,
)
from validators import KNOWN_OF_STUDY, messages

pytestmark = pytest.mark.debian

# What the validators of 2022 do not know, or what the standard leaves to the writer.
KNOWN = re.compile("DeviceUID|99PANREG|Laterality.* only permitted to be empty")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of the fixed study, and our objects by name."""
    folder = tmp_path_factory.mktemp("objects")
    paths = write_phantom_pair(folder)
    fixed, moving = stack_of(paths[0], FIXED_AFFINE), stack_of(paths[1], MOVING_AFFINE)
    registration = registration_of(fixed, moving, np.zeros(MOVING_SHAPE), warnings=("A warning.",))
    run = provenance_of(fixed, moving), Settings()
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    objects = {
        "report": write_quality_report(
            registration, dict.fromkeys(MEASUREMENTS, 0.5), ["a limit"], *run, folder / "report.dcm"
        ),
        "montage": write_montage(registration, *run, folder / "montage.dcm"),
    }
    for kind, values in (("BINARY", masks), ("FRACTIONAL", masks * 0.5)):
        (folder / kind).mkdir()
        source = write_segmentation(folder / f"{kind}.dcm", moving, values, kind=kind)
        (objects[kind],) = propagate_segmentations(registration, [source], *run, folder / kind).paths
    return paths[0], objects


@pytest.mark.parametrize("name", ["report", "montage", "BINARY", "FRACTIONAL"])
def test_dciodvfy_finds_no_error_and_warns_only_of_what_is_known(written, name):
    found = messages("dciodvfy", "-new", written[1][name])
    assert [line for line in found if line.startswith("Error") or not KNOWN.search(line)] == []


@pytest.mark.parametrize("name", ["report", "montage", "BINARY", "FRACTIONAL"])
def test_dcentvfy_finds_one_patient_and_one_study(written, name):
    found = messages("dcentvfy", *written[0], written[1][name])
    assert [line for line in found if not KNOWN_OF_STUDY.search(line)] == []


def test_dcentvfy_says_the_same_of_a_report_that_dcmtk_has_written(written, tmp_path):
    with open(tmp_path / "report.xml", "wb") as document:
        subprocess.run(["dsr2xml", written[1]["report"]], stdout=document, check=True)
    subprocess.run(["xml2dsr", tmp_path / "report.xml", tmp_path / "report.dcm"], check=True)
    assert pydicom.dcmread(tmp_path / "report.dcm").file_meta.ImplementationVersionName.startswith("OFFIS_DCMTK")
    found = messages("dcentvfy", *written[0], tmp_path / "report.dcm")
    assert found
    assert all(KNOWN_OF_STUDY.search(line) for line in found)


def test_the_validators_see_a_fault(written, tmp_path):
    ds = pydicom.dcmread(written[1]["montage"])
    del ds.ConversionType
    ds.PatientID = "another"
    ds.save_as(tmp_path / "fault.dcm")
    assert any("ConversionType" in line for line in messages("dciodvfy", "-new", tmp_path / "fault.dcm"))
    assert messages("dcentvfy", *written[0], tmp_path / "fault.dcm")
