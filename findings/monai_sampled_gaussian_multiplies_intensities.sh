#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0, SciPy 1.17.1 beside it.
# `GaussianSmooth`, `RandGaussianSmooth` and `GaussianFilter` take the Gaussian in one of three forms (`approx`). None of
# them is divided by its sum. With "sampled", the form that most libraries use, a Gaussian narrower than half a voxel is
# sampled near its peak alone: a constant image of 1 becomes 2.4 at sigma 0.3, and 4.1 at 0.25, where the range of
# `RandGaussianSmooth` begins by default. With "erf", the default, the sum is 1 but for what is cut off, with
# "scalespace" 0.994 at sigma 0.3.
# It surprises because a smoothing filter is expected to keep the mean, as SciPy's and ITK's do: as an augmentation it
# changes the brightness at random, most where it smooths least. The documentation calls the forms approximations of one
# filter.
# Seen: constant 1 becomes, at sigma 0.25, 0.3, 0.5, 1: sampled 4.072 2.407 1.044 1.000, erf 1.000 throughout,
# scalespace 0.997 0.994 0.998 0.999; SciPy 1.000 throughout.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat > constant.py <<'PY'
import numpy as np
import torch
from monai.transforms import GaussianSmooth
from scipy.ndimage import gaussian_filter

SIGMAS = 0.25, 0.3, 0.5, 1.0
one = torch.ones(1, 31, 31, 31)


def inside(approx):
    """What the voxel in the middle, far from any border, becomes."""
    return [float(GaussianSmooth(sigma=sigma, approx=approx)(one)[0, 15, 15, 15]) for sigma in SIGMAS]


found = {approx: inside(approx) for approx in ("sampled", "erf", "scalespace")}
found["SciPy"] = [float(gaussian_filter(np.ones((31, 31, 31)), sigma)[15, 15, 15]) for sigma in SIGMAS]
print("sigma".ljust(12), *SIGMAS)
for name, values in found.items():
    print(name.ljust(12), *[f"{value:.3f}" for value in values])
np.testing.assert_allclose(found["sampled"], [4.072, 2.407, 1.044, 1.0], atol=2e-3)
np.testing.assert_allclose(found["scalespace"], [0.997, 0.994, 0.998, 0.999], atol=2e-3)
np.testing.assert_allclose(found["erf"], 1, atol=1e-3)
np.testing.assert_allclose(found["SciPy"], 1, atol=1e-9)
PY
"$folder/venv/bin/python" constant.py
