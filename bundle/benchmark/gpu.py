"""Everything that a GPU is to be asked, in one call: ``python -m bundle.benchmark.gpu`` (``make gpu``).

Needs torch alone, but for the optimisation, which takes MONAI. What fails becomes a row that says why, and what the
time does not suffice for one that says so: one failure costs none of the other numbers.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bundle.ops import local_attention_reference, local_attention_triton
from bundle.root import WEIGHTS
from torch import nn

__all__ = ["gpu_markdown", "measure_gpu"]

Row = dict[str, Any]
Size = tuple[int, int, int]
Part = tuple[str, Callable[[], Row]]

SIZES: tuple[Size, ...] = ((160, 192, 160), (160, 192, 224))
ODD: Size = (11, 13, 37)  # of no tile's sides
HEADS = (1, 8)
RUNS = 5
FORWARD_FLOATS, BACKWARD_FLOATS = 16, 31  # read and written a voxel and head, docs/paper.md


class _Device:
    """Where all is measured.

    Args:
        name: of torch's device.
    """

    def __init__(self, name: str) -> None:
        self.name, self.is_gpu = name, name.startswith("cuda")

    def seconds(self, run: Callable[[], object], runs: int = RUNS) -> float:
        """Time a call by the median of several, after one that does not count."""
        found = []
        for _ in range(runs + 1):
            self._wait()
            start = time.perf_counter()
            run()
            self._wait()
            found.append(time.perf_counter() - start)
        return statistics.median(found[1:])

    def timed(self, run: Callable[[], object], runs: int = RUNS) -> Row:
        """Time a call, with the largest memory that tensors held during it."""
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        row: Row = {"seconds": self.seconds(run, runs)}
        return row | ({"peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6} if self.is_gpu else {})

    def bytes_a_second(self, size: Size) -> float:
        """Copy a tensor as large as a query, to see how fast memory is here."""
        source = torch.rand(6, *size, device=self.name)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.seconds(lambda: target.copy_(source))

    def _wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()


def measure_gpu(device: str = "cuda", sizes: Sequence[Size] = SIZES, limit_s: float = 450.0) -> list[Row]:
    """Check the kernels, and time them, the network and its steps.

    Args:
        device: of torch.
        sizes: of the volumes, voxels.
        limit_s: after so many seconds nothing new is begun.

    Returns:
        A row each: ``what``, ``size``, and what was found: ``error`` (largest difference to the reference, relative for
        gradients), ``seconds``, ``floor_seconds`` (at the speed of a copy), ``peak_memory_mb``, ``difference_voxel``
        (of a field to the plain one); or ``failed`` or ``left_out``, why there is nothing.
    """
    start, rows, one = time.perf_counter(), [], _Device(device)
    for size in (ODD, *sizes):
        for what, part in _kernels(one, size, size is ODD) if size is ODD else _parts(one, size):
            row: Row = {"what": what, "size": "×".join(map(str, size))}
            if time.perf_counter() - start > limit_s:
                rows.append(row | {"left_out": f"{limit_s:g} s are over"})
                continue
            try:
                rows.append(row | part())
            except Exception as error:  # the others still run
                rows.append(row | {"failed": f"{type(error).__name__}: {error}".splitlines()[0]})
    return rows


def _parts(one: _Device, size: Size) -> Iterator[Part]:
    """Yield what is asked of a size."""
    yield from _kernels(one, size, False)
    network, pair = _network(one), torch.rand(1, 2, *size, device=one.name)
    yield "forward", lambda: one.timed(lambda: _infer(network, pair))
    yield "forward, --amp", lambda: _variant(one, network, pair, amp=True)
    yield "forward, --compiled", lambda: _variant(one, network, pair, compiled=True)
    yield "optimise, 5 steps", lambda: _optimise(one, pair)
    yield "training step", lambda: _train(one, pair, False)
    yield "training step, --amp", lambda: _train(one, pair, True)


def _kernels(one: _Device, size: Size, check: bool) -> Iterator[Part]:
    """Yield the local attention of one head: against the reference, or its time."""
    if check:
        for heads in HEADS:
            yield f"kernels against the reference, {heads} heads", partial(_difference, one, size, heads)
        return
    yield "kernel, forward", lambda: _kernel(one, size, False)
    yield "kernels, forward and both backward", lambda: _kernel(one, size, True)


def _operands(one: _Device, size: Size, heads: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(1, heads, 6, *size), (1, heads, 6, *size), (heads, 3, 3, 3)]
    return [torch.randn(shape).to(one.name).requires_grad_() for shape in shapes]


def _difference(one: _Device, size: Size, heads: int) -> Row:
    """Compare field and gradients with the reference's; that they repeat to the bit, too."""
    operands, results = _operands(one, size, heads), []
    for attention in (local_attention_triton, local_attention_triton, local_attention_reference):
        field = attention(*operands)
        results.append([field.detach(), *torch.autograd.grad((field * field.detach().cos()).sum(), operands)])
    found, again, expected = results
    scales = [1.0, *(float(e.abs().max()) for e in expected[1:])]
    error = max(float((f - e).abs().max()) / scale for f, e, scale in zip(found, expected, scales))
    return {"error": error, "repeats": all(torch.equal(f, a) for f, a in zip(found, again))}


def _kernel(one: _Device, size: Size, backward: bool) -> Row:
    operands = _operands(one, size, 1)

    def run() -> None:
        field = local_attention_triton(*operands)
        if backward:
            torch.autograd.grad(field, operands, torch.ones_like(field))

    floats = FORWARD_FLOATS + (BACKWARD_FLOATS if backward else 0)
    floor = 4 * floats * size[0] * size[1] * size[2] / one.bytes_a_second(size)
    return one.timed(run) | {"floor_seconds": floor}


def _network(one: _Device) -> nn.Module:
    from bundle.networks import PAN

    network = PAN()
    if WEIGHTS.is_file():
        network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return network.to(one.name).eval()


def _infer(network: nn.Module, pair: torch.Tensor, amp: bool = False) -> torch.Tensor:
    with torch.no_grad(), torch.autocast(pair.device.type, dtype=torch.bfloat16, enabled=amp):
        pred: torch.Tensor = network(pair)
    return pred[:, 1:]


def _variant(one: _Device, network: nn.Module, pair: torch.Tensor, amp: bool = False, compiled: bool = False) -> Row:
    """Time another way to run the network, and compare its field with the plain one's."""
    plain = _infer(network, pair)
    if compiled:
        network = _network(one)
        network.compile(mode="reduce-overhead", dynamic=False)
    field = _infer(network, pair, amp).clone()
    row = one.timed(lambda: _infer(network, pair, amp))
    return row | {"difference_voxel": float((field.float() - plain).abs().mean())}


def _optimise(one: _Device, pair: torch.Tensor) -> Row:
    from bundle.optimisation import PairwiseOptimiser  # takes MONAI

    optimiser, start = PairwiseOptimiser(5), torch.zeros_like(pair[:, :1].expand(-1, 3, -1, -1, -1))
    return one.timed(lambda: optimiser(pair, start), 2)


def _train(one: _Device, pair: torch.Tensor, amp: bool) -> Row:
    from bundle.losses import RegistrationLoss

    network, loss = _network(one).train(), RegistrationLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, amsgrad=True)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(pair.device.type, dtype=torch.bfloat16, enabled=amp):
            value = loss(network(pair), pair[:, 1:])
        value.backward()
        optimizer.step()

    return one.timed(run, 3)


def gpu_markdown(rows: Sequence[Row], where: str) -> str:
    """Write the table of ``measure_gpu``."""
    lines = [f"{where}, torch {torch.__version__}.", "", "| | voxels | seconds | floor, s | peak memory, MB | found |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        notes = [f"error {row['error']:.1e}, repeats to the bit: {row['repeats']}" for _ in range("error" in row)]
        notes += [
            f"mean difference to plain {row['difference_voxel']:.2g} voxel" for _ in range("difference_voxel" in row)
        ]
        notes += [f"not measured: {row[key]}" for key in ("failed", "left_out") if key in row]
        numbers = [_number(row, "seconds", 4), _number(row, "floor_seconds", 4), _number(row, "peak_memory_mb", 0)]
        lines.append(f"| {row['what']} | {row['size']} | {' | '.join(numbers)} | {'; '.join(notes)} |")
    return "\n".join(lines) + "\n"


def _number(row: Row, key: str, digits: int) -> str:
    return f"{row[key]:.{digits}f}" if key in row else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write ``gpu.json`` and ``gpu.md``; exit code 1 where something failed."""
    parser = argparse.ArgumentParser(description="Check and time the network on a GPU.")
    parser.add_argument("--output_dir", default="output/gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default=";".join(",".join(map(str, size)) for size in SIZES))
    parser.add_argument("--limit_s", type=float, default=450.0)
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU, or torch was built without it")
    sizes = [tuple(int(n) for n in size.split(",")) for size in given.sizes.split(";")]
    rows = measure_gpu(given.device, sizes, given.limit_s)  # type: ignore[arg-type]
    where = torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device
    folder = Path(given.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(
        json.dumps({"device": where, "torch": torch.__version__, "rows": rows}, indent=4) + "\n"
    )
    (folder / "gpu.md").write_text(gpu_markdown(rows, where))
    print(gpu_markdown(rows, where))  # noqa: T201
    if any("failed" in row for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
