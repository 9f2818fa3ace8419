"""The grid of an object as a stack: what results lie on where no fixed series is named."""

from pathlib import Path

import numpy as np
from panreg.dicom.elements import decimal
from panreg.dicom.frame import Frame
from panreg.failures import Code, Failure
from panreg.ingest.stack import Stack
from panreg.objects.deformable.reader import DeformableRegistration, Deformation
from pydicom import Dataset

__all__ = ["stack_of_grid"]


def stack_of_grid(registration: DeformableRegistration, deformation: Deformation, path: Path) -> Stack:
    """Build a stack without images on an object's own grid, in the object's patient and study.

    Raises:
        Failure: E_NO_MATCH if the object has no grid.
    """
    if deformation.grid is None:
        raise Failure(Code.E_NO_MATCH, "The registration object has no grid for this series; name a fixed series.")
    affine, (slices, rows, columns) = deformation.grid.affine, deformation.grid.vectors.shape[:3]
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    header = Dataset()
    header.update({element.tag: element for element in registration.header})
    header.Rows, header.Columns, header.SliceThickness = rows, columns, decimal(sides[2])
    header.PixelSpacing = [decimal(sides[1]), decimal(sides[0])]
    header.ImageOrientationPatient = [decimal(value) for value in (affine[:3, :2] / sides[:2]).T.ravel()]
    frames = []
    for k in range(slices):
        plane = Dataset()
        plane.update({element.tag: element for element in header})
        plane.ImagePositionPatient = [decimal(value) for value in affine[:3, 3] + k * affine[:3, 2]]
        frames.append(Frame(path, plane))
    return Stack(tuple(frames), affine)
