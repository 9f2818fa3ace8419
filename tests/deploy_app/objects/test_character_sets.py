"""All objects of a run in the character sets of the world: written, and names read back."""

import pydicom
import pytest
from every_object import write_all
from headers import CHARACTER_SETS, named_in
from segments import masks_on, write_segmentation
from synthetic import MOVING_AFFINE, MOVING_SHAPE, phantom_registration


@pytest.mark.parametrize("character_set", CHARACTER_SETS, ids=str)
@pytest.mark.hazard("names are garbled")
@pytest.mark.property(7)
def test_every_object_is_written_in_the_character_set_of_the_fixed_image(tmp_path, character_set):
    registration = phantom_registration(tmp_path, edit=named_in(character_set))
    source = pydicom.dcmread(registration.fixed.frames[0].path)
    masks = write_segmentation(tmp_path / "masks.dcm", registration.moving, masks_on(MOVING_SHAPE, MOVING_AFFINE))
    for path in write_all(tmp_path, registration, [masks]):
        written = pydicom.dcmread(path)
        assert written.SpecificCharacterSet == source.SpecificCharacterSet
        assert written.get_item("PatientName").value == source.get_item("PatientName").value
        assert written.PatientName == CHARACTER_SETS[character_set]
