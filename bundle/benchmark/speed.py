"""Measure what the operator and the network cost on this machine."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from bundle.ops import local_attention_lean, neighbour_offsets

__all__ = ["measure_speed"]

# run in a fresh process: its largest memory ever is then the forward pass's, imports included
FORWARD = """
import sys, time, torch
from bundle.memory import peak_memory_mb
from bundle.networks import PAN
size = [int(n) for n in sys.argv[1:]]
network, image = PAN().eval(), torch.rand(1, 2, *size)
start = time.perf_counter()
with torch.no_grad():
    network(image)
seconds = time.perf_counter() - start
print(seconds, peak_memory_mb())
"""


def measure_speed(size: Sequence[int] = (160, 192, 160), repeats: int = 3) -> dict[str, Any]:
    """Time local attention at level 1 against an unfolding one, and a whole forward pass with its peak memory, on CPU.

    The two operators take turns, and their ratio is taken turn by turn, so that it holds on a busy machine.

    Args:
        size: sides of the volume in voxels.
        repeats: turns.

    Returns:
        Seconds (median, and each turn), ratios and peak memory.
    """
    query, key, bias = torch.randn(1, 1, 6, *size), torch.randn(1, 1, 6, *size), torch.randn(1, 3, 3, 3)
    seconds: dict[str, list[float]] = {"lean": [], "unfolding": []}
    operators: dict[str, Callable[..., torch.Tensor]] = {"lean": local_attention_lean, "unfolding": unfolding_attention}
    with torch.no_grad():
        local_attention_lean(query, key, bias)  # threads and caches warm
        for _ in range(repeats):
            for name, operator in operators.items():
                start = time.perf_counter()
                operator(query, key, bias)
                seconds[name].append(time.perf_counter() - start)
    ratios = [u / f for f, u in zip(seconds["lean"], seconds["unfolding"])]
    forward = [_forward_in_fresh_process(size) for _ in range(repeats)]
    return {
        "size": list(size),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "level_1_attention_seconds": {k: round(statistics.median(v), 3) for k, v in seconds.items()},
        "unfolding_over_lean": {"median": round(statistics.median(ratios), 2), "all": [round(r, 2) for r in ratios]},
        "forward_seconds": [round(s, 2) for s, _ in forward],
        "forward_peak_memory_mb": [round(m) for _, m in forward],
    }


def unfolding_attention(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute local attention the plain way, unfolding K into 27 copies: what the lean operator is compared with."""
    b, s, d, h, w, l = query.shape  # noqa: E741
    padded = F.pad(key, [1] * 6)
    unfolded = padded.unfold(3, 3, 1).unfold(4, 3, 1).unfold(5, 3, 1).reshape(b, s, d, h, w, l, 27)
    logits = torch.einsum("bsdhwl,bsdhwln->bshwln", query, unfolded) + bias.view(1, s, 1, 1, 1, 27)
    sub_fields = logits.softmax(-1) @ neighbour_offsets(3, query)
    return sub_fields.movedim(-1, 2).flatten(1, 2)


def _forward_in_fresh_process(size: Sequence[int]) -> tuple[float, float]:
    """Run one forward pass of a fresh network: (seconds, peak memory in MB)."""
    command = [sys.executable, "-W", "ignore", "-c", FORWARD, *map(str, size)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = run.stdout.split()
    return float(seconds), float(peak)
