#!/usr/bin/env bash
# picsl-greedy 1.4.0.3 and SimpleITK 2.5.7.
# greedy reads ITK's text transforms, but applies those that it does not understand as another transform, without an
# error: a translation, or a composite of one affine transform, as the identity, and an ITK `.h5` file of the affine
# transform alone as something that is neither that transform nor the identity.
# It surprises because the affine and the rigid transform in the same text format are applied rightly, and because a
# reader that meets a format or class that it does not know is expected to refuse it.
# Seen, for a shift by one voxel: right for affine.tfm and euler.tfm; unmoved for translation.tfm and composite.tfm;
# greatest difference from the true image 0.93 (of a range of 1) for affine.h5.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    picsl-greedy==1.4.0.3 SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import SimpleITK as sitk
from picsl_greedy import Greedy3D

values = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
image = sitk.GetImageFromArray(values)
sitk.WriteImage(image, "image.nii")
shift = (1.0, 0.0, 0.0)
affine, euler = sitk.AffineTransform(3), sitk.Euler3DTransform()
affine.SetTranslation(shift)
euler.SetTranslation(shift)
transforms = {
    "affine.tfm": affine,
    "euler.tfm": euler,
    "translation.tfm": sitk.TranslationTransform(3, shift),
    "composite.tfm": sitk.CompositeTransform([affine]),
    "affine.h5": affine,
}
truth = sitk.GetArrayFromImage(sitk.Resample(image, image, affine, sitk.sitkLinear))
inner = (slice(1, -1),) * 3
seen = {}
for name, transform in transforms.items():
    sitk.WriteTransform(transform, name)
    if not np.allclose(sitk.ReadTransform(name).TransformPoint((0, 0, 0)), shift):
        sys.exit(f"SimpleITK does not read back {name}")
    Greedy3D().execute(f"-d 3 -rf image.nii -rm image.nii warped_{name}.nii -r {name}")
    warped = sitk.GetArrayFromImage(sitk.ReadImage(f"warped_{name}.nii"))
    from_truth, from_unmoved = (float(np.abs(warped - other)[inner].max()) for other in (truth, values))
    seen[name] = "right" if from_truth < 1e-3 else "unmoved" if from_unmoved < 1e-3 else "something else"
    print(f"{name:16s} {seen[name]:15s} from the true image {from_truth:.2f}, from the unmoved {from_unmoved:.2f}")
expected = {
    "affine.tfm": "right",
    "euler.tfm": "right",
    "translation.tfm": "unmoved",
    "composite.tfm": "unmoved",
    "affine.h5": "something else",
}
if seen != expected:
    sys.exit("changed: what greedy makes of ITK's transforms")
PY
