"""Measure what the bundle costs on this machine: time by turns, memory in fresh processes, ratios turn by turn."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from bundle.benchmark.tasks import Task, encode
from bundle.io.tables import markdown_table
from bundle.networks import PAN
from bundle.ops import computes_bfloat16
from bundle.phantom import write_phantoms
from bundle.progress import Progress
from bundle.report import scale
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["AGAINST", "measure_speed", "span", "speed_markdown", "write_pair", "write_scaling"]

AGAINST = {"voxelmorph": "voxelmorph", "syn": "syn-mi", "elastix": "elastix"}
RUNS = 5  # of what takes seconds at most; the median counts
PRE_ALIGNMENTS = ("affine", "none")
SCALING = (64, 96, 128, 160, 192)
OPERATIONS_A_VOXEL = 2 * 27 * 16 * 16  # of the convolution that sets the floor

Turns = list[dict[str, Any]]


def measure_speed(
    size: tuple[int, int, int],
    training_size: tuple[int, int, int],
    against: Sequence[str],
    device: str,
    threads: int,
    repeats: int,
    scaling: bool,
) -> dict[str, Any]:
    """Time the network, its training step, the whole command, and peers, on a pair of synthetic heads of 1 mm voxels.

    All tasks take turns, each in a fresh process, and ratios are taken within a turn: they hold on a busy machine.

    Args:
        size: sides of the volume in voxels.
        training_size: those of a training step's.
        against: peers, some of ``AGAINST``.
        device: that torch runs on; the other peers know the CPU alone.
        threads: that each process may use.
        repeats: turns.
        scaling: also time forward passes of cubes from 64³ to 192³, once each.

    Returns:
        ``tasks``: for each the turns' ``seconds`` and ``peak_memory_mb``; ``ratios``: for each its turns; ``register``:
        the command's stages; ``scaling``; and what they were measured on.
    """
    with tempfile.TemporaryDirectory() as folder:
        images = write_pair(Path(folder), size)
        task = Task("", size, device, threads, str(images["pair"]))
        training = replace(task, size=training_size, images=None)
        forward = ("forward", "bfloat16 forward") if computes_bfloat16(torch.device(device)) else ("forward",)
        tasks = {name: replace(task, name=name, runs=RUNS) for name in ("convolution", *forward, "attention")}
        tasks["unfolding attention"] = replace(task, name="unfolding attention")
        tasks |= {name: replace(training, name=name) for name in ("training", "plain training")}
        tasks |= {name: replace(task, name=AGAINST[name], runs=int(name == "voxelmorph")) for name in against}
        turns: dict[str, Turns] = {name: [] for name in tasks}
        commands: dict[str, Turns] = {affine: [] for affine in PRE_ALIGNMENTS}
        with Progress[None](
            total=repeats * (len(tasks) + len(commands)), title="measuring speed", unit="run"
        ) as progress:
            for _ in range(repeats):
                for name, one in tasks.items():
                    progress.say(name)
                    turns[name].append(_run(one))
                    progress.update()
                for affine, found in commands.items():
                    progress.say(f"register, {affine}")
                    found.append(_register(images, affine, device, threads, Path(folder)))
                    progress.update()
    cubes = [replace(task, name="forward", size=(n, n, n), images=None) for n in (SCALING if scaling else ())]
    return {
        "size": list(size),
        "training_size": list(training_size),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": threads,
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "tasks": turns,
        "ratios": _ratios(turns, size),
        "register": commands,
        "scaling": [{"side": one.size[0]} | _run(one) for one in Progress(cubes, title="measuring cubes", unit="cube")],
    }


def _ratios(turns: dict[str, Turns], size: Sequence[int]) -> dict[str, list[float]]:
    """Compare within each turn."""
    seconds = {name: [turn["seconds"] for turn in found] for name, found in turns.items()}
    floor = _operations(size) / (OPERATIONS_A_VOXEL * float(np.prod(size)))
    pairs = {"unfolding attention / attention": ("unfolding attention", "attention", 1.0)}
    pairs["plain training / training"] = ("plain training", "training", 1.0)
    forward = [name for name in turns if name.endswith("forward")]
    pairs |= {f"{name} / arithmetic floor": (name, "convolution", 1 / floor) for name in forward}
    pairs |= {f"{name} / forward": (name, "forward", 1.0) for name in turns if name in AGAINST}
    return {k: [a / b * f for a, b in zip(seconds[one], seconds[other])] for k, (one, other, f) in pairs.items()}


def _operations(size: Sequence[int]) -> float:
    """Count the floating-point operations of a pair's convolutions and projections."""
    # with a graph: the counter does not know oneDNN's convolution by name
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        PAN().eval()(torch.zeros(1, 2, 32, 32, 32))
    return counter.get_total_flops() * float(np.prod(size)) / 32**3


def _run(task: Task) -> dict[str, Any]:
    """Run one task in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "bundle.benchmark.tasks"]
    result: dict[str, Any] = json.loads(_call(command, task.threads, encode(task)).splitlines()[-1])
    return result


def _register(images: dict[str, Path], affine: str, device: str, threads: int, folder: Path) -> dict[str, Any]:
    """Run the whole command on two files: seconds by stage, from start to end, and its largest memory."""
    command = [sys.executable, "-W", "ignore", "-m", "bundle", "register", "--output_dir", str(folder / affine)]
    command += [f"--moving={images['moving']}", f"--fixed={images['fixed']}", f"--affine={affine}"]
    command += ["--device", "cuda" if device.startswith("cuda") else "cpu"]
    start = os.times().elapsed
    _call(command, threads)
    elapsed = os.times().elapsed - start
    found = json.loads((folder / affine / "registration.json").read_text())
    return found["seconds"] | {"whole command": elapsed, "peak_memory_mb": found["peak_memory_mb"]}


def _call(command: list[str], threads: int, stdin: str = "") -> str:
    limits = {"OMP_NUM_THREADS": str(threads), "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=os.environ | limits)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["out of memory, perhaps"])[-1]
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}: {reason}")
    return done.stdout


def write_pair(folder: Path, size: tuple[int, int, int]) -> dict[str, Path]:
    """Write two synthetic heads: as files, and as the array that tasks read."""
    root = write_phantoms(folder / "heads", 0, 0, 2, size, 1.0)
    paths = {role: root / "images" / f"phantom_00{i}.nii.gz" for i, role in enumerate(("moving", "fixed"))}
    volumes = [scale(np.asarray(nibabel.load(path).dataobj, np.float32)) for path in paths.values()]
    np.save(folder / "pair.npy", np.stack(volumes)[None].astype(np.float32))
    return paths | {"pair": folder / "pair.npy"}


def speed_markdown(result: dict[str, Any]) -> str:
    """Write the tables: medians, with the least and the largest of the turns."""
    sides = "×".join(map(str, result["size"]))
    parts = [f"{sides}, {result['device']}, {result['threads']} threads, {result['machine']}.\n"]
    lines = []
    for name, turns in result["tasks"].items():
        where = f" ({'×'.join(map(str, result['training_size']))})" if "training" in name else ""
        lines.append([f"{name}{where}", _spread(turns, "seconds", 2), _spread(turns, "peak_memory_mb", 0)])
    parts.append(markdown_table(["", "seconds", "peak memory, MB"], lines))
    parts.append(markdown_table(["ratio", ""], [[name, span(found, 1)] for name, found in result["ratios"].items()]))
    stages = [key for key in next(iter(result["register"].values()))[0] if key not in ("total", "peak_memory_mb")]
    lines = [
        [affine, *(_spread(turns, stage, 1) for stage in stages), _spread(turns, "peak_memory_mb", 0)]
        for affine, turns in result["register"].items()
    ]
    parts.append(markdown_table(["`register --affine`", *stages, "peak memory, MB"], lines))
    return "\n".join(parts)


def _spread(turns: Turns, key: str, digits: int) -> str:
    return span([turn[key] for turn in turns], digits)


def span(values: Sequence[float], digits: int) -> str:
    """Write a median, and in brackets the least and the largest, with so many digits."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def write_scaling(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw seconds and memory of a forward pass against the number of voxels."""
    voxels = [point["side"] ** 3 / 1e6 for point in points]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for ax, key, title in zip(figure.subplots(1, 2), ("seconds", "peak_memory_mb"), ("seconds", "peak memory, MB")):
        values = [point[key] for point in points]
        slope, start = np.polyfit(voxels, values, 1)
        ax.plot(voxels, values, "o")
        ax.plot(voxels, [start + slope * v for v in voxels], "-", linewidth=1, color="grey")
        ax.set(xlabel="million voxels", ylabel=title, ylim=(0, None))
        for v, value, point in zip(voxels, values, points):
            ax.annotate(f"{point['side']}³", (v, value), textcoords="offset points", xytext=(4, -10), fontsize=8)
    figure.savefig(path, dpi=120)
