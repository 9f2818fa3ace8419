#!/usr/bin/env bash
# SimpleITK 2.5.7.
# `Resample` and `Warp` of an integer image with linear interpolation cut the fraction off, toward zero, where rounding
# is expected: intensities fall by half a unit on average (those below zero rise), in CT by half a Hounsfield unit, in
# an image of few grey values by much. `BinShrink` of the same image rounds.
# It surprises because the mean of a resampled image is taken for granted, because scipy.ndimage rounds in the same
# place, and because two filters of one toolkit do different things. A cast to float before and a rounding after it
# avoid it.
# Seen: 8.5 becomes 8, 1.75 becomes 1, -1.25 becomes -1; the mean of random integers from 0 to 100 falls by 0.47 when
# they are moved by a third of a voxel, and by nothing through float and `Round`.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.4.6 scipy==1.17.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

failed = False


def check(what, seen, expected):
    global failed
    print(f"{what}: {seen}")
    if not np.allclose(seen, expected, atol=0.05):
        failed = True
        print(f"  expected {expected}")


row = np.array([1, 2, 4, -3, 9, 8], np.int16)
image = sitk.GetImageFromArray(np.tile(row, (3, 3, 1)))
shift = sitk.TranslationTransform(3, (0.75, 0.0, 0.0))
line = lambda result: sitk.GetArrayFromImage(result)[1, 1, :5].tolist()  # noqa: E731

exact = line(sitk.Resample(sitk.Cast(image, sitk.sitkFloat64), image, shift, sitk.sitkLinear))
check("interpolated as float64", exact, [1.75, 3.5, -1.25, 6.0, 8.25])
check("Resample of int16", line(sitk.Resample(image, image, shift, sitk.sitkLinear)), np.trunc(exact))
field = sitk.TransformToDisplacementField(shift, sitk.sitkVectorFloat64, image.GetSize())
check("Warp of int16", line(sitk.Warp(image, field)), np.trunc(exact))
check("BinShrink of int16", sitk.GetArrayFromImage(sitk.BinShrink(image, [2, 1, 1]))[1, 1].tolist(), [2, 1, 9])

noise = np.random.default_rng(0).integers(0, 101, (40, 40, 40)).astype(np.int16)
image, third = sitk.GetImageFromArray(noise), sitk.TranslationTransform(3, (1 / 3, 0.0, 0.0))
moved = lambda source: sitk.Resample(source, image, third, sitk.sitkLinear)  # noqa: E731
inner = lambda values: float(values[..., 1:-1].mean())  # noqa: E731
truth = inner(sitk.GetArrayFromImage(moved(sitk.Cast(image, sitk.sitkFloat64))))
kept = sitk.GetArrayFromImage(moved(image))
rounded = sitk.GetArrayFromImage(sitk.Round(moved(sitk.Cast(image, sitk.sitkFloat64))))
other = ndimage.affine_transform(noise, np.eye(3), (0, 0, 1 / 3), order=1)
check("bias of Resample of int16", round(inner(kept) - truth, 2), -0.47)
check("bias through float64 and Round", round(inner(rounded) - truth, 2), 0.0)
check("bias of scipy.ndimage.affine_transform of int16", round(inner(other) - truth, 2), 0.0)
sys.exit(failed)
PY
