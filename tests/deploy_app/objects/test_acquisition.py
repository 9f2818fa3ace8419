"""What a registered image keeps of the moving image's acquisition, and what of it can't be kept."""

from copy import deepcopy

import numpy as np
import pydicom
import pytest
from hazards import AFFINE as ENHANCED_AFFINE
from hazards import SHAPE as ENHANCED_SHAPE
from hazards import enhanced
from panreg.dicom.frame import Frame
from panreg.objects.registered_series import write_registered_series
from panreg.objects.required_attributes import missing
from panreg.settings import Settings
from pydicom import Dataset
from synthetic import FIXED_AFFINE, phantom_registration, provenance_of, registration_of, stack_of, write_phantom_pair
from validators import messages

AGENT = {
    **{"ContrastBolusAgent": "Gadobutrol", "ContrastBolusRoute": "IV", "ContrastBolusVolume": "7.5"},
    **{"ContrastBolusStartTime": "101200", "ContrastBolusStopTime": "101230", "ContrastBolusTotalDose": "7.5"},
    **{"ContrastBolusIngredient": "GADOLINIUM", "ContrastBolusIngredientConcentration": "1"},
}


@pytest.fixture(scope="module")
def registration(tmp_path_factory):
    return phantom_registration(tmp_path_factory.mktemp("phantom"))


def write(registration, folder):
    run = provenance_of(registration.fixed, registration.moving), Settings()
    return pydicom.dcmread(write_registered_series(registration, *run, folder, run[0].uid("dsro"))[0])


def with_moving(registration, edit):
    """The registration with every header of the moving stack changed."""
    moving = deepcopy(registration.moving)
    for header in moving.instances():
        edit(header)
    return registration_of(registration.fixed, moving, registration.moving_values)


def setting(**values):
    def edit(header):
        for keyword, value in values.items():
            setattr(header, keyword, value)

    return edit


def agent_code(meaning="Gadobutrol"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "418351005", "SCT", meaning
    return item


def test_the_contrast_agent_of_the_moving_image_is_kept(registration, tmp_path):
    image = write(with_moving(registration, setting(**AGENT, ContrastBolusAgentSequence=[agent_code()])), tmp_path)
    assert {keyword: str(image[keyword].value) for keyword in AGENT} == AGENT
    assert image.ContrastBolusAgentSequence[0].CodeMeaning == "Gadobutrol"
    assert missing(image) == []
    assert "ContrastBolusAgent" not in write(registration, tmp_path / "without")
    empty = setting(ContrastBolusAgent="", ContrastBolusVolume="7.5")
    assert "ContrastBolusVolume" not in write(with_moving(registration, empty), tmp_path / "empty")


def test_a_bolus_has_no_time_that_another_time_zone_can_not_tell(registration, tmp_path):
    fixed = deepcopy(registration.fixed)
    for header in fixed.instances():
        header.TimezoneOffsetFromUTC = "-0500"
    moving = with_moving(registration, setting(**AGENT, TimezoneOffsetFromUTC="+0530")).moving
    image = write(registration_of(fixed, moving, registration.moving_values), tmp_path)
    assert image.ContrastBolusAgent == "Gadobutrol"
    assert "ContrastBolusStartTime" not in image
    assert "ContrastBolusStopTime" not in image


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("date", "time", "told"),
    [
        *(("20240110", "101500.25", ("20240110", "004500.25")), ("20240110", "1015", ("20240110", "0045"))),
        *(("20240110", "10", None), ("00010101", "000000", None), ("00011231", "120000", ("00011231", "023000"))),
        *(("99991231", "235960", None), ("20240110", "", None), ("", "101500", None)),
    ],
)
def test_a_date_and_a_time_are_converted_as_exactly_as_they_are_and_no_more(registration, tmp_path, date, time, told):
    times = {"AcquisitionDate": date, "AcquisitionTime": time}
    image = write(in_two_time_zones(registration, "+0430", **times), tmp_path)
    assert (image.get("AcquisitionDate"), image.get("AcquisitionTime")) == (told or (None, None))


@pytest.mark.parametrize("zone", ["+0900", "-0900"])
@pytest.mark.parametrize("moment", ["202301", "00010101000000", "99991231235959", "20230105101500.25", "2023"])
def test_a_date_time_names_its_zone_and_stays_as_it_is(registration, tmp_path, zone, moment):
    image = write(in_two_time_zones(registration, zone, AcquisitionDateTime=moment), tmp_path / "x")
    assert image.AcquisitionDateTime == f"{moment}{zone}"
    own = in_two_time_zones(registration, zone, AcquisitionDateTime=f"{moment}-0300")
    assert write(own, tmp_path / "y").AcquisitionDateTime == f"{moment}-0300"


def in_two_time_zones(registration, zone, **times):
    fixed = deepcopy(registration.fixed)
    for header in fixed.instances():
        header.TimezoneOffsetFromUTC = "-0500"
    moving = with_moving(registration, setting(TimezoneOffsetFromUTC=zone, **times)).moving
    return registration_of(fixed, moving, registration.moving_values)


def of_enhanced(folder, edit):
    path = enhanced(folder, edit=edit)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    fixed = stack_of(write_phantom_pair(folder / "pair")[0], FIXED_AFFINE)
    frames = tuple(Frame(path, header, n) for n in range(ENHANCED_SHAPE[0], 0, -1))
    return registration_of(fixed, type(fixed)(frames, ENHANCED_AFFINE), np.zeros(ENHANCED_SHAPE))


@pytest.mark.parametrize("administered", ["YES", "NO"])
def test_the_agent_of_an_enhanced_image_is_named_by_its_code(tmp_path, administered):
    def edit(ds):
        agent, usage = agent_code(), Dataset()
        agent.ContrastBolusAgentNumber, agent.ContrastBolusVolume = 1, "7.5"
        usage.ContrastBolusAgentNumber, usage.ContrastBolusAgentAdministered = 1, administered
        ds.ContrastBolusAgentSequence = [agent]
        ds.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence = [usage]

    image = write(of_enhanced(tmp_path, edit), tmp_path / "out")
    if administered == "NO":
        assert "ContrastBolusAgent" not in image
        return
    assert image.ContrastBolusAgent == "Gadobutrol"
    assert [set(item.dir()) for item in image.ContrastBolusAgentSequence] == [
        {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}
    ]


@pytest.mark.debian
@pytest.mark.property(8)
def test_dciodvfy_finds_no_error_in_a_contrast_enhanced_series(registration, tmp_path):
    write(with_moving(registration, setting(**AGENT, ContrastBolusAgentSequence=[agent_code()])), tmp_path)
    assert [line for line in messages("dciodvfy", "-new", tmp_path / "0001.dcm") if line.startswith("Error")] == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
@pytest.mark.parametrize(
    ("kind", "kept"), [("AXIAL", "AXIAL"), ("Axial", "OTHER"), ("A" * 17, "OTHER"), ("M", "M"), (None, "OTHER")]
)
def test_a_kind_of_image_that_breaks_the_standard_is_the_usual_one(registration, tmp_path, kind, kept):
    values = ["ORIGINAL", "PRIMARY"] + ([kind] if kind else [])
    assert write(with_moving(registration, setting(ImageType=values)), tmp_path).ImageType[2] == kept


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_sequence_that_breaks_the_standard_is_unknown(registration, tmp_path):
    assert write(with_moving(registration, setting(ScanningSequence="SE/EP")), tmp_path).ScanningSequence == "RM"


@pytest.mark.parametrize("window", [("", ""), ("40", ""), ("", "400"), (None, "400"), ("40", None), ("40", ["9", "8"])])
def test_half_a_window_is_none(registration, tmp_path, window):
    def edit(header):
        for keyword, value in zip(("WindowCenter", "WindowWidth"), window):
            if value is not None:
                setattr(header, keyword, value)
        header.VOILUTFunction, header.WindowCenterWidthExplanation = "LINEAR", "Brain"

    image = write(with_moving(registration, edit), tmp_path)
    parts = ("WindowCenter", "WindowWidth", "VOILUTFunction", "WindowCenterWidthExplanation")
    assert [keyword for keyword in parts if keyword in image] == []
