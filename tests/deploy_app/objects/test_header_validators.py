"""Every object from every header shape before the validators of dicom3tools."""

import subprocess

import numpy as np
import pydicom
import pytest
from every_object import write_all
from hazards import SHAPE as ENHANCED_SHAPE
from hazards import enhanced
from headers import CHARACTER_SETS, SHAPES, as_enhanced_mprage, named_in
from panreg.dicom.frame import Frame
from panreg.objects.modules import UNPAIRED
from propagated import MASKS, as_instances_of_one_frame, label_map
from segments import masks_on, write_segmentation
from structures import contours_of, write_structure_set
from synthetic import (
    FIXED_AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    phantom_registration,
    registration_of,
    stack_of,
    write_phantom_pair,
    write_series,
)
from validators import KNOWN_OF_STUDY, messages

pytestmark = pytest.mark.debian


def errors(paths):
    return {line for path in paths for line in messages("dciodvfy", "-new", path) if line.startswith("Error")}


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
@pytest.mark.property(8)
def test_dciodvfy_finds_no_error_in_any_object_of_any_header_shape(tmp_path, shape, modality):
    registration = phantom_registration(tmp_path, edit=shape, modality=modality)
    moving = registration.moving
    masks = write_segmentation(tmp_path / "masks.dcm", moving, masks_on(MOVING_SHAPE, MOVING_AFFINE))
    rois = write_structure_set(tmp_path / "rt.dcm", moving, [contours_of(MASKS[..., n], MOVING_AFFINE) for n in (0, 1)])
    labels = label_map(tmp_path / "labels.dcm", moving, MASKS[..., 0] + 2 * MASKS[..., 1])
    paths = write_all(tmp_path, registration, [masks, rois, labels])
    assert len(paths) == 9
    assert errors(paths) == set()
    fixed = [frame.path for frame in registration.fixed.frames]
    found = messages("dcentvfy", *fixed, *paths)
    assert [line for line in found if not KNOWN_OF_STUDY.search(line)] == []


@pytest.mark.parametrize("character_set", CHARACTER_SETS, ids=str)
@pytest.mark.property(7)
def test_dciodvfy_finds_no_error_in_any_object_in_any_character_set(tmp_path, character_set):
    registration = phantom_registration(tmp_path, edit=named_in(character_set))
    masks = write_segmentation(tmp_path / "masks.dcm", registration.moving, masks_on(MOVING_SHAPE, MOVING_AFFINE))
    assert errors(write_all(tmp_path, registration, [masks])) == set()


def test_dciodvfy_finds_no_error_in_a_registered_series_of_an_enhanced_image(tmp_path):
    path = enhanced(tmp_path, edit=as_enhanced_mprage)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    from hazards import AFFINE

    frames = tuple(Frame(path, header, n) for n in range(ENHANCED_SHAPE[0], 0, -1))
    fixed = stack_of(write_phantom_pair(tmp_path / "pair")[0], FIXED_AFFINE)
    moving = type(fixed)(frames, AFFINE)
    registration = registration_of(fixed, moving, np.zeros(ENHANCED_SHAPE))
    assert errors(write_all(tmp_path, registration, [])) == set()


def test_dciodvfy_finds_no_error_in_any_object_of_enhanced_images_of_one_frame_each(tmp_path):
    plain = phantom_registration(tmp_path)
    fixed, moving = as_instances_of_one_frame(plain.fixed), as_instances_of_one_frame(plain.moving)
    masks = write_segmentation(tmp_path / "masks.dcm", plain.moving, masks_on(MOVING_SHAPE, MOVING_AFFINE))
    paths = write_all(tmp_path, registration_of(fixed, moving, plain.moving_values), [masks])
    assert errors(paths) == set()
    image = pydicom.dcmread(paths[0])
    assert image.ImagePositionPatient == plain.fixed.frames[0].header.ImagePositionPatient
    assert image.ReferencedImageSequence[0].ReferencedSOPInstanceUID == fixed.frames[0].sop_instance_uid


def test_dciodvfy_takes_the_same_body_parts_for_unpaired(tmp_path):
    (path,) = write_series(tmp_path, np.zeros((1, 8, 8)), np.eye(4))
    ds = pydicom.dcmread(path)

    def asks_for_a_side(part):
        ds.BodyPartExamined = part
        ds.save_as(tmp_path / "x.dcm")
        done = subprocess.run(["dciodvfy", "-new", tmp_path / "x.dcm"], capture_output=True, text=True)
        return "Laterality" in done.stderr

    assert [part for part in sorted(UNPAIRED) if asks_for_a_side(part)] == []
    paired = "KNEE BREAST KIDNEY LUNG EYE HIP EXTREMITY".split()
    assert [part for part in paired if not asks_for_a_side(part)] == []
