"""What was drawn on the phantom's moving series, propagated and compared with where it is known to lie."""

from copy import deepcopy

import numpy as np
import pydicom
from highdicom.seg import Segmentation, segread
from panreg.objects.segmentation.propagation import propagate_segmentations
from panreg.settings import Settings
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from segments import description, ellipsoid, masks_on
from synthetic import (
    FIXED_AFFINE,
    FIXED_SHAPE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    displacement,
    points_of,
    provenance_of,
    registration_of,
    uid,
)

MASKS = masks_on(MOVING_SHAPE, MOVING_AFFINE)
MASKS[..., 1] &= ~MASKS[..., 0]  # a label map has one label a voxel


def truth(number):
    points = points_of(FIXED_SHAPE, FIXED_AFFINE)
    return ellipsoid(points + displacement(points), number)


def propagate(pair, source, folder, transform=None, settings=None):
    fixed, moving = pair
    registration = registration_of(fixed, moving, np.zeros(MOVING_SHAPE), transform)
    folder.mkdir(exist_ok=True)
    return propagate_segmentations(registration, [source], provenance_of(fixed, moving), settings or Settings(), folder)


def read_on_fixed(path, number):
    """One segment on the fixed grid [k, j, i], found by position: the order of the file's frames does not matter."""
    volume = segread(path).get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
    inverse = np.linalg.inv(volume.affine)
    index = points_of(FIXED_SHAPE, FIXED_AFFINE) @ inverse[:3, :3].T + inverse[:3, 3]
    nearest = np.rint(index).astype(int)
    assert np.abs(index - nearest).max() < 0.01
    inside = ((nearest >= 0) & (nearest < volume.spatial_shape)).all(-1)
    result = np.zeros(FIXED_SHAPE, bool)
    result[inside] = volume.array[tuple(nearest[inside].T)] > 0
    return result


def agreement(mask, expected):
    """Dice, and the largest distance of the centroids along an axis, voxels."""
    if not mask.any():
        return 0.0, np.inf
    apart = np.abs(np.argwhere(mask).mean(0) - np.argwhere(expected).mean(0)).max()
    return 2 * (mask & expected).sum() / (mask.sum() + expected.sum()), apart


def as_multi_frame(fixed):
    """The fixed stack as one legacy converted instance whose frames run against the stack's order."""
    header = deepcopy(fixed.header)
    del header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing
    header.SOPClassUID, header.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.4.4", len(fixed.frames)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = fixed.header.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = fixed.header.PixelSpacing, fixed.header.SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    header.SharedFunctionalGroupsSequence, groups = Sequence([shared]), []
    for frame in reversed(fixed.frames):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = frame.header.ImagePositionPatient
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = Sequence(groups)
    frames = [type(frame)(frame.path, header, len(groups) - k) for k, frame in enumerate(fixed.frames)]
    return type(fixed)(tuple(frames), fixed.affine)


def as_instances_of_one_frame(fixed):
    """The fixed stack as legacy converted instances of one frame each."""
    whole, frames = as_multi_frame(fixed), []
    for own, frame in zip(fixed.frames, whole.frames):
        header = deepcopy(whole.header)
        header.SOPInstanceUID, header.NumberOfFrames = own.sop_instance_uid, 1
        group = whole.header.PerFrameFunctionalGroupsSequence[frame.number - 1]
        header.PerFrameFunctionalGroupsSequence = Sequence([group])
        frames.append(type(frame)(own.path, header, 1))
    return type(fixed)(tuple(frames), fixed.affine)


def label_map(path, moving, labels, numbers=(1, 2), edit=None):
    headers = [pydicom.dcmread(frame.path) for frame in moving.frames]
    ds = Segmentation(
        *(headers, labels, "LABELMAP", [description(n, f"Lesion {n}") for n in numbers]),
        *(uid("labels series"), 9, uid("labels"), 1, "Maker", "Model", "1.0", "1"),
        series_description="Labels",
    )
    if edit is not None:
        edit(ds)
    ds.save_as(path)
    return path
