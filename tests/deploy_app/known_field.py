"""The deformation object of the semantic phantom: written, changed, and held against the field that is known."""

from pathlib import Path

import numpy as np
import pydicom
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.settings import DeformableSettings, Settings
from scipy.ndimage import map_coordinates
from synthetic import MOVING_SHAPE, displacement, provenance_of, scene

MARGIN = (slice(2, -2), slice(3, -3), slice(3, -3))
CORRECT_GREY, CORRECT_MM = 1.0, 0.15


def settings_of(**deformable):
    return Settings(deformable=DeformableSettings(**deformable))


def write(registration, path, settings=None, **changes):
    provenance = provenance_of(registration.fixed, registration.moving, **changes)
    return write_deformable_registration(registration, provenance, settings or Settings(), path)


def grid_of(dataset):
    return dataset.DeformableRegistrationSequence[-1].DeformableRegistrationGridSequence[0]


def edited(path, folder, edit, **options):
    """Read an object, change it, and write it again."""
    dataset = pydicom.dcmread(path)
    edit(dataset)
    pydicom.dcmwrite(Path(folder) / "edited.dcm", dataset, enforce_file_format=True, **options)
    return Path(folder) / "edited.dcm"


def scores(deformation, registration):
    """Mean absolute error in grey values, and the largest distance from the known displacement, mm."""
    points = registration.fixed.points()[MARGIN]
    found = deformation.displacement_at(points).numpy()
    inverse = np.linalg.inv(registration.moving.affine)
    true = (points + displacement(points)) @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((true >= 0) & (true <= np.array(MOVING_SHAPE[::-1]) - 1)).all(-1)
    found = np.nan_to_num(found, nan=1e3)
    index = (points + found) @ inverse[:3, :3].T + inverse[:3, 3]
    warped = np.rint(map_coordinates(registration.moving_values, np.moveaxis(index[..., ::-1], -1, 0), order=1))
    grey = np.abs(warped - np.rint(scene(points + displacement(points))))[inside].mean()
    return grey, np.linalg.norm(found - displacement(points), axis=-1).max()


def is_right(deformation, registration, limit_mm=CORRECT_MM):
    grey, distance = scores(deformation, registration)
    return grey < CORRECT_GREY and distance < limit_mm
