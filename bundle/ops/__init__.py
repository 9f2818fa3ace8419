"""Operators whose plain form is slow or large: local attention, and the encoder's norm and pooling."""

import functools
import warnings
from collections.abc import Callable

import torch
from bundle.ops import triton
from bundle.ops.lean import local_attention_lean
from bundle.ops.norm import StreamedNorm, instance_norm_leaky_relu
from bundle.ops.pooling import channels_last, halve, halve_by_slabs
from bundle.ops.reference import local_attention_reference, neighbour_offsets
from bundle.ops.streaming import (
    Activation,
    as_planes,
    check_bfloat16,
    computes_bfloat16,
    convolve_by_slabs,
    streamable,
    streamed_dtype,
    streaming_in,
)
from bundle.ops.triton import local_attention_triton

__all__ = [
    "Activation",
    "StreamedNorm",
    "as_planes",
    "channels_last",
    "check_bfloat16",
    "computes_bfloat16",
    "convolve_by_slabs",
    "halve",
    "halve_by_slabs",
    "instance_norm_leaky_relu",
    "local_attention",
    "local_attention_lean",
    "local_attention_reference",
    "local_attention_triton",
    "neighbour_offsets",
    "streamable",
    "streamed_dtype",
    "streaming_in",
]


def local_attention(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute each head's expected offset in the neighbourhood of every voxel.

    φˢ(x) = Σ_y softmax_y(Qˢ(x)·Kˢ(y) + Pˢ(y − x)) (y − x), over the n×n×n neighbours y of x, without 1/√d. Beyond the
    border K is zero and these neighbours stay in the softmax. Triton kernels serve the GPU, the lean backend all else;
    while a graph is being scripted, traced or exported, or compiled for another device, the reference stands in, which
    has no loop over sizes.

    Args:
        query: Q, (B, S, d, H, W, L), of the fixed image.
        key: K, same shape, of the moving image.
        bias: P, (S, n, n, n), n odd.

    Returns:
        (B, 3·S, H, W, L): the sub-field of head *s* in channels 3s … 3s + 2, voxels, each within ±(n − 1)/2.

    Raises:
        ValueError: shapes do not fit together.

    Source:
        Equations (4) and (5) of the paper; boundary rule and scale: ``docs/paper.md``.

    Example:
        >>> q = torch.zeros(1, 1, 6, 4, 5, 6)
        >>> local_attention(q, q, torch.zeros(1, 3, 3, 3)).abs().max().item()  # no preference, no displacement
        0.0
    """
    if query.dim() != 6 or query.shape != key.shape:
        raise ValueError(f"Query and key must both be (B, S, d, H, W, L), got {query.shape} and {key.shape}.")
    n = bias.shape[-1]
    if bias.shape != (query.shape[1], n, n, n) or n % 2 == 0:
        raise ValueError(f"The bias must be (heads, n, n, n) with n odd, got {bias.shape} for {query.shape[1]} heads.")
    if not torch.jit.is_scripting():
        if not (torch.jit.is_tracing() or torch.compiler.is_exporting()):
            backend = backend_for(query.device.type, query.dtype)
            if backend is local_attention_triton or not torch.compiler.is_compiling():
                return backend(query, key, bias)
    return local_attention_reference(query, key, bias)


def backend_for(device: str, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """Choose who computes local attention: Triton on a GPU, unless it is missing or asked for double precision."""
    if device != "cuda" or dtype == torch.float64:
        return local_attention_lean
    if not triton.AVAILABLE:
        _tell_that_triton_is_missing()
        return local_attention_lean
    return local_attention_triton


@functools.cache
def _tell_that_triton_is_missing() -> None:
    warnings.warn(
        "Local attention runs without its GPU kernels, much slower: install triton (pip install triton), which belongs"
        " to PyTorch's CUDA build on Linux."
    )
