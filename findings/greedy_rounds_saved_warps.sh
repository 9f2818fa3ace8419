#!/usr/bin/env bash
# picsl-greedy 1.4.0.3 (PICSL greedy), SimpleITK 2.5.5.
# A warp that greedy writes is rounded to steps of 0.1 voxel (its option -wp, "saved warp precision"): compressing well is
# the default, not keeping what was found. Jacobians, inverses and comparisons with another tool's field that are computed
# from the file inherit steps of up to 0.05 voxel an axis; -wp 0 writes the field as it is.
# It surprises because every other registration tool writes the field it has, and a float image does not look rounded.
# Seen: the 98,304 components of a field up to 1.1 voxels have 20 different values in the file, all multiples of 0.1 voxel;
# with -wp 0 they have 60,952.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check picsl-greedy==1.4.0.3 SimpleITK==2.5.5 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat > rounded.py <<'PY'
import numpy as np
import SimpleITK as sitk
from picsl_greedy import Greedy3D
from scipy.ndimage import gaussian_filter, map_coordinates

rng = np.random.default_rng(0)
fixed = gaussian_filter(rng.random((32, 32, 32)), 2)
fixed = (100 * (fixed - fixed.min()) / np.ptp(fixed)).astype("float32")
shift = [1.5 * gaussian_filter(rng.standard_normal(fixed.shape), 5) / 0.02 * 0.2 for _ in range(3)]
moving = map_coordinates(fixed, np.indices(fixed.shape) + shift, order=1, mode="nearest")
for name, array in (("fixed", fixed), ("moving", moving)):
    image = sitk.GetImageFromArray(array.astype("float32"))
    image.SetSpacing((2.0, 2.0, 2.0))
    sitk.WriteImage(image, f"{name}.nii.gz")

for precision, rounded in (("", True), ("-wp 0", False)):
    Greedy3D().execute(
        f"-i fixed.nii.gz moving.nii.gz -m NCC 2x2x2 -n 40x20 -s 2vox 0.5vox {precision} -threads 1 -V 0 -o warp.nii.gz"
    )
    voxels = sitk.GetArrayFromImage(sitk.ReadImage("warp.nii.gz")) / 2.0
    off = np.abs(voxels / 0.1 - np.round(voxels / 0.1)).max() * 0.1
    values = len(np.unique(np.round(voxels, 5)))
    print(f"{precision or 'by default':10}: largest {np.abs(voxels).max():.2f} voxels, {values} different values, {off:.4f} voxel off a step of 0.1")
    assert np.abs(voxels).max() > 0.3
    assert (off < 1e-4) == rounded, "the default precision has changed"
PY
"$folder/venv/bin/python" -W ignore rounded.py
