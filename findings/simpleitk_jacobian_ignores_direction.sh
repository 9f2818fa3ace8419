#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4).
# DisplacementFieldJacobianDeterminant ignores the direction of the field's image: it takes derivatives along the
# array's axes as if those were the axes of the displacements.
# It surprises because a displacement field of ITK is in physical coordinates, and warping by the same field respects
# the direction. Every usual NIfTI file has a direction that is not the identity (RAS: -1, -1, 1), so growth comes out
# as shrinkage.
# Seen, for the same linear field u(p) = G p, det(I + G) = 1.56: 1.56 on the identity, 0.28 with direction (-1, -1, 1),
# 1.5406 turned by 0.4 rad. Inner voxels, where central differences of a linear field are exact.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import SimpleITK as sitk

size, spacing, origin = np.array((7, 8, 9)), np.array((1, 1.5, 2)), np.array((3, 4, 5))
G = np.array([[0.5, 0.1, 0], [0, 0.3, 0], [0, 0, -0.2]])
truth = np.linalg.det(np.eye(3) + G)
turn = np.array([[np.cos(0.4), -np.sin(0.4), 0], [np.sin(0.4), np.cos(0.4), 0], [0, 0, 1]])
index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
found = {}
for name, direction in {"identity": np.eye(3), "RAS": np.diag([-1.0, -1, 1]), "turned": turn}.items():
    points = origin + (index * spacing) @ direction.T
    field = sitk.GetImageFromArray(np.ascontiguousarray((points @ G.T).transpose(2, 1, 0, 3)), isVector=True)
    field.SetSpacing(spacing.tolist())
    field.SetOrigin(origin.tolist())
    field.SetDirection(direction.ravel().tolist())
    probe = points[3, 4, 4]
    if not np.allclose(
        sitk.DisplacementFieldTransform(sitk.Image(field)).TransformPoint(probe.tolist()), probe + G @ probe
    ):
        sys.exit("the field is not the linear one")
    inner = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))[1:-1, 1:-1, 1:-1]
    found[name] = float(inner.mean())
    print(f"{name:9s} determinant {found[name]:.4f} (spread {np.ptp(inner):.0e}), true {truth:.4f}")
if not np.isclose(found["identity"], truth) or np.isclose(found["RAS"], truth) or np.isclose(found["turned"], truth):
    sys.exit("changed: the determinant on a grid with a direction")
PY
