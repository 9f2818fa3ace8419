#!/usr/bin/env bash
# MONAI 1.6.1, torch 2.13.0.
# When one image cannot be read, the constructor of `CacheDataset` raises, but its threads stay behind in the item that
# each has in hand: the program handles the error (or ends) while they go on reading and transforming. They are daemon
# threads of `multiprocessing.pool.ThreadPool`, which is terminated and not joined, so that nothing can wait for them
# either: the constructor has returned no object.
# It surprises because a constructor that raised is expected to have stopped, and because `with ThreadPool(...)` in MONAI's
# code looks as if it waited, as `concurrent.futures` does. A program that frees, moves or deletes what is being read, or
# ends at once, does so under running threads.
# Seen: the error arrives after 0.1 s; the transform of the next item ends 2 s later, after the except clause has run.
# Run with Python 3.11 on Linux, x86-64.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > read_on.py <<'PY'
import time

from monai.data import CacheDataset
from monai.transforms import Transform

ended = []


class Read(Transform):
    def __call__(self, item):
        if item == 0:
            time.sleep(0.1)
            raise ValueError("the first image is damaged")
        time.sleep(2)
        ended.append(item)
        return item


start = time.monotonic()
try:
    CacheDataset([0, 1, 2, 3], Read(), num_workers=2, progress=False)
except RuntimeError:
    seconds = time.monotonic() - start
    at_the_error = list(ended)
time.sleep(5)
print(f"the error arrived after {seconds:.1f} s, when {at_the_error} were read; 5 s later {ended} are")
assert seconds < 1.5, "the constructor now waits for its threads"
assert at_the_error == [], at_the_error
assert ended, "the threads are now stopped"
PY
"$folder/venv/bin/python" read_on.py
