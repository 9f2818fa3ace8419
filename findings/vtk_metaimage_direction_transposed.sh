#!/usr/bin/env bash
# VTK 9.7.1 and SimpleITK 2.5.7.
# vtkMetaImageReader fills its DirectionMatrix with the transpose of the direction that ITK wrote in the MetaImage file.
# It surprises because both read the same file format, whose TransformMatrix holds the direction of one axis after the
# other, and VTK's origin and spacing are right: plain grids agree, and so do those along the patient's axes with single
# flips. VTK writes the matrix as it read it, so a round trip through VTK hides it.
# Seen, turned by 0.4 rad about z: voxel (2, 3, 4) at (0.674, 3.542, 4) in SimpleITK and (3.010, 1.984, 4) in VTK.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    vtk==9.7.1 SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import SimpleITK as sitk
from vtkmodules.vtkIOImage import vtkMetaImageReader

c, s = np.cos(0.4), np.sin(0.4)
image = sitk.Image((3, 4, 5), sitk.sitkFloat32)
image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
sitk.WriteImage(image, "turned.mha")

reader = vtkMetaImageReader()
reader.SetFileName("turned.mha")
reader.Update()
matrix = reader.GetOutput().GetDirectionMatrix()
by_vtk = np.array([[matrix.GetElement(i, j) for j in range(3)] for i in range(3)])
by_itk = np.array(sitk.ReadImage("turned.mha").GetDirection()).reshape(3, 3)
point = [0.0, 0.0, 0.0]
reader.GetOutput().TransformIndexToPhysicalPoint(2, 3, 4, point)
print("direction, SimpleITK:", by_itk.round(3).tolist(), "direction, VTK:", by_vtk.round(3).tolist(), sep="\n")
print("voxel (2, 3, 4), SimpleITK:", np.round(image.TransformIndexToPhysicalPoint((2, 3, 4)), 3))
print("voxel (2, 3, 4), VTK:", np.round(point, 3))
if np.allclose(by_vtk, by_itk) or not np.allclose(by_vtk, by_itk.T):
    sys.exit("changed: VTK's direction is no longer the transpose of ITK's")
PY
