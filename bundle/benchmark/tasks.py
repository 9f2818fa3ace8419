"""What the speed benchmark times: each task runs in a fresh process, whose largest memory is then its own.

``python -m bundle.benchmark.tasks`` reads one ``Task`` as JSON from its standard input and answers with one line of
JSON: ``seconds`` and ``peak_memory_mb``, imports included (on a GPU: the largest memory that tensors held there).
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from bundle.memory import peak_memory_mb, prepare_allocator
from bundle.root import WEIGHTS

__all__ = ["TASKS", "Task", "encode", "measure"]


@dataclass(frozen=True)
class Task:
    """One thing to time.

    Args:
        name: of ``TASKS``.
        size: sides of the volume in voxels.
        device: that torch runs it on; peers other than networks know the CPU alone.
        threads: that it may use.
        images: file (.npy) of a pair, (1, 2, H, W, L) in [0, 1]; random numbers where nothing depends on them.
        runs: how often it is run after a first time; the median counts. 0 times the first.
    """

    name: str
    size: tuple[int, int, int]
    device: str = "cpu"
    threads: int = 1
    images: str | None = None
    runs: int = 1

    def pair(self) -> torch.Tensor:
        """Load or draw the two images."""
        if self.images is None:
            return torch.rand(1, 2, *self.size, generator=torch.Generator().manual_seed(0)).to(self.device)
        return torch.from_numpy(np.load(self.images)).to(self.device)


def _forward(task: Task) -> Callable[[], object]:
    from bundle.networks import PAN

    network = PAN()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return _inference(network, task)


def _bfloat16_forward(task: Task) -> Callable[[], object]:
    from bundle.ops import streaming_in

    run = _forward(task)

    def run_in_bfloat16() -> None:
        with streaming_in(torch.bfloat16):
            run()

    return run_in_bfloat16


def _voxelmorph(task: Task) -> Callable[[], object]:
    from bundle.networks.peers import VoxelMorph

    return _inference(VoxelMorph(), task)


def _inference(network: torch.nn.Module, task: Task) -> Callable[[], object]:
    network, pair = network.to(task.device).eval(), task.pair()

    def run() -> None:
        with torch.no_grad():
            network(pair)

    return run


def _training(task: Task) -> Callable[[], object]:
    from bundle.losses import RegistrationLoss
    from bundle.networks import PAN

    network, pair, loss = PAN().to(task.device), task.pair(), RegistrationLoss()
    return _step(network, lambda: loss(network(pair), pair[:, 1:]))


def _plain_training(task: Task) -> Callable[[], object]:
    from bundle.benchmark.plain import plain_forward, plain_loss
    from bundle.networks import PAN

    network, pair = PAN().to(task.device), task.pair()
    for module in network.modules():  # the layout that everybody's network has
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return _step(network, lambda: plain_loss(*plain_forward(network, pair), pair[:, 1:]))


def _step(network: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], object]:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, amsgrad=True)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def _attention(task: Task) -> Callable[[], object]:
    from bundle.ops import local_attention

    return _operator(local_attention, task)


def _unfolding(task: Task) -> Callable[[], object]:
    from bundle.benchmark.plain import unfolding_attention

    return _operator(unfolding_attention, task)


def _operator(operator: Callable[..., torch.Tensor], task: Task) -> Callable[[], object]:
    query, key = (torch.randn(1, 1, 6, *task.size, device=task.device) for _ in range(2))
    bias = torch.randn(1, 3, 3, 3, device=task.device)

    def run() -> None:
        with torch.no_grad():
            operator(query, key, bias)

    return run


def _convolution(task: Task) -> Callable[[], object]:
    """The arithmetic of level 1: 3×3×3, 16 to 16 channels, 13,824 operations a voxel."""
    layout = torch.channels_last_3d
    features = torch.rand(1, 16, *task.size, device=task.device).contiguous(memory_format=layout)
    weight = torch.rand(16, 16, 3, 3, 3, device=task.device).contiguous(memory_format=layout)

    def run() -> None:
        with torch.no_grad():
            F.conv3d(features, weight, padding=1)

    return run


def _peer(task: Task) -> Callable[[], object]:
    from bundle.benchmark.methods import PEERS, Options
    from bundle.spatial import Grid

    register = PEERS[task.name](Options(weights=str(WEIGHTS), syn_iterations=(40, 20, 0))).load()
    return lambda: register(task.pair(), Grid(task.size, np.eye(4)))


TASKS: Mapping[str, Callable[[Task], Callable[[], object]]] = {
    "convolution": _convolution,
    "attention": _attention,
    "unfolding attention": _unfolding,
    "forward": _forward,
    "bfloat16 forward": _bfloat16_forward,
    "voxelmorph": _voxelmorph,
    "syn-mi": _peer,
    "elastix": _peer,
    "training": _training,
    "plain training": _plain_training,
}


def measure(task: Task) -> dict[str, float]:
    """Run a task in this process: median seconds, and the largest memory."""
    prepare_allocator()  # as the workflows do
    torch.set_num_threads(task.threads)
    on_gpu = task.device.startswith("cuda")
    run = TASKS[task.name](task)
    seconds = []
    for _ in range(task.runs + 1):
        start = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_memory_mb()
    return {"seconds": statistics.median(seconds[1:] or seconds), "peak_memory_mb": peak}


def encode(task: Task) -> str:
    """Write a task as the JSON that a process of this module reads."""
    return json.dumps(asdict(task))


if __name__ == "__main__":
    settings = json.load(sys.stdin)
    sys.stdout.write(json.dumps(measure(Task(**settings | {"size": tuple(settings["size"])}))) + "\n")
