"""Local attention by Triton kernels (``bundle.ops.kernels``): Q, K in; φ out, and nothing of size n³ in between.

The backward pass computes the weights again from Q, K and the logarithm of the softmax's denominator, in gather form:
each voxel as query, then as the key of its n³ queries. Arithmetic is float32, whatever the operands are. Both passes
are operators of torch's own, which ``torch.compile`` and CUDA graphs take as they are.
"""

import importlib.util

import torch

__all__ = ["AVAILABLE", "local_attention_triton"]

AVAILABLE = importlib.util.find_spec("triton") is not None  # importing it takes a second: not before it is needed

TILE = (2, 4, 32)  # voxels of a program; the last axis is contiguous
WARPS = 4  # two voxels a thread: neither registers nor loads in flight run short


def _grid(query: torch.Tensor) -> tuple[int, int]:
    """Count the programs: tiles of a volume, heads of the batch."""
    tiles = 1
    for side, voxels in zip(query.shape[3:], TILE):
        tiles *= -(-side // voxels)
    return tiles, query.shape[0] * query.shape[1]


def _constants(query: torch.Tensor, bias: torch.Tensor) -> dict[str, object]:
    heads, channels, height, width, depth = query.shape[1:]
    sizes = {"heads": heads, "height": height, "width": width, "depth": depth}
    return sizes | {"D": channels, "N": bias.shape[-1], "TILE": TILE, "num_warps": WARPS}


@torch.library.custom_op("pan_registration::local_attention", mutates_args=())
def _forward(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute φ, (B, S, 3, H, W, L), and the logarithm of the denominator, (B, S, H, W, L), in float32."""
    from bundle.ops import kernels

    field, log_sum = _forward_shapes(query, key, bias)
    with torch.cuda.device_of(query):
        kernels.forward[_grid(query)](
            query.contiguous(), key.contiguous(), bias.contiguous(), field, log_sum, **_constants(query, bias)
        )
    return field, log_sum


@_forward.register_fake
def _forward_shapes(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    b, s, _, *sides = query.shape
    return query.new_empty(b, s, 3, *sides, dtype=torch.float32), query.new_empty(b, s, *sides, dtype=torch.float32)


@torch.library.custom_op("pan_registration::local_attention_backward", mutates_args=())
def _backward(
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor,
    field: torch.Tensor,
    log_sum: torch.Tensor,
    grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the gradients by Q, K and P, each in its operand's dtype."""
    from bundle.ops import kernels

    query, key, bias, grad = query.contiguous(), key.contiguous(), bias.contiguous(), grad.contiguous()
    grid, constants = _grid(query), _constants(query, bias)
    grad_query, grad_key, _ = _backward_shapes(query, key, bias, field, log_sum, grad)
    shares = field.new_empty(*query.shape[:2], grid[0], *bias.shape[1:])
    expected = torch.empty_like(log_sum)
    with torch.cuda.device_of(query):
        kernels.backward_by_query[grid](
            query, key, bias, field, log_sum, grad, grad_query, shares, expected, **constants
        )
        kernels.backward_by_key[grid](query, key, bias, log_sum, grad, expected, grad_key, **constants)
    return grad_query, grad_key, shares.sum((0, 2)).to(bias.dtype)


@_backward.register_fake
def _backward_shapes(
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor,
    field: torch.Tensor,
    log_sum: torch.Tensor,
    grad: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), bias.new_empty(bias.shape)


def _save(ctx, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)  # nothing asks for the denominator's


def _differentiate(ctx, grad: torch.Tensor, _: None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    return _backward(*ctx.saved_tensors, grad)


_forward.register_autograd(_differentiate, setup_context=_save)


def local_attention_triton(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute the expected offset of every head on the GPU; arguments as ``local_attention``, once differentiable.

    The result is float32, for operands of half precision too.
    """
    return _forward(query, key, bias)[0].flatten(1, 2)
