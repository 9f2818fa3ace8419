"""3×3×3 convolutions slab by slab within one piece of memory, for a network that keeps no graph.

New memory costs a large volume about as much as its arithmetic: the system clears every page. Here the result of a
convolution overwrites its input, and what comes before and after it is done to the few planes that are in the cache.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from bundle.shapes import Features

__all__ = [
    "Activation",
    "as_planes",
    "check_bfloat16",
    "computes_bfloat16",
    "convolve_by_slabs",
    "streamable",
    "streamed_dtype",
    "streaming_in",
]

Activation = Callable[[torch.Tensor, torch.Tensor], object]
"""From contiguous planes, (planes, W, L, C), to others of that size, or to themselves."""

ELEMENTS_PER_SLAB = 2**20  # of the result: 4 MB, which the allocator keeps for the next slab (``bundle.memory``)

_DTYPE: ContextVar[torch.dtype] = ContextVar("dtype", default=torch.float32)


def computes_bfloat16(device: torch.device) -> bool:
    """Tell whether a device is a CPU with instructions for bfloat16, which it convolves faster in."""
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def check_bfloat16(bfloat16: bool, device: torch.device) -> None:
    """Refuse to stream in bfloat16 where nothing is: on anything but a CPU that convolves in it, if slowly.

    Raises:
        ValueError: another device, or such a CPU.
    """
    if not bfloat16:
        return
    if device.type != "cpu":
        raise ValueError(
            f"--bfloat16 is for CPUs, and the network runs on {device.type}: leave it out (the workflows of configs/ "
            "compute in half precision there with --amp True)."
        )
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        raise ValueError("This CPU cannot convolve in bfloat16: leave --bfloat16 out.")


@contextmanager
def streaming_in(dtype: torch.dtype) -> Iterator[None]:
    """Keep and convolve features in float32 or bfloat16, where they are ``streamable``; sums are float32 in both.

    Raises:
        ValueError: bfloat16 on a CPU that cannot convolve in it, not even slowly.
    """
    check_bfloat16(dtype == torch.bfloat16, torch.device("cpu"))
    before = _DTYPE.set(dtype)
    try:
        yield
    finally:
        _DTYPE.reset(before)


def streamed_dtype() -> torch.dtype:
    """See ``streaming_in``."""
    return _DTYPE.get()


def streamable(features: Features) -> bool:
    """Tell whether features, (B, C, H, W, L), can be convolved here: one float32 volume, on a CPU, without a graph.

    Everything that records what is done, such as tracing, compiling and exporting, is given plain convolutions.
    """
    if torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    plain = len(features) == 1 and features.dtype == torch.float32 and features.device.type == "cpu"
    library = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    return plain and library and not torch.is_autocast_enabled("cpu")


def convolve_by_slabs(
    features: Features,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    before: Activation,
    after: Callable[[torch.Tensor], object] | None = None,
) -> Features:
    """Convolve with zeros beyond the border.

    Args:
        features: (1, C_in, H, W, L), channels-last.
        weight: (C_out, C_in, 3, 3, 3).
        bias: (C_out,), or None.
        out: (H·W·L·C_out,), what is overwritten, in the type of numbers to convolve in: memory of its own, or memory
            that ends where that of the input does, if C_out ≥ C_in: each plane is read before the result comes to
            where it lies.
        before: brings planes of the input to where they are convolved, with what they still need.
        after: what learns from planes of the result, (planes, W, L, C_out), while they are in the cache.

    Returns:
        (1, C_out, H, W, L), channels-last, in the memory of ``out``.
    """
    source = as_planes(features)
    height, width, depth, channels = source.shape
    result = out.view(height, width, depth, len(weight))
    count = min(height, max(1, ELEMENTS_PER_SLAB // result[0].numel()))
    weight, bias = weight.to(out.dtype), None if bias is None else bias.to(out.dtype)
    window = out.new_zeros(count + 2, width, depth, channels)  # zero before the first plane
    _read(source, 0, window[1:2], before)
    for first in range(0, height, count):
        last = min(first + count, height)
        slab = window[: last - first + 2]
        _read(source, first + 1, slab[2:], before)
        # by name: F.conv3d gives flat volumes to a library that takes ten times as long
        planes = torch.mkldnn_convolution(_as_features(slab), weight, bias, (0, 1, 1), (1, 1, 1), (1, 1, 1), 1)
        result[first:last] = as_planes(planes)
        if after is not None:
            after(result[first:last])
        for i in range(2):  # one after the other: of a flat slab they overlap
            window[i] = slab[i - 2]
    return _as_features(result)


def as_planes(features: Features) -> torch.Tensor:
    """See one channels-last volume as it lies in memory: (1, C, H, W, L) → (H, W, L, C)."""
    return features[0].permute(1, 2, 3, 0).contiguous()


def _as_features(planes: torch.Tensor) -> Features:
    """See planes as one channels-last volume: (H, W, L, C) → (1, C, H, W, L)."""
    return planes[None].permute(0, 4, 1, 2, 3)


def _read(source: torch.Tensor, first: int, planes: torch.Tensor, before: Activation) -> None:
    """Bring planes of the input from ``first`` on; beyond its last they are zero."""
    there = max(0, min(len(planes), len(source) - first))
    planes[there:] = 0
    if there:
        before(source[first : first + there], planes[:there])
