#!/usr/bin/env bash
# itkwasm-transform-io 1.1.0 and SimpleITK 2.5.7.
# read_transform of an ITK composite transform in HDF5 returns one part, "Composite" with 0 parameters: the transforms
# inside are gone, without an error.
# It surprises because a transform is a list in ITK-Wasm, so that a composite has a natural place; the same affine
# transform, written by itself, is read with its 12 parameters, and the composite is the form in which registrations are
# stored.
# Seen: affine.h5: Affine, 12 parameters; composite.h5 (an affine, then a translation): Composite, 0 parameters.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    itkwasm-transform-io==1.1.0 itkwasm==1.0b201 wasmtime==50.0.1 SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import SimpleITK as sitk
from itkwasm_transform_io import read_transform

affine = sitk.AffineTransform(3)
affine.Rotate(0, 1, 0.4)
composite = sitk.CompositeTransform([affine, sitk.TranslationTransform(3, (1.0, 2.0, 3.0))])
sitk.WriteTransform(affine, "affine.h5")
sitk.WriteTransform(composite, "composite.h5")
if not np.allclose(sitk.ReadTransform("composite.h5").TransformPoint((1, 1, 1)), composite.TransformPoint((1, 1, 1))):
    sys.exit("SimpleITK does not read back the composite")
seen = {}
for name in ("affine.h5", "composite.h5"):
    parts = read_transform(name)
    seen[name] = [(str(p.transformType.transformParameterization), int(p.numberOfParameters)) for p in parts]
    print(name, seen[name])
by_sitk = sitk.CompositeTransform(sitk.ReadTransform("composite.h5"))
print("parts in the composite, by SimpleITK:", by_sitk.GetNumberOfTransforms())
kinds = {name: [(kind.rsplit(".")[-1], count) for kind, count in parts] for name, parts in seen.items()}
if kinds != {"affine.h5": [("Affine", 12)], "composite.h5": [("Composite", 0)]}:
    sys.exit("changed: what ITK-Wasm reads of a composite")
PY
