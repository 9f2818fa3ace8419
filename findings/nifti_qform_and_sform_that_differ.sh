#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) and nibabel 5.4.2.
# A NIfTI file may hold two geometries. With qform code 1 (scanner) and sform code 2 or more (aligned, Talairach, MNI)
# that differ, SimpleITK takes the qform and nibabel the sform. With sform code 1 both take the sform.
# It surprises because "the scanner's geometry in the qform, the aligned one in the sform" is what the two forms are
# for, and both readers agree in every other case but that of no code at all; so a test on files with codes (1, 1) finds
# nothing.
# Seen: the table below, of all pairs of codes: they differ in the pairs (1 to 4, 2 to 4) and in (0, 0), where there is
# no geometry: nibabel then centres the image, SimpleITK puts its first voxel at 0.
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

qform, sform = np.diag([2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])
qform[:3, 3], sform[:3, 3] = (1, 2, 3), (40, 50, 60)


def chosen(origin):
    return next((n for n, form in (("qform", qform), ("sform", sform)) if np.allclose(origin, form[:3, 3])), "neither")


differ = set()
print("qform code  sform code  nibabel  SimpleITK")
for q in range(5):
    for s in range(5):
        header = nib.Nifti1Header()
        header.set_data_shape((3, 4, 5))
        header.set_qform(qform, q)
        header.set_sform(sform, s)
        nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), None, header), "both.nii")
        loaded = nib.load("both.nii")
        if (int(loaded.header["qform_code"]), int(loaded.header["sform_code"])) != (q, s):
            sys.exit("nibabel did not write the codes asked for")
        theirs = chosen(loaded.affine[:3, 3])
        itk_ras = np.array(sitk.ReadImage("both.nii").GetOrigin()) * (-1, -1, 1)
        print(f"{q:10d}  {s:10d}  {theirs:7s}  {chosen(itk_ras)}")
        if not np.allclose(loaded.affine[:3, 3], itk_ras):
            differ.add((q, s))
print("they differ at", sorted(differ))
if differ != {(q, s) for q in (1, 2, 3, 4) for s in (2, 3, 4)} | {(0, 0)}:
    sys.exit("changed: the pairs of codes at which SimpleITK and nibabel differ")
PY
