"""Triton kernels of the local attention; ``bundle.ops.triton`` imports them when they are first needed.

One program serves one head in a tile of neighbouring voxels, whose neighbourhoods meet in the cache, and goes through
the neighbours row by row along the last axis. Channels stay in registers. Sums over voxels are written tile by tile and
nothing is added atomically, so that no result depends on the order of programs.
"""

# ruff: noqa: N803, N806

# flake8: noqa: N803, N806 - constants of Triton kernels are written in capitals

import triton
import triton.language as tl

__all__ = ["backward_by_key", "backward_by_query", "forward"]


@triton.jit
def tile_voxels(width, depth, TILE: tl.constexpr):
    """Find the indices of this program's voxels along the three axes; some may lie beyond the border."""
    columns, layers = tl.cdiv(width, TILE[1]), tl.cdiv(depth, TILE[2])
    tile, x = tl.program_id(0), tl.arange(0, TILE[0] * TILE[1] * TILE[2])
    i = tile // (columns * layers) * TILE[0] + x // (TILE[1] * TILE[2])
    j = tile // layers % columns * TILE[1] + x // TILE[2] % TILE[1]
    k = tile % layers * TILE[2] + x % TILE[2]
    return i, j, k


@triton.jit
def within(i, side):
    return (i >= 0) & (i < side)


@triton.jit
def load(volumes, size, inside, CHANNELS: tl.constexpr):
    """Load one tensor a channel, in float32, zero beyond the border."""
    values = ()
    for c in tl.static_range(CHANNELS):
        values += (tl.load(volumes + c * size, mask=inside, other=0.0).to(tl.float32),)
    return values


@triton.jit
def store(volumes, size, inside, values, CHANNELS: tl.constexpr):
    for c in tl.static_range(CHANNELS):
        tl.store(volumes + c * size, values[c], mask=inside)


@triton.jit
def dot(a, b, CHANNELS: tl.constexpr):
    total = a[0] * b[0]
    for c in tl.static_range(1, CHANNELS):
        total += a[c] * b[c]
    return total


@triton.jit
def zeros(like, CHANNELS: tl.constexpr):
    values = ()
    for _ in tl.static_range(CHANNELS):
        values += (tl.zeros_like(like),)
    return values


@triton.jit
def add_scaled(sums, weight, values, CHANNELS: tl.constexpr):
    results = ()
    for c in tl.static_range(CHANNELS):
        results += (sums[c] + weight * values[c],)
    return results


@triton.jit
def forward(
    query, key, bias, field, log_sum, heads, height, width, depth, D: tl.constexpr, N: tl.constexpr, TILE: tl.constexpr
):
    """Write φ, 3 channels a head, and the logarithm of the softmax's denominator."""
    head, size, R = tl.program_id(1).to(tl.int64), height * width * depth, N // 2
    i, j, k = tile_voxels(width, depth, TILE)
    x, inside = (i * width + j) * depth + k, (i < height) & (j < width) & (k < depth)
    q = load(query + head * D * size + x, size, inside, D)
    keys, biases = key + head * D * size + x, bias + head % heads * N * N * N
    largest = tl.full(x.shape, float("-inf"), tl.float32)
    total, along0, along1, along2 = zeros(largest, 4)
    for row in range(N * N):
        a, b = row // N - R, row % N - R
        rows, there = keys + (a * width + b) * depth, within(i + a, height) & within(j + b, width)
        logits = ()
        top = largest
        for c in tl.static_range(N):
            logit = dot(q, load(rows + (c - R), size, there & within(k + (c - R), depth), D), D)
            logits += (logit + tl.load(biases + row * N + c),)
            top = tl.maximum(top, logits[c])
        decay = tl.exp(largest - top)  # what the sums so far are worth beside the larger logit
        largest, along2 = top, along2 * decay
        weights = tl.zeros_like(top)
        for c in tl.static_range(N):
            weight = tl.exp(logits[c] - top)
            weights += weight
            if c != R:
                along2 += weight * (c - R)
        total, along0, along1 = total * decay + weights, along0 * decay + weights * a, along1 * decay + weights * b
    store(field + head * 3 * size + x, size, inside, (along0 / total, along1 / total, along2 / total), 3)
    tl.store(log_sum + head * size + x, largest + tl.log(total), mask=inside)


@triton.jit
def backward_by_query(
    query,
    key,
    bias,
    field,
    log_sum,
    grad,
    grad_query,
    grad_bias,
    expected,
    heads,
    height,
    width,
    depth,
    D: tl.constexpr,
    N: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the gradient by Q, each tile's share of the gradient by P, and g·φ, which ``backward_by_key`` asks for."""
    head, size, R = tl.program_id(1).to(tl.int64), height * width * depth, N // 2
    i, j, k = tile_voxels(width, depth, TILE)
    x, inside = (i * width + j) * depth + k, (i < height) & (j < width) & (k < depth)
    q = load(query + head * D * size + x, size, inside, D)
    g = load(grad + head * 3 * size + x, size, inside, 3)
    e = dot(g, load(field + head * 3 * size + x, size, inside, 3), 3)
    tl.store(expected + head * size + x, e, mask=inside)
    log = tl.load(log_sum + head * size + x, mask=inside, other=float("inf"))  # beyond the border all weights are 0
    keys, biases = key + head * D * size + x, bias + head % heads * N * N * N
    shares = grad_bias + (head * tl.num_programs(0) + tl.program_id(0)) * N * N * N
    gq = zeros(e, D)
    for row in range(N * N):
        a, b = row // N - R, row % N - R
        rows, there = keys + (a * width + b) * depth, within(i + a, height) & within(j + b, width)
        gain = g[0] * a + g[1] * b - e
        for c in tl.static_range(N):
            k_c = load(rows + (c - R), size, there & within(k + (c - R), depth), D)
            weight = tl.exp(dot(q, k_c, D) + tl.load(biases + row * N + c) - log)
            grad_logit = weight * (gain + g[2] * (c - R))
            gq = add_scaled(gq, grad_logit, k_c, D)
            tl.store(shares + row * N + c, tl.sum(grad_logit, 0))
    store(grad_query + head * D * size + x, size, inside, gq, D)


@triton.jit
def backward_by_key(
    query,
    key,
    bias,
    log_sum,
    grad,
    expected,
    grad_key,
    heads,
    height,
    width,
    depth,
    D: tl.constexpr,
    N: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the gradient by K: each voxel gathers it from the queries whose neighbour it is."""
    head, size, R = tl.program_id(1).to(tl.int64), height * width * depth, N // 2
    i, j, k = tile_voxels(width, depth, TILE)
    x, inside = (i * width + j) * depth + k, (i < height) & (j < width) & (k < depth)
    own = load(key + head * D * size + x, size, inside, D)
    queries, grads, biases = query + head * D * size + x, grad + head * 3 * size + x, bias + head % heads * N * N * N
    logs, means = log_sum + head * size + x, expected + head * size + x
    gk = zeros(own[0], D)
    for row in range(N * N):
        a, b = row // N - R, row % N - R
        shift, there = -(a * width + b) * depth, within(i - a, height) & within(j - b, width)
        for c in tl.static_range(N):
            y, seen = shift - (c - R), there & within(k - (c - R), depth)
            q = load(queries + y, size, seen, D)
            g = load(grads + y, size, seen, 3)
            log = tl.load(logs + y, mask=seen, other=float("inf"))
            weight = tl.exp(dot(q, own, D) + tl.load(biases + row * N + c) - log)
            gain = g[0] * a + g[1] * b + g[2] * (c - R) - tl.load(means + y, mask=seen, other=0.0)
            gk = add_scaled(gk, weight * gain, q, D)
    store(grad_key + head * D * size + x, size, inside, gk, D)
