#!/usr/bin/env bash
# itk 5.4.7, SimpleITK 2.5.7, MONAI 1.6.1.
# `itk.imread` reads no image of 64-bit integers, in any format, and so MONAI's `LoadImage` reads none in NRRD or
# MetaImage, whose reader it takes from itk; in NIfTI it does, by nibabel.
# It surprises because SimpleITK, the same ITK with other bindings, writes and reads them, and writes them without being
# asked to: numpy's own integers have 64 bits, so that `GetImageFromArray(labels)` of a label map makes one. A cast to
# int32 before writing avoids it.
# Seen: TemplateTypeError, "itk.Image is not wrapped for input type", from itk for .nrrd, .mha and .nii.gz, and from
# LoadImage for .nrrd and .mha; of the same image as int32 all of them read.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 monai==1.6.1 itk==5.4.7 SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import itk
import numpy as np
import SimpleITK as sitk
from monai.transforms import LoadImage

labels = np.arange(24).reshape(2, 3, 4)


def outcome(read, path):
    try:
        read(path)
    except Exception as error:
        return type(error).__name__
    return "read"


failed = False
for image, refused in ((sitk.GetImageFromArray(labels), True), (sitk.GetImageFromArray(labels.astype("int32")), False)):
    for ending in ("nrrd", "mha", "nii.gz"):
        path = f"labels.{ending}"
        sitk.WriteImage(image, path)
        assert (sitk.GetArrayFromImage(sitk.ReadImage(path)) == labels).all()
        seen = outcome(itk.imread, path), outcome(LoadImage(image_only=True), path)
        print(f"{image.GetPixelIDTypeAsString()}, .{ending}: itk {seen[0]}, MONAI {seen[1]}")
        no = "TemplateTypeError"
        expected = (no if refused else "read", no if refused and ending != "nii.gz" else "read")
        failed = failed or seen != expected
sys.exit(failed)
PY
