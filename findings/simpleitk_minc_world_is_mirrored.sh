#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) and nibabel 5.4.2.
# SimpleITK writes its physical coordinates, in which x grows to the left and y to the back (LPS), into a MINC file as
# they stand, and reads a MINC file so too; in MINC x grows to the right and y to the front, and nibabel reads it so.
# It surprises because for NIfTI the same SimpleITK converts the same coordinates, and because its own round trip
# through MINC is exact: a test with one tool finds nothing, and images lie mirrored between tools.
# Seen: an origin of (10, 20, 30) comes back in nibabel (RAS) as (-10, -20, 30) by NIfTI and (10, 20, 30) by MINC.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 nibabel==5.4.2 h5py==3.16.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

image = sitk.GetImageFromArray(np.arange(60, dtype=np.float32).reshape(5, 4, 3))
image.SetOrigin((10, 20, 30))
found = {}
for name in ("image.nii", "image.mnc"):
    sitk.WriteImage(image, name)
    if not np.allclose(sitk.ReadImage(name).GetOrigin(), (10, 20, 30)):
        sys.exit(f"SimpleITK does not read back the origin of {name}")
    loaded = nib.load(name)
    brightest = np.argwhere(np.asarray(loaded.dataobj) == 59)[0]  # the last voxel: at (12, 23, 34) in SimpleITK
    found[name] = (loaded.affine[:3, 3], nib.affines.apply_affine(loaded.affine, brightest))
    print(name, "origin in nibabel:", found[name][0], "last voxel:", found[name][1])
print("last voxel in SimpleITK (LPS):", image.TransformIndexToPhysicalPoint((2, 3, 4)))
if not np.allclose(found["image.nii"], [(-10, -20, 30), (-12, -23, 34)]):
    sys.exit("the NIfTI file is not as expected")
if not np.allclose(found["image.mnc"], [(10, 20, 30), (12, 23, 34)]):
    sys.exit("changed: SimpleITK's coordinates in a MINC file")
PY
