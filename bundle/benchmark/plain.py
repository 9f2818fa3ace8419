"""PAN written as the paper reads, on the same parameters: what the network's own, lean path is compared with."""

import torch
import torch.nn.functional as F
from bundle.fields import compose, upsample, warp
from bundle.networks import PAN
from bundle.networks.encoder import ConvolutionBlock, EncoderLevel
from bundle.networks.lat import LocalAttentionTransformer, Projection, head_gram
from bundle.ops import neighbour_offsets
from bundle.shapes import DDF, Features, Volume

__all__ = ["plain_forward", "plain_loss", "unfolding_attention"]


def plain_forward(network: PAN, pair: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Register by the textbook form of every step: all features kept, K unfolded, features warped before projection.

    Args:
        network: its parameters are used.
        pair: (B, 2, H, W, L), moving and fixed, sides that the pyramid can halve.

    Returns:
        The prediction (B, 4, H, W, L) and the Gram matrices, as the network hands them over in training.
    """
    moving, fixed = (_encode(network, pair[:, i : i + 1]) for i in range(2))
    ddf, gram = torch.zeros(0), []
    attention: LocalAttentionTransformer
    projection: Projection
    for i, (attention, projection) in enumerate(zip(network.attention, list(network.projection)[::-1])):  # type: ignore[assignment]
        key, query = moving.pop(), fixed.pop()
        if i > 0:
            ddf = upsample(ddf, list(key.shape[2:]))
            key = warp(key, ddf)
        q, k = (_embed(attention, projection, features) for features in (query, key))
        if attention.heads > 1:
            gram.append(torch.stack([head_gram(q), head_gram(k)]))
        residual: DDF = attention.merge(unfolding_attention(q, k, attention.position_bias))
        ddf = residual if i == 0 else compose(ddf, residual)
    return torch.cat([warp(pair[:, :1], ddf), ddf], 1), gram


def _encode(network: PAN, image: Volume) -> list[Features]:
    """List the features of every level, recalibrated, with the image beside them."""
    pyramid: list[Features] = []
    features = image
    level: EncoderLevel
    for level in network.encoder:  # type: ignore[assignment]
        if pyramid:
            features, image = F.avg_pool3d(features, 2), F.avg_pool3d(image, 2)
        features = _level(level, features)
        pyramid.append(torch.cat([features, image], 1))
    return pyramid


def _level(level: EncoderLevel, features: Features) -> Features:
    block: ConvolutionBlock
    for block in level.blocks:  # type: ignore[assignment]
        features = block.convolution(features)
        features = F.leaky_relu(F.instance_norm(features) if block.norm else features, 0.1)
    scale: torch.Tensor = level.excitation(features.mean((2, 3, 4)))
    return features * scale[:, :, None, None, None]


def _embed(attention: LocalAttentionTransformer, projection: Projection, features: Features) -> torch.Tensor:
    x = F.linear(features.movedim(1, -1), projection.weight, attention.projection_bias)
    return attention.norm(x).movedim(-1, 1).unflatten(1, [attention.heads, -1])


def unfolding_attention(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute local attention the plain way, unfolding K into 27 copies; arguments as of ``local_attention``."""
    b, s, d, h, w, l = query.shape  # noqa: E741
    padded = F.pad(key, [1] * 6)
    unfolded = padded.unfold(3, 3, 1).unfold(4, 3, 1).unfold(5, 3, 1).reshape(b, s, d, h, w, l, 27)
    logits = torch.einsum("bsdhwl,bsdhwln->bshwln", query, unfolded) + bias.view(1, s, 1, 1, 1, 27)
    sub_fields = logits.softmax(-1) @ neighbour_offsets(3, query)
    return sub_fields.movedim(-1, 2).flatten(1, 2)


def plain_loss(pred: torch.Tensor, gram: list[torch.Tensor], fixed: Volume, window: int = 9) -> torch.Tensor:
    """Compute equation 1 with window sums by convolution and no gradient written by hand."""
    i, j = pred[:, :1], fixed
    ones = torch.ones(1, 1, window, window, window, dtype=i.dtype, device=i.device)
    sums = [F.conv3d(x, ones, padding=window // 2) for x in (i, j, i * i, j * j, i * j)]
    n = window**3
    cross = sums[4] - sums[0] * sums[1] / n
    variances = (sums[2] - sums[0] ** 2 / n) * (sums[3] - sums[1] ** 2 / n)
    similarity = (cross * cross / (variances + 1e-5)).mean()
    roughness = torch.stack([pred[:, 1:].diff(dim=dim).square().mean() for dim in (2, 3, 4)]).mean()
    overlap = torch.stack([(g - torch.eye(g.shape[-1], device=g.device)).square().mean() for g in gram]).mean()
    return roughness + overlap - similarity
