#!/usr/bin/env bash
# torch 2.13.0 (CPU build).
# `F.avg_pool3d` compares the sides of its input with the kernel before it counts the padding: a window of 3 with a padding
# of 1 is refused on a side of 2, though with the padding the side is 4. `avg_pool1d`, `avg_pool2d`, `max_pool3d` and
# `conv3d` take the same window with the same padding and return a side of 2; padded beforehand by `F.pad`, avg_pool3d does,
# too.
# It surprises because "same" windows are what one smooths or measures with, at every level of a pyramid: code tried in two
# dimensions, or on volumes of ordinary size, ends at the coarsest level of a small volume (a crop of 10 voxels halved twice).
# What helps: `F.pad` first, and `divisor_override` or a pooled mask where the padding must not count.
# Seen: "input image (T: 2 H: 2 W: 2) smaller than kernel size (kT: 3 kH: 3 kW: 3)" from avg_pool3d; sides of 2 from the
# others, and from avg_pool3d with a side of 3 or with F.pad.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > pool.py <<'PY'
import torch
import torch.nn.functional as F

assert torch.__version__.startswith("2.13.0"), torch.__version__


def image(dimensions, side=2):
    return torch.ones(1, 1, *[side] * dimensions)


taken = {
    "avg_pool1d": F.avg_pool1d(image(1), 3, stride=1, padding=1),
    "avg_pool2d": F.avg_pool2d(image(2), 3, stride=1, padding=1),
    "max_pool3d": F.max_pool3d(image(3), 3, stride=1, padding=1),
    "conv3d": F.conv3d(image(3), torch.ones(1, 1, 3, 3, 3), padding=1),
    "avg_pool3d after F.pad": F.avg_pool3d(F.pad(image(3), (1,) * 6), 3, stride=1),
}
for name, result in taken.items():
    print(f"{name}: sides {tuple(result.shape[2:])}")
    assert set(result.shape[2:]) == {2}, name
larger = F.avg_pool3d(image(3, side=3), 3, stride=1, padding=1)
print(f"avg_pool3d of a side of 3: sides {tuple(larger.shape[2:])}")
assert tuple(larger.shape[2:]) == (3, 3, 3)
try:
    F.avg_pool3d(image(3), 3, stride=1, padding=1)
except RuntimeError as error:
    print(f"avg_pool3d of a side of 2: {error}")
    assert "smaller than kernel size" in str(error)
else:
    raise SystemExit("avg_pool3d takes it now: the finding no longer holds")
PY
"$folder/venv/bin/python" pool.py
