#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0.
# `LocalNormalizedCrossCorrelationLoss` pads both images with zeros and correlates the windows that reach over the
# border with these zeros in them. Where an image is not about 0 at its border, the step to the zeros is the same in
# both images and counts as a match: the loss of two images that have nothing in common falls as a constant is added to
# both, down to minus the share of the windows at the border.
# It surprises because a constant leaves the correlation within a window as it is, which is why this loss is chosen, and
# because that share is large: a third of a volume of 64 voxels a side, with windows of 9. So the losses of an image in
# Hounsfield units and scaled to 0..1, or of crops of two sizes, cannot be compared.
# What helps: `reduction="none"` and the mean of the windows that lie inside, or a background of 0.
# Seen, two volumes of independent noise of 0 to 1, 64 voxels a side, windows of 9, with 0, 1 and 10 added: loss -0.073,
# -0.250, -0.329; of the windows that lie inside (67.0 %) -0.001 each time.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > border.py <<'PY'
import numpy as np
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss

WINDOW, SIDE = 9, 64
reach = slice(WINDOW // 2, -(WINDOW // 2))
rng = np.random.default_rng(0)
one, other = (torch.from_numpy(rng.uniform(size=(1, 1, SIDE, SIDE, SIDE))) for _ in range(2))
of_windows = LocalNormalizedCrossCorrelationLoss(kernel_size=WINDOW, reduction="none")
mean = LocalNormalizedCrossCorrelationLoss(kernel_size=WINDOW)

found = []
for added in (0.0, 1.0, 10.0):
    windows = of_windows(one + added, other + added)
    inside = windows[..., reach, reach, reach]
    found.append((float(mean(one + added, other + added)), float(inside.mean())))
    share = inside.numel() / windows.numel()
    print(f"{added:4.0f} added: loss {found[-1][0]:.3f}, windows inside ({share:.1%}) {found[-1][1]:.4f}")
np.testing.assert_allclose(found, [(-0.073, -0.0013), (-0.250, -0.0013), (-0.329, -0.0013)], atol=2e-3)
PY
"$folder/venv/bin/python" border.py
