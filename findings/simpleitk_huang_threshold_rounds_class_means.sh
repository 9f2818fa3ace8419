#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4).
# `HuangThreshold` depends on the unit of the intensities: it rounds the mean of each class to a whole number before it
# looks that mean up in the histogram (`Math::Round` in itkHuangThresholdCalculator.hxx). In a float image normalised to
# 0..1, to -1..1 or to zero mean and unit variance a whole number is many bins of the histogram: the threshold is wrong,
# or the filter ends with an error; which of them, or neither, is chance.
# It surprises because the bins may have any width, because a threshold between two classes should move with the values
# when all are multiplied, as `OtsuThreshold` does, and because images of 8 bits and more hide it.
# What helps: multiply a float image so that its range is some hundreds of units, and divide the threshold again.
# Seen, share of wrong voxels of one noisy ball in six units: 0..0.1 0.874, 0..1 0.000, -1..1 0.426, 0..255 0.000,
# 0..1000 0.000, zero mean and unit variance "Failed looking up histogram"; by Otsu 0.000 in all of them.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import SimpleITK as sitk

z, y, x = np.mgrid[:32, :32, :32]
ball = (x - 16) ** 2 + (y - 16) ** 2 + (z - 16) ** 2 < 100
noisy = ball + np.random.default_rng(0).normal(0, 0.1, ball.shape)
unit = (noisy - noisy.min()) / (noisy.max() - noisy.min())


def wrong(threshold, values):
    """The share of voxels on the wrong side of the threshold, or the error."""
    try:
        found = sitk.GetArrayFromImage(threshold(sitk.GetImageFromArray(values), 0, 1))
    except RuntimeError as error:
        return str(error).strip().rsplit(": ", 1)[-1]
    return round(float(np.mean(found.astype(bool) != ball)), 3)


images = {
    "0..0.1": (unit / 10, 0.874),
    "0..1": (unit, 0.0),
    "-1..1": (2 * unit - 1, 0.426),
    "0..255": (unit * 255, 0.0),
    "0..1000": (unit * 1000, 0.0),
    "mean 0, variance 1": ((unit - unit.mean()) / unit.std(), "Failed looking up histogram"),
}
failed = False
for name, (values, expected) in images.items():
    huang, otsu = wrong(sitk.HuangThreshold, values), wrong(sitk.OtsuThreshold, values)
    print(f"{name:18s} wrong voxels: Huang {huang}, Otsu {otsu}")
    if otsu != 0 or huang != expected:
        failed = True
        print(f"  expected: Huang {expected}, Otsu 0.0")
sys.exit(failed)
PY
