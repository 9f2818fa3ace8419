#!/usr/bin/env bash
# surfa 0.6.3 (FreeSurfer's own Python package) with numpy 2.3.5.
# surfa cannot read an .mgz file, not even one that it has just written, nor a warp that it has written as NIfTI:
# ValueError, since it reads binary numbers by numpy.fromstring, whose binary mode numpy 2.3 has removed.
# It surprises because surfa asks for any numpy, so that pip installs the two together, and because plain NIfTI images
# (read by nibabel) work, so that the installation seems to be sound.
# Seen: both fail with numpy 2.3.5 ("The binary mode of fromstring is removed"); both work with numpy 2.2.6.
# Run with Python 3.11 on Linux, x86-64; surfa is compiled (a C compiler is needed).
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check surfa==0.6.3 nibabel==5.4.2 scipy==1.15.3 numpy==2.2.6
cd "$folder"
cat > read.py <<'PY'
import warnings

import numpy as np
import surfa

warnings.simplefilter("ignore")
image = surfa.Volume(np.random.default_rng(0).random((6, 7, 8)).astype(np.float32))
warp = surfa.Warp(np.zeros((6, 7, 8, 3), np.float32), source=image, target=image)
for name, written, read in (("image.mgz", image, surfa.load_volume), ("warp.nii.gz", warp, surfa.load_warp)):
    written.save(name)
    try:
        print(np.__version__, name, "read:", read(name).shape)
    except ValueError as error:
        print(np.__version__, name, "failed:", error)
PY
"$folder/venv/bin/python" read.py | tee old.txt
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.3.5
"$folder/venv/bin/python" read.py | tee new.txt
[ "$(grep -c 'read:' old.txt)" = 2 ] && [ "$(grep -c 'failed: The binary mode of fromstring' new.txt)" = 2 ] || {
    echo "changed: what surfa reads with numpy 2.2.6 and 2.3.5"
    exit 1
}
