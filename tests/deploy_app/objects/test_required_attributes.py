import numpy as np
import pydicom
import pytest
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.objects.registered_series import write_registered_series
from panreg.objects.required_attributes import OBJECTS, missing
from panreg.settings import DeformableSettings, Settings
from synthetic import phantom_registration, provenance_of

SETTINGS = Settings(deformable=DeformableSettings(spacing_mm=6.0, two_items=True))


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Our objects, by SOP Class UID."""
    found = {}
    for modality in ("MR", "CT"):
        folder = tmp_path_factory.mktemp(modality)
        registration = phantom_registration(folder, modality=modality)
        provenance = provenance_of(registration.fixed, registration.moving)
        paths = write_registered_series(registration, provenance, SETTINGS, folder / "registered", "2.25.1")
        write_deformable_registration(registration, provenance, SETTINGS, folder / "d.dcm")
        found |= {ds.SOPClassUID: ds for ds in map(pydicom.dcmread, (paths[12], folder / "d.dcm"))}
    return found


@pytest.mark.property(8)
def test_our_objects_lack_nothing(objects):
    assert len(objects) == 3
    for dataset in objects.values():
        assert missing(dataset) == []


def required(uid):
    return [(keyword, kind) for types in OBJECTS[uid] for kind in (0, 1) for keyword in types[kind].split()]


def test_each_required_attribute_is_missed_when_it_is_gone_or_type_1_and_empty(objects):
    deletions = 0
    for uid, dataset in objects.items():
        for keyword, kind in required(uid):
            element = dataset.pop(keyword, None)
            if keyword != "SOPClassUID":
                assert keyword in missing(dataset)
                deletions += 1
                setattr(dataset, keyword, [] if element.VR == "SQ" else None)
                assert (keyword in missing(dataset)) == (kind == 0 or (keyword, 0) in required(uid))
            dataset[keyword] = element
    assert deletions > 90


@pytest.mark.parametrize(
    ("place", "keyword"),
    [
        ("", "SourceFrameOfReferenceUID"),
        ("DeformableRegistrationGridSequence", "VectorGridData"),
        ("DeformableRegistrationGridSequence", "GridResolution"),
        ("PostDeformationMatrixRegistrationSequence", "FrameOfReferenceTransformationMatrix"),
        ("RegistrationTypeCodeSequence", "CodeValue"),
        ("ReferencedImageSequence", "ReferencedSOPInstanceUID"),
    ],
)
def test_an_attribute_is_missed_inside_a_sequence(objects, place, keyword):
    item = objects["1.2.840.10008.5.1.4.1.1.66.3"].DeformableRegistrationSequence[1]
    item = item[place].value[0] if place else item
    element = item.pop(keyword)
    path = f"DeformableRegistrationSequence[2]/{place + '[1]/' if place else ''}{keyword}"
    assert missing(objects["1.2.840.10008.5.1.4.1.1.66.3"]) == [path]
    item[keyword] = element


def test_an_object_of_another_class_is_not_ours():
    other = pydicom.Dataset()
    other.SOPClassUID, other.PixelData = "1.2.3", np.zeros(4).tobytes()
    assert missing(other) == ["SOPClassUID"]
