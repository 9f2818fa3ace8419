"""CT that is not in Hounsfield units: iodine maps, effective atomic numbers, electron densities."""

import numpy as np
import pydicom
import pytest
from panreg.objects.quantisation import quantisation_of
from panreg.objects.registered_series import write_registered_series
from panreg.objects.required_attributes import missing
from panreg.registration.preparation import outside_value
from panreg.settings import Settings
from synthetic import phantom_registration, provenance_of, registration_of
from validators import messages


def map_of(folder, kind, scale=1 / 64):
    """A registration whose moving image is a CT map with values to about 20, in steps of a 64th."""

    def edit(ds, k):
        ds.RescaleType = kind
        if kind is None:
            del ds.RescaleType

    plain = phantom_registration(folder, modality="CT", edit=edit)
    return registration_of(plain.fixed, plain.moving, plain.moving_values * scale)


def write(registration, folder):
    run = provenance_of(registration.fixed, registration.moving), Settings()
    return write_registered_series(registration, *run, folder, run[0].uid("dsro"))


@pytest.mark.parametrize("kind", ["MGML", "Z_EFF", "ED", "US", "mg/ml"])
@pytest.mark.hazard("intensities change")
@pytest.mark.property(11)
def test_ct_in_other_units_keeps_its_fractions_and_its_unit(tmp_path, kind):
    registration = map_of(tmp_path, kind)
    paths = write(registration, tmp_path / "out")
    images = [pydicom.dcmread(path) for path in paths]
    assert [missing(ds) for ds in images] == [[]] * len(images)
    assert {ds.RescaleType for ds in images} == {kind}
    slope = float(images[0].RescaleSlope)
    assert slope < 0.02
    values = np.stack([ds.pixel_array * slope + float(ds.RescaleIntercept) for ds in images])
    pulled = registration.pull(registration.moving_values)
    inside = registration.pull(np.ones_like(registration.moving_values)) > 0.999
    assert np.abs(values - pulled)[inside].max() <= slope / 2 + 1e-3


@pytest.mark.parametrize("kind", [None, "", "HU"])
def test_ct_that_says_nothing_else_is_in_hounsfield_units(tmp_path, kind):
    registration = map_of(tmp_path, kind)
    image = pydicom.dcmread(write(registration, tmp_path / "out")[0])
    assert (image.RescaleType, float(image.RescaleSlope), float(image.RescaleIntercept)) == ("HU", 1, 0)


def test_whole_values_in_other_units_are_stored_as_they_are():
    quantisation = quantisation_of(np.array([0, 900], np.float32), "CT", True, "ED")
    assert (quantisation.slope, quantisation.intercept, quantisation.rescale_type) == ("1", "0", "ED")
    assert quantisation_of(np.array([0, 900], np.float32), "CT", True, "x" * 65).rescale_type == "US"


def test_outside_a_map_is_no_air(tmp_path):
    outside = {}
    for kind in ("HU", "HU_MOD", "US", "MGML"):
        outside[kind] = outside_value(Settings(), map_of(tmp_path / kind, kind).moving)
    assert outside == {"HU": -1024, "HU_MOD": -1024, "US": -1024, "MGML": 0}


@pytest.mark.debian
@pytest.mark.property(8)
def test_dciodvfy_finds_no_error_in_a_map(tmp_path):
    paths = write(map_of(tmp_path, "MGML"), tmp_path / "out")
    assert [line for line in messages("dciodvfy", "-new", paths[0]) if line.startswith("Error")] == []
