#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) and nibabel 5.4.2.
# A NIfTI file in microns (xyzt_units 3, as in microscopy and small-animal work): SimpleITK scales the voxel size and
# the origin to mm, nibabel's affine and zooms keep the numbers as they stand.
# It surprises because both give "the" geometry of the file and agree on every file in mm; the factor is 1000, and
# SimpleITK writes the file back in mm, so that the two numbers in nibabel differ before and after.
# Seen, for voxels of 25 microns: nibabel 25, SimpleITK 0.025; after SimpleITK has written it: nibabel 0.025 and "mm".
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

affine = np.diag([25.0, 25, 25, 1])
affine[:3, 3] = (-100, -200, 300)
image = nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), affine)
image.header.set_xyzt_units("micron")
nib.save(image, "micron.nii")


def say(path):
    loaded, by_itk = nib.load(path), sitk.ReadImage(path)
    size, origin = nib.affines.voxel_sizes(loaded.affine), np.array(by_itk.GetOrigin()) * (-1, -1, 1)
    print(path, "unit:", loaded.header.get_xyzt_units()[0])
    print("  nibabel: voxel", size, "origin", loaded.affine[:3, 3])
    print("  SimpleITK: voxel", by_itk.GetSpacing(), "origin (RAS)", origin)
    return size[0], by_itk.GetSpacing()[0], loaded.affine[0, 3], origin[0]


before = say("micron.nii")
sitk.WriteImage(sitk.ReadImage("micron.nii"), "again.nii")
after = say("again.nii")
if not (np.allclose(before, (25, 0.025, -100, -0.1)) and np.allclose(after, (0.025, 0.025, -0.1, -0.1))):
    sys.exit("changed: what becomes of a file in microns")
PY
