#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0 (CPU build).
# `SupervisedTrainer` and `SupervisedEvaluator` with `amp=True` on a CPU compute in float32, whatever `amp_kwargs` asks for:
# they enter `torch.autocast("cuda", ...)`, and the scaler is CUDA's, whatever `device` is. The same network under
# `torch.autocast("cpu", torch.bfloat16)` computes in bfloat16.
# It surprises because `device` is an argument of the same class, `amp_kwargs={"dtype": torch.bfloat16}` is taken without
# a word, and recent CPUs have instructions for bfloat16. Without CUDA torch warns that a CUDA scaler or context is
# disabled, which reads as if the CPU's mixed precision went on; with CUDA built in, training on the CPU on purpose, not
# even that.
# What helps: an inferer that enters torch.autocast of its input's device.
# Seen, dtype of a convolution's result: trainer amp float32, evaluator amp float32, plain autocast("cpu") bfloat16.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6 pytorch-ignite==0.5.5
cd "$folder"
cat > amp.py <<'PY'
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer

seen = {}


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, image):
        found = self.convolution(image)
        seen[where] = found.dtype
        return found.float().mean(1, keepdim=True)


network, device = Network(), torch.device("cpu")
batches = [{"image": torch.rand(1, 1, 8, 8, 8), "label": torch.rand(1, 1, 8, 8, 8)}]
common = {"device": device, "network": network, "amp": True, "amp_kwargs": {"dtype": torch.bfloat16}}

where = "trainer"
SupervisedTrainer(
    max_epochs=1,
    train_data_loader=batches,
    optimizer=torch.optim.SGD(network.parameters(), 0.1),
    loss_function=torch.nn.MSELoss(),
    **common,
).run()
where = "evaluator"
SupervisedEvaluator(val_data_loader=batches, **common).run()
where = "autocast"
with torch.autocast("cpu", torch.bfloat16):
    network(batches[0]["image"])
print("RESULT", seen)
assert seen == {"trainer": torch.float32, "evaluator": torch.float32, "autocast": torch.bfloat16}, seen
PY
"$folder/venv/bin/python" -W ignore amp.py | grep "^RESULT"
