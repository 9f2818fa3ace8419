#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4) and nibabel 5.4.2.
# A NIfTI displacement field with intent code 1006 (displacement vectors) is read by SimpleITK with its x and y
# components negated, and the same numbers with 1007 (vector) are read as they stand; and what was read with 1006 can't
# be written to NIfTI again, unless the metadata entry "intent_code" is erased first: then it is written as 1007 with
# the negated numbers.
# It surprises because the image can be read, shown and computed with, and fails only when it is saved, with an error
# about the pixel type, where reading the same file set no other type than for 1007.
# Seen: (1, 2, 3) read as (-1, -2, 3) with 1006 and (1, 2, 3) with 1007; WriteImage: "RAS conversion requires pixel to
# be 3-component vector or point"; with the entry erased it works.
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

values = np.zeros((3, 4, 5, 1, 3), np.float32)
values[...] = (1, 2, 3)
read, types = {}, {}
for code in (1006, 1007):
    field = nib.Nifti1Image(values, np.eye(4))
    field.header.set_intent(code)
    nib.save(field, f"{code}.nii")
    image = sitk.ReadImage(f"{code}.nii")
    read[code], types[code] = image[0, 0, 0], image.GetPixelIDTypeAsString()
    print(code, "read as", read[code], "type", types[code])
sitk.WriteImage(image, "1007_again.nii")
image = sitk.ReadImage("1006.nii")
try:
    sitk.WriteImage(image, "1006_again.nii")
    refused = False
except RuntimeError as error:
    refused = "RAS conversion requires" in str(error)
    print("writing 1006 again:", str(error).strip().splitlines()[-1])
image.EraseMetaData("intent_code")
sitk.WriteImage(image, "erased.nii")
again = nib.load("erased.nii")
stored = np.asarray(again.dataobj)[0, 0, 0, 0]
print("without the metadata entry: intent", int(again.header["intent_code"]), "components", stored)
if not refused or types[1006] != types[1007]:
    sys.exit("changed: writing a displacement field that was read with intent 1006")
if not (
    np.allclose(read[1006], (-1, -2, 3)) and np.allclose(read[1007], (1, 2, 3)) and np.allclose(stored, (-1, -2, 3))
):
    sys.exit("changed: the components that are read or written")
PY
