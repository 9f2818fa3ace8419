#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0.
# Where features are smaller than the window, `SwinTransformerBlock` shrinks the window (`get_window_size`), and
# `WindowAttention` then takes the first n rows and columns of the index that was made for the whole window. That index
# counts positions through the large window, the tokens come in the order of the small one: two tokens that lie one voxel
# apart along the last axis get one bias in one place and another bias elsewhere in the same window. The learned relative
# position is no longer relative.
# It surprises because a relative position bias should depend on the offset alone, because nothing warns, and because it
# happens in ordinary use: with the default window of 7 and a 96 x 96 x 96 crop, SwinUNETR's last two stages work on 6 and 3
# voxels a side. (Weights trained so are used so, and consistent with themselves; whoever loads them elsewhere, or feeds
# another size than in training, gets other attention.)
# Seen: in a window shrunk to 4 x 4 x 4, pairs one voxel apart along the last axis get 3 different biases, and pairs of one
# offset up to 4; in the window of 7 x 7 x 7 itself one each.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6 einops==0.8.1
cd "$folder"
cat > biases.py <<'PY'
from collections import defaultdict
from itertools import product

import torch
from monai.networks.nets.swin_unetr import WindowAttention, get_window_size

WINDOW = (7, 7, 7)


def biases_by_offset(side):
    """The biases that a window of side^3 tokens really gets, by the offset between the two tokens."""
    torch.manual_seed(0)
    window = get_window_size((side,) * 3, WINDOW)
    tokens = list(product(*(range(n) for n in window)))
    n = len(tokens)
    attention = WindowAttention(n, num_heads=1, window_size=WINDOW, qkv_bias=False)
    with torch.no_grad():
        attention.relative_position_bias_table.uniform_(-1, 1)
        attention.qkv.weight.zero_()  # query and key are 0: the bias alone decides
        attention.qkv.weight[2 * n :] = torch.eye(n)
        attention.proj.weight.copy_(torch.eye(n))
        attention.proj.bias.zero_()
        shares = attention.eval()(torch.eye(n)[None], None)[0]  # the attention matrix itself
    bias = (shares.log() - shares.log().diagonal()[:, None]).double()  # less that of the token itself, one for all
    found = defaultdict(set)
    for (i, a), (j, b) in product(enumerate(tokens), repeat=2):
        found[tuple(q - p for p, q in zip(a, b))].add(round(float(bias[i, j]), 3))
    return window, found


def spread(values):
    """How many values there are that differ by more than rounding."""
    ordered = sorted(values)
    return 1 + sum(b - a > 0.005 for a, b in zip(ordered, ordered[1:]))


for side, one_each in ((7, True), (4, False)):
    window, found = biases_by_offset(side)
    counts = {offset: spread(values) for offset, values in found.items()}
    print(f"window {window}: offset (0, 0, 1) has {counts[0, 0, 1]} bias(es), the most that one offset has is {max(counts.values())}")
    assert (max(counts.values()) == 1) == one_each, "a shrunk window has one bias an offset now"
    assert (counts[0, 0, 1] == 1) == one_each
PY
"$folder/venv/bin/python" -W ignore biases.py
