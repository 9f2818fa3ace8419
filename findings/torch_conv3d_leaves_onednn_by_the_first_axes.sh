#!/usr/bin/env bash
# torch 2.13.0 (CPU build).
# `F.conv3d` of float32 on a CPU goes to oneDNN only if batch · channels · depth · height is above 20480; the last axis does
# not count. Below, it unfolds the volume into 27 copies (`aten::slow_conv3d`, for a 3×3×3 kernel). The first convolution
# of a 1-channel head of 128×160×160 voxels is below; the same voxels stored as 160×160×128 are above. So are 12 channels
# of 32×44×44, as in a deep level of an encoder, below, and of 44×44×32 above.
# It surprises because a head is anything but small, the numbers are the same and nothing tells: the order of the axes
# decides. A bound made for images seems to have been kept for volumes.
# What helps: `torch.mkldnn_convolution` by name where no gradient is needed, or the longest axes first.
# Seen: which way each goes; one result; 12 channels, channels-last, of 32×44×44: the largest memory rises by 90 MB and
# a call takes 35 ms, of 44×44×32 by 2 MB and 1.4 ms.
# Run with Python 3.11 on Linux, x86-64, two cores.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > conv3d.py <<'PY'
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

LAST = torch.channels_last_3d
torch.manual_seed(0)
volumes = {1: torch.rand(1, 1, 128, 160, 160), 12: torch.rand(1, 12, 32, 44, 44)}
kernels = {channels: torch.rand(4, channels, 3, 3, 3) for channels in volumes}


def stored(channels, axes):
    """The volume and the kernel with their three axes in another order."""
    order = (0, 1, *(2 + axis for axis in axes))
    return [x.permute(order).contiguous(memory_format=LAST) for x in (volumes[channels], kernels[channels])]


def convolve(pair):
    with torch.no_grad():
        return F.conv3d(*pair, padding=1)


def way(pair):
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        convolve(pair)
    names = {event.key for event in seen.key_averages()}
    return sorted(names & {"aten::slow_conv3d", "aten::mkldnn_convolution"})


def largest_memory():
    """So far, in MB; ``ru_maxrss`` would begin with the parent's."""
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def cost(axes):
    """In a process of its own: how far the largest memory rises, in MB, and the seconds of the quickest of ten calls."""
    pair, seconds = stored(12, axes), []
    torch.mkldnn_convolution(*pair, None, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)  # libraries are loaded
    before = largest_memory()
    for _ in range(10):
        start = time.perf_counter()
        convolve(pair)
        seconds.append(time.perf_counter() - start)
    return largest_memory() - before, min(seconds)


if len(sys.argv) > 1:
    print(*cost([int(axis) for axis in sys.argv[1]]))
    raise SystemExit
first, other = (0, 1, 2), (1, 2, 0)
for channels in volumes:
    pairs = [stored(channels, axes) for axes in (first, other)]
    ways = [way(pair) for pair in pairs]
    print("RESULT", {tuple(pair[0].shape): found for pair, found in zip(pairs, ways)})
    assert ways == [["aten::slow_conv3d"], ["aten::mkldnn_convolution"]]
    assert torch.allclose(convolve(pairs[0]), convolve(pairs[1]).permute(0, 1, 4, 2, 3), atol=1e-3)
costs = []
for axes in ("012", "120"):
    done = subprocess.run([sys.executable, __file__, axes], capture_output=True, text=True, check=True)
    costs.append([float(value) for value in done.stdout.split()])
    print("RESULT", axes, "memory {:.0f} MB, {:.4f} s".format(*costs[-1]))
assert costs[0][0] > costs[1][0] + 40
PY
"$folder/venv/bin/python" -W ignore conv3d.py 2> /dev/null | grep "^RESULT"
