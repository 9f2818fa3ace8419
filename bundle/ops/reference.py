"""Local attention written as the formula reads: the oracle of the other backends, and the form exporters understand."""

import torch
import torch.nn.functional as F

__all__ = ["local_attention_reference", "neighbour_offsets"]


def neighbour_offsets(neighbourhood: int, like: torch.Tensor) -> torch.Tensor:
    """List the offsets V of a neighbourhood, last axis fastest.

    Args:
        neighbourhood: side n of the cube, odd.
        like: gives device and dtype.

    Returns:
        (n³, 3), voxels, axis order as the tensor's: for n = 3 from (−1, −1, −1) to (1, 1, 1).
    """
    r = torch.arange(neighbourhood, device=like.device, dtype=like.dtype) - neighbourhood // 2
    o0, o1, o2 = torch.meshgrid(r, r, r, indexing="ij")
    return torch.stack([o0.flatten(), o1.flatten(), o2.flatten()], dim=1)


def local_attention_reference(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute the expected offset of every head by stacking all its logits.

    Takes n³ volumes of memory a head and any size, differentiable twice; arguments as ``local_attention``.
    """
    n = bias.shape[1]
    r = n // 2
    h, w, d = query.shape[3], query.shape[4], query.shape[5]
    padded = F.pad(key, [r, r, r, r, r, r])
    logits = []
    for i in range(n):
        for j in range(n):
            for k in range(n):
                shifted = padded[:, :, :, i : i + h, j : j + w, k : k + d]
                logits.append((query * shifted).sum(2) + bias[:, i, j, k].view(1, -1, 1, 1, 1))
    weights = torch.stack(logits, 2).softmax(2)
    offsets = neighbour_offsets(n, query)
    sub_fields = torch.einsum("bsnhwd,nc->bschwd", weights, offsets)
    return sub_fields.flatten(1, 2)
