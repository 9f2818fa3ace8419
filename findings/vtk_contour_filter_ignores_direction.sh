#!/usr/bin/env bash
# vtk 9.7.2.
# `vtkContourFilter` ignores the direction matrix of an image: its surface lies where the image would lie with the
# identity. `vtkFlyingEdges3D` and `vtkMarchingCubes` put the surface of the same image where it belongs, and so does
# `vtkContourFilter` itself with `SetFastMode(True)`, which hands the image to another filter: the default goes through
# `vtkSynchronizedTemplates3D`.
# It surprises because the image's own `TransformIndexToPhysicalPoint`, the cutter, the probe and the threshold filter
# all follow the matrix, because the general filter is expected to do what the special ones do, and because a mode named
# after its speed changes the place. `itk.vtk_image_from_image` hands the direction on; of an oblique image, or of one
# stored from left to right, it is not the identity.
# Seen, centre of the surface of a ball in an image turned by 0.5 rad about z, truly at (10.97, 26.36, 22.00):
# vtkContourFilter (20.00, 21.00, 22.00), vtkContourFilter fast, vtkFlyingEdges3D and vtkMarchingCubes the true one.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vtk==9.7.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkFiltersCore import (
    vtkContourFilter,
    vtkFlyingEdges3D,
    vtkMarchingCubes,
    vtkSynchronizedTemplates3D,
)

n, middle = 32, 15
z, y, x = np.mgrid[:n, :n, :n]
values = 10 - np.sqrt((x - middle) ** 2 + (y - middle) ** 2 + (z - middle) ** 2)
c, s = np.cos(0.5), np.sin(0.5)
image = vtkImageData()
image.SetDimensions(n, n, n)
image.SetOrigin(5, 6, 7)
image.SetDirectionMatrix(c, -s, 0, s, c, 0, 0, 0, 1)
image.GetPointData().SetScalars(numpy_to_vtk(values.ravel(), deep=True))

true = [0.0, 0.0, 0.0]
image.TransformContinuousIndexToPhysicalPoint((middle, middle, middle), true)
unturned = np.add((5, 6, 7), middle)
print("true centre".ljust(28), np.round(true, 2))


def centre(of, **settings):
    made = of()
    for name, value in settings.items():
        getattr(made, f"Set{name}")(value)
    made.SetInputData(image)
    made.SetValue(0, 0.0)
    made.Update()
    points = vtk_to_numpy(made.GetOutput().GetPoints().GetData()).astype(np.float64)
    return points.mean(0)


failed = False
for name, found, expected in (
    ("vtkContourFilter", centre(vtkContourFilter), unturned),
    ("vtkSynchronizedTemplates3D", centre(vtkSynchronizedTemplates3D), unturned),
    ("vtkContourFilter, fast", centre(vtkContourFilter, FastMode=True), true),
    ("vtkFlyingEdges3D", centre(vtkFlyingEdges3D), true),
    ("vtkMarchingCubes", centre(vtkMarchingCubes), true),
):
    print(name.ljust(28), found.round(2))
    if not np.allclose(found, expected, atol=0.01):
        failed = True
        print(f"  expected {np.round(expected, 2)}")
sys.exit(failed)
PY
