#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0 (CPU build), einops 0.8.2.
# Every block of MONAI's vision transformers (here UNETR's) holds a layer norm for cross-attention, `norm_cross_attn`, though
# the blocks have none. This version makes the cross-attention itself only where it is asked for (pull request 8848), but
# that norm in any case. Its weight and bias never see a gradient.
# It surprises because one process trains without a word, and so does the first step of several: DistributedDataParallel
# stops in the second step, even of a single process, since it waits for gradients that do not come.
# What helps: `find_unused_parameters=True` (a search through the graph at every step), or `requires_grad_(False)` on those
# norms before the network is wrapped, which leaves the state dict as it is.
# Seen: 24 of UNETR's parameters without a gradient, all of them of norm_cross_attn; "Expected to have finished reduction in
# the prior iteration" in the second step; with those norms frozen both steps run.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6 einops==0.8.2
cd "$folder"
cat > blocks.py <<'PY'
import torch
import torch.distributed as dist
from monai.networks.nets import UNETR
from torch.nn.parallel import DistributedDataParallel


def network():
    torch.manual_seed(0)
    return UNETR(1, 2, (32, 32, 32), feature_size=4, hidden_size=48, mlp_dim=96, num_heads=4)


def steps(wrapped, count=2):
    for step in range(count):
        try:
            wrapped(torch.rand(1, 1, 32, 32, 32)).sum().backward()
        except RuntimeError as error:
            return step, str(error)
    return count, ""


alone = network()
print("one process:", steps(alone)[0], "steps")
without = [name for name, parameter in alone.named_parameters() if parameter.grad is None]
print(len(without), "parameters without a gradient:", without[:2], "…")
assert len(without) == 24
assert all(".norm_cross_attn." in name for name in without)

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
done, said = steps(DistributedDataParallel(network()))
print(f"DistributedDataParallel: {done} step, then: {said[:84]}")
assert done == 1
assert "Expected to have finished reduction in the prior iteration" in said

frozen = network()
for name, parameter in frozen.named_parameters():
    if ".norm_cross_attn." in name:
        parameter.requires_grad_(False)
done, said = steps(DistributedDataParallel(frozen))
print("with those norms frozen:", done, "steps")
assert (done, said) == (2, "")
assert frozen.state_dict().keys() == network().state_dict().keys()
dist.destroy_process_group()
PY
"$folder/venv/bin/python" -W ignore blocks.py
