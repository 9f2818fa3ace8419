#!/usr/bin/env bash
# nitransforms 25.1.0, with surfa 0.6.3 (FreeSurfer's own Python package) to apply what it writes.
# Affine.to_filename(fmt="fs") writes an .lta whose matrix goes from the moving image to the reference, as FreeSurfer's
# do, but whose two geometries are the other way round: "src" is the reference and "dst" the moving image.
# It surprises because a matrix of FreeSurfer goes from the points of "src" to those of "dst", and because nitransforms
# itself reads a matrix in voxels so (dst @ matrix @ inv(src)) before it inverts it. A program that goes by the
# geometries resamples onto the moving image's grid, with the inverse of what was meant.
# Seen: "src" states the reference's 6 7 8 voxels; surfa returns an image of 9 10 11 voxels; with the two geometries
# exchanged in the file it returns nitransforms' own result, voxel by voxel.
# Run with Python 3.11 on Linux, x86-64; surfa is compiled (a C compiler is needed).
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    nitransforms==25.1.0 surfa==0.6.3 nibabel==5.4.2 scipy==1.15.3 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import nibabel as nib
import numpy as np
import surfa
from nitransforms.linear import Affine
from nitransforms.resampling import apply

values = np.random.default_rng(0).random((9, 10, 11)).astype(np.float32)
nib.save(nib.Nifti1Image(values, np.eye(4)), "moving.nii.gz")
nib.save(nib.Nifti1Image(np.zeros((6, 7, 8), np.float32), np.eye(4)), "reference.nii.gz")
shift = np.eye(4)
shift[:3, 3] = 1, 2, 0  # from a point of the reference to that of the moving image
transform = Affine(shift, reference="reference.nii.gz")
transform.to_filename("T.lta", fmt="fs", moving="moving.nii.gz")
expected = np.asarray(apply(transform, "moving.nii.gz", "reference.nii.gz", order=1).dataobj)

text = open("T.lta").read()
head, source, target = text.replace("dst volume info", "src volume info").split("src volume info")
source_line = next(line for line in source.splitlines() if line.startswith("volume"))
print("of the reference's 6 7 8 and the moving image's 9 10 11 voxels, src states:", source_line)
open("exchanged.lta", "w").write(f"{head}src volume info{target.rstrip()}\ndst volume info{source.rstrip()}\n")

moving = surfa.load_volume("moving.nii.gz")
found = surfa.load_affine("T.lta")(moving).data
exchanged = surfa.load_affine("exchanged.lta")(moving).data
print("surfa's image by the file as written:", found.shape)
same = exchanged.shape == expected.shape and np.allclose(exchanged, expected, atol=1e-5)
print("surfa's image with the geometries exchanged:", exchanged.shape, "as nitransforms'" if same else "another")
if "6 7 8" not in source_line or found.shape[:3] != (9, 10, 11) or not same:
    sys.exit("changed: the geometries of an .lta that nitransforms writes")
PY
