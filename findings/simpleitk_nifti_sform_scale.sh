#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) and nibabel 5.4.2.
# A NIfTI file that gives its geometry by the sform alone (qform code 0), whose columns are 2, 2.5 and 3 mm long while
# pixdim says 1, 1, 1: SimpleITK takes the directions and the origin from the sform but the voxel size from pixdim.
# It surprises because the standard derives the position of a voxel from the sform alone when only the sform is set (its
# "method 3" does not use pixdim); nibabel does so. The file opens, with no more than a warning about "unexpected
# scales".
# Seen: nibabel 2 x 2.5 x 3 mm, SimpleITK 1 x 1 x 1 mm; the far corner lies 14.7 mm apart.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

shape = (5, 6, 7)
affine = np.diag([2.0, 2.5, 3.0, 1.0])
affine[:3, 3] = (-10, 20, 30)
header = nib.Nifti1Header()
header.set_data_shape(shape)
header.set_sform(affine, code=1)
header["qform_code"] = 0
header["pixdim"][1:4] = 1
nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), None, header), "sform.nii")

loaded = nib.load("sform.nii")
image = sitk.ReadImage("sform.nii")
last = np.array(shape) - 1
by_nibabel = nib.affines.apply_affine(loaded.affine, last)
by_itk = np.array(image.TransformIndexToPhysicalPoint(last.tolist())) * (-1, -1, 1)
size = nib.affines.voxel_sizes(loaded.affine)
print("codes (qform, sform):", int(loaded.header["qform_code"]), int(loaded.header["sform_code"]))
print("pixdim in the file:", loaded.header["pixdim"][1:4])
print("voxel size, nibabel:", size, " SimpleITK:", image.GetSpacing())
print("origin (RAS), nibabel:", loaded.affine[:3, 3], " SimpleITK:", np.array(image.GetOrigin()) * (-1, -1, 1))
print("far corner, mm apart:", round(float(np.linalg.norm(by_nibabel - by_itk)), 2))
if not (np.allclose(size, (2, 2.5, 3)) and np.allclose(image.GetSpacing(), 1)):
    sys.exit("changed: SimpleITK no longer takes the voxel size from pixdim")
PY
