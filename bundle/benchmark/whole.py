"""Whole commands beside each other: from the start of a process to its last file, on one pair, by turns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bundle.io.tables import markdown_table
from bundle.progress import Progress

__all__ = ["WHOLE", "check_installed", "measure_whole", "whole_markdown", "whole_rows"]

Turns = list[dict[str, float]]

# a process of its own: what a system calls the largest memory of a process starts at what its parent held
LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
unit = 1e6 if sys.platform == "darwin" else 1e3
print(json.dumps({"cpu_seconds": used.ru_utime + used.ru_stime, "seconds": time.perf_counter() - start,
                  "peak_memory_mb": used.ru_maxrss / unit}))
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""

GREEDY = """
import sys
from picsl_greedy import Greedy3D
moving, fixed, folder, threads = sys.argv[1:]
for line in (
    f"-i {fixed} {moving} -a -dof 12 -m NMI -ia-image-centers -n 100x50x10 -o {folder}/affine.mat",
    f"-i {fixed} {moving} -it {folder}/affine.mat -m NCC 2x2x2 -n 100x70x20 -s 2vox 0.5vox -o {folder}/warp.nii.gz",
    f"-rf {fixed} -rm {moving} {folder}/warped.nii.gz -r {folder}/warp.nii.gz {folder}/affine.mat",
):
    Greedy3D().execute(f"-d 3 -threads {threads} {line}")
"""

ANTS = """
import sys, ants
moving, fixed, folder, metric = sys.argv[1:]
moving, fixed = ants.image_read(moving), ants.image_read(fixed)
found = ants.registration(fixed, moving, metric, outprefix=f"{folder}/", random_seed=1)
ants.image_write(found["warpedmovout"], f"{folder}/warped.nii.gz")
"""


def _ours(moving: str, fixed: str, folder: str, _: int) -> list[str]:
    pair = [f"--moving={moving}", f"--fixed={fixed}", f"--output_dir={folder}"]
    return ["-m", "bundle", "register", *pair, "--affine=affine", "--device=cpu"]


WHOLE: Mapping[str, tuple[str, Callable[[str, str, str, int], list[str]]]] = {
    "register": ("bundle", _ours),
    "greedy": ("picsl_greedy", lambda m, f, folder, threads: ["-c", GREEDY, m, f, folder, str(threads)]),
    "syn": ("ants", lambda m, f, folder, _: ["-c", ANTS, m, f, folder, "SyN"]),
    "syn-cc": ("ants", lambda m, f, folder, _: ["-c", ANTS, m, f, folder, "SyNCC"]),
}
"""The module that a command needs, and the arguments of Python that run it: affine, deformable, resampling."""


def check_installed(names: Sequence[str]) -> None:
    """Refuse commands that are unknown or whose package is not installed.

    Raises:
        ValueError: says which.
    """
    for name in names:
        if name not in WHOLE:
            raise ValueError(f"--against takes some of {','.join(WHOLE)} with --whole, not '{name}'.")
        if find_spec(WHOLE[name][0]) is None:
            raise ValueError(f"{name} needs the package {WHOLE[name][0]}, which is not installed (docs/speed.md).")


def measure_whole(
    moving: Path, fixed: Path, folder: Path, names: Sequence[str], threads: int, repeats: int
) -> dict[str, Turns]:
    """Run whole commands in turns, each in a fresh process.

    Args:
        moving: image to align.
        fixed: image to align to.
        folder: of what the commands write, a folder each.
        names: of ``WHOLE``.
        threads: that each may use.
        repeats: turns.

    Returns:
        For each name its turns: ``cpu_seconds`` (user and system), ``seconds`` and ``peak_memory_mb``.

    Raises:
        RuntimeError: a command failed; the message ends with the last line that it wrote.
    """
    turns: dict[str, Turns] = {name: [] for name in names}
    with Progress[None](total=repeats * len(turns), title="measuring whole commands", unit="command") as progress:
        for _ in range(repeats):
            for name, found in turns.items():
                progress.say(name)
                (folder / name).mkdir(parents=True, exist_ok=True)
                arguments = WHOLE[name][1](str(moving), str(fixed), str(folder / name), threads)
                found.append(_launch(name, [sys.executable, "-W", "ignore", *arguments], threads))
                progress.update()
    return turns


def _launch(name: str, command: list[str], threads: int) -> dict[str, float]:
    variables = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    limits = dict.fromkeys(variables, str(threads))
    launcher = [sys.executable, "-S", "-c", LAUNCHER]
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, env=os.environ | limits)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["out of memory, perhaps"])[-1]
        raise RuntimeError(f"{name} failed: {reason}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def whole_rows(turns: Mapping[str, Turns]) -> list[dict[str, Any]]:
    """Make a row of every turn of every command, for a table of comma-separated values."""
    return [
        {"command": name, "turn": number} | {k: round(v, 3) for k, v in turn.items()}
        for name, found in turns.items()
        for number, turn in enumerate(found, 1)
    ]


def whole_markdown(turns: Mapping[str, Turns], span: Callable[[Sequence[float], int], str]) -> str:
    """Write the table: medians, with the least and the largest of the turns, and the first command's share of each.

    Args:
        turns: of ``measure_whole``.
        span: writes a median and its range with so many digits.
    """
    first = next(iter(turns))
    lines = []
    for name, found in turns.items():
        cells = [span([t[key] for t in found], n) for key, n in (("cpu_seconds", 1), ("seconds", 1))]
        cells.append(span([t["peak_memory_mb"] for t in found], 0))
        cells.append(span([a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(turns[first], found)], 2))
        lines.append([name, *cells])
    head = ["whole command", "CPU-seconds", "seconds", "peak memory, MB", f"{first}, of its CPU-seconds"]
    return markdown_table(head, lines)
