#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4), pynrrd 1.1.3, nibabel 5.4.2.
# SimpleITK reads a sheared image (axes not at right angles) from NRRD and keeps the shear, writes it to NIfTI
# straightened, in the sform too, and refuses to read the same axes from a NIfTI file.
# It surprises because a sform can hold a shear, NRRD and MetaImage keep it, and WriteImage succeeds: the image that
# comes back lies elsewhere than the one written. All that is said is a warning, "coerced to orthogonal".
# Seen: voxel (0, 3, 0) moves by 0.78 mm in the round trip; nibabel finds the straightened axes in qform and sform; the
# same shear written into a sform by nibabel gives "ITK only supports orthonormal direction cosines".
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 pynrrd==1.1.3 nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import nibabel as nib
import nrrd
import numpy as np
import SimpleITK as sitk

values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
axes = np.array([[1, 0, 0], [0.5, 1, 0], [0, 0, 2.0]])  # a row an axis, as in NRRD; the second one leans
nrrd.write(
    "shear.nrrd", values, {"space": "left-posterior-superior", "space directions": axes, "space origin": [0, 0, 0]}
)
image = sitk.ReadImage("shear.nrrd")


def place(image):
    return np.array(image.TransformIndexToPhysicalPoint((0, 3, 0)))


sitk.WriteImage(image, "shear.mha")
sitk.WriteImage(image, "shear.nii")
straightened = sitk.ReadImage("shear.nii")
moved = float(np.linalg.norm(place(straightened) - place(image)))
header = nib.load("shear.nii").header
columns = header.get_sform()[:3, :3]
print("voxel (0, 3, 0), expected:", 3 * axes[1], "from NRRD:", place(image))
print("after MetaImage:", place(sitk.ReadImage("shear.mha")), "after NIfTI:", place(straightened).round(3))
print("moved by NIfTI:", round(moved, 3), "mm; codes:", int(header["qform_code"]), int(header["sform_code"]))
print("first two axes of the sform written, dot product:", round(float(columns[:, 0] @ columns[:, 1]), 6))
affine = np.eye(4)
affine[:3, :3] = np.diag([-1, -1, 1]) @ axes.T
sheared = nib.Nifti1Image(values, None)
sheared.set_sform(affine, code=1)
nib.save(sheared, "sform.nii")
try:
    sitk.ReadImage("sform.nii")
    refused = False
except RuntimeError as error:
    refused = "orthonormal" in str(error)
    print("the same axes in a sform:", str(error).strip().splitlines()[-1])
kept = np.allclose(place(image), 3 * axes[1]) and np.allclose(place(sitk.ReadImage("shear.mha")), 3 * axes[1])
if not (kept and refused and moved > 0.5 and abs(columns[:, 0] @ columns[:, 1]) < 1e-4):
    sys.exit("changed: what SimpleITK makes of a shear")
PY
