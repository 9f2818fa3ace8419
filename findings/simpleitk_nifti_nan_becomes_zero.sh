#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) with nibabel 5.4.2.
# Of a NIfTI image SimpleITK reads NaN and infinite voxels as 0, without an error or a warning; of the same image as NRRD
# or MetaImage it reads them as they are. It writes them rightly to NIfTI itself, and does not read its own file back.
# It surprises because NaN is how statistical maps, masked parameter maps and fields mark what is missing: as 0 such a
# voxel counts in means, masks and similarity, a displacement field tears there, and a check for NaN after reading never
# finds one. The pass over the voxels is in the NIfTI library that ITK brings along.
# Seen: nibabel finds 1 NaN and 2 infinite voxels in the file, SimpleITK 3 zeros; .nrrd and .mha 1 and 2, no zero.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.2.6
cd "$folder"
cat > read.py <<'PY'
import nibabel
import numpy as np
import SimpleITK as sitk

values = np.ones((4, 5, 6), np.float32)
values[1, 2, 3], values[2, 2, 2], values[3, 3, 3] = np.nan, np.inf, -np.inf


def count(array):
    return int(np.isnan(array).sum()), int(np.isinf(array).sum()), int((array == 0).sum())


for ending in (".nii", ".nii.gz", ".nrrd", ".mha"):
    sitk.WriteImage(sitk.GetImageFromArray(values), "image" + ending)
    print(ending, "SimpleITK", *count(sitk.GetArrayFromImage(sitk.ReadImage("image" + ending))))
    if ending.startswith(".nii"):
        print(ending, "nibabel", *count(np.asarray(nibabel.load("image" + ending).dataobj)))
PY
"$folder/venv/bin/python" read.py | tee seen.txt  # NaN, infinite, zero
cat > expected.txt <<'TXT'
.nii SimpleITK 0 0 3
.nii nibabel 1 2 0
.nii.gz SimpleITK 0 0 3
.nii.gz nibabel 1 2 0
.nrrd SimpleITK 1 2 0
.mha SimpleITK 1 2 0
TXT
diff expected.txt seen.txt || { echo "changed: what SimpleITK makes of NaN in NIfTI"; exit 1; }
