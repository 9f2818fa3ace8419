#!/usr/bin/env bash
# nitransforms 25.1.0 (numpy 2.4.6, scipy 1.17.1, nibabel 5.4.2).
# DenseFieldTransform.map gives a point one voxel outside the field's grid an answer that depends on the other points of
# the same call. If all points of the call lie on whole voxels, the point gets the target of the voxel at the opposite
# face (the index -1 counts from the end); if one of them lies between voxels, it stays where it is.
# It surprises because mapping points is expected to be point by point: a list of points in one call or in several
# should give the same.
# Seen: the point (-1, 2, 2) alone goes to (55, 2, 2), where the voxel at x = 5 goes; in one call with (2.5, 2, 2) it
# stays at (-1, 2, 2).
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    nitransforms==25.1.0 nibabel==5.4.2 scipy==1.17.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import nibabel as nib
import numpy as np
from nitransforms.nonlinear import DenseFieldTransform

displacements = np.zeros((6, 7, 8, 3), np.float32)
displacements[..., 0] = 10 * np.arange(6)[:, None, None]  # x moves by ten times the voxel's index
transform = DenseFieldTransform(nib.Nifti1Image(displacements, np.eye(4)), is_deltas=True)

outside = [-1.0, 2.0, 2.0]
alone = np.asarray(transform.map(np.array([outside])))[0]
with_whole = np.asarray(transform.map(np.array([outside, [2.0, 2, 2]])))[0]
with_fraction = np.asarray(transform.map(np.array([outside, [2.5, 2, 2]])))[0]
print("the voxel at the opposite face, [5, 2, 2]:", np.asarray(transform.map(np.array([[5.0, 2, 2]])))[0])
print(outside, "alone:", alone)
print(outside, "with (2, 2, 2):", with_whole)
print(outside, "with (2.5, 2, 2):", with_fraction)
if not (np.allclose(alone, (55, 2, 2)) and np.allclose(with_whole, alone) and np.allclose(with_fraction, outside)):
    sys.exit("changed: what a point outside the field is mapped to")
PY
