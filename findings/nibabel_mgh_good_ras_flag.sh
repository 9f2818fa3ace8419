#!/usr/bin/env bash
# nibabel 5.4.2.
# An MGH file says by its "goodRASFlag" (bytes 28 and 29) whether its directions and centre are to be believed. nibabel
# loads a file whose flag is 0 with the default directions, which is right, and sets the flag to 1 in the header that it
# returns.
# It surprises because a loader's header elsewhere tells what stands in the file: here a program cannot ask whether the
# geometry is the file's or a default, and saving the image makes the default look measured.
# Seen: flag 0 in the file, 1 in the loaded header, 1 in the file that is saved again.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

affine = np.diag([2.0, 2, 2, 1])
affine[:3, 3] = (1, 2, 3)
nib.save(nib.MGHImage(np.zeros((3, 4, 5), np.float32), affine), "good.mgh")
content = bytearray(Path("good.mgh").read_bytes())
content[28:30] = bytes(2)  # a big-endian 16-bit 0: the directions and the centre are not to be believed
Path("none.mgh").write_bytes(content)


def flag_in(path):
    return int.from_bytes(Path(path).read_bytes()[28:30], "big")


loaded = nib.load("none.mgh")
in_header = int(loaded.header["goodRASFlag"])
nib.save(loaded, "again.mgh")
print("flag in the file:", flag_in("none.mgh"))
print("flag in the loaded header:", in_header)
print("flag in the file saved again:", flag_in("again.mgh"))
print("affine that nibabel gives (the default directions, 1 mm, centred):", loaded.affine.tolist(), sep="\n")
if (flag_in("good.mgh"), flag_in("none.mgh"), in_header, flag_in("again.mgh")) != (1, 0, 1, 1):
    sys.exit("changed: nibabel's loaded header now tells the flag of the file")
PY
