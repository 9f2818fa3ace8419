#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4).
# Warp(image, field) without the output's geometry takes the size of its output from the field, but not the origin, the
# spacing and the direction: those are 0, 1 and the identity.
# It surprises because the output has the field's size, so it looks as if defined on the field's grid; Resample(image,
# transform) takes the whole geometry of its image. With an image that lies elsewhere the result is zeros, without a
# word.
# Seen: an image and a field of zeros with origin (10, 20, 30) and 2 mm: Warp gives origin 0, 1 mm and zeros alone; with
# the geometry given it returns the image.
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

image = sitk.GetImageFromArray(np.arange(1, 61, dtype=np.float32).reshape(5, 4, 3))
image.SetOrigin((10, 20, 30))
image.SetSpacing((2, 2, 2))
field = sitk.GetImageFromArray(np.zeros((5, 4, 3, 3)), isVector=True)
field.CopyInformation(image)


def say(name, result):
    values = sitk.GetArrayFromImage(result)
    print(f"{name:20s} size {result.GetSize()} origin {result.GetOrigin()} spacing {result.GetSpacing()}", end=" ")
    print("values", values.min(), "to", values.max())
    return values


original = say("image", image)
plain = sitk.Warp(image, field)
bare = say("Warp", plain)
full = say(
    "Warp, geometry given",
    sitk.Warp(
        image,
        field,
        outputSize=image.GetSize(),
        outputOrigin=image.GetOrigin(),
        outputSpacing=image.GetSpacing(),
        outputDirection=image.GetDirection(),
    ),
)
resampled = say("Resample", sitk.Resample(image, sitk.DisplacementFieldTransform(sitk.Image(field))))
if not (np.array_equal(full, original) and np.array_equal(resampled, original)):
    sys.exit("a field of zeros did not return the image")
if (
    plain.GetSize() != field.GetSize()
    or plain.GetOrigin() != (0, 0, 0)
    or plain.GetSpacing() != (1, 1, 1)
    or bare.any()
):
    sys.exit("changed: the grid that Warp uses when none is given")
PY
