#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0 (CPU build).
# `SmartCacheDataset` in MONAI's own `DataLoader` with workers: every worker, in every epoch, draws the same random
# augmentations. `CacheDataset` with the same transforms and the same loader draws anew. Without workers both do.
# It surprises because MONAI's loader is there to seed each worker (`worker_init_fn`), and does for other datasets: the
# walk through an object's attributes stops at the first with `set_random_state`. A `SmartCacheDataset` has one, for the
# order of its items, and the transforms inside it are not reached. `DecathlonDataset`, `MedNISTDataset` and any dataset
# of one's own that is `Randomizable` have one, too. A training sees as many versions of an image as one worker draws,
# over and over, and nothing says so.
# What helps: a `set_random_state` of the dataset that seeds its transforms as well.
# Seen, distinct draws among 8 items in each of 2 epochs, 2 workers: CacheDataset 16, SmartCacheDataset 4; without workers: 16, 16.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > draws.py <<'PY'
import torch
from monai.data import CacheDataset, DataLoader, SmartCacheDataset
from monai.transforms import Compose, RandShiftIntensityd, ToTensord

seen = {}
for workers in (2, 0):
    for cls in (CacheDataset, SmartCacheDataset):
        torch.manual_seed(0)
        transform = Compose([ToTensord("image"), RandShiftIntensityd("image", offsets=1.0, prob=1.0)])
        transform.set_random_state(seed=0)
        images = [{"image": torch.zeros(1, 2, 2, 2)} for _ in range(8)]
        smart = {"num_init_workers": 1, "num_replace_workers": 1, "shuffle": False}
        options = smart if cls is SmartCacheDataset else {"num_workers": 1}
        dataset = cls(images, transform, progress=False, **options)
        loader = DataLoader(dataset, batch_size=1, num_workers=workers)
        draws = [round(float(batch["image"].mean()), 6) for _ in range(2) for batch in loader]
        seen[cls.__name__, workers] = len(set(draws))
        assert len(draws) == 16
print("RESULT", seen)
assert seen == {
    ("CacheDataset", 2): 16,
    ("SmartCacheDataset", 2): 4,
    ("CacheDataset", 0): 16,
    ("SmartCacheDataset", 0): 16,
}, seen
PY
"$folder/venv/bin/python" -W ignore draws.py | grep "^RESULT"
