"""Dense displacement fields: warp, compose, upsample and measure them. Torch alone; the convention is in ``shapes``."""

import math

import torch
import torch.nn.functional as F
from bundle.shapes import DDF, Features, Volume

__all__ = ["compose", "identity_grid", "jacobian_determinant", "upsample", "warp", "warp_planes"]

VOXELS_PER_SLAB = 2**17  # of a grid made at a time, 1.5 MB


def identity_grid(ddf: DDF) -> torch.Tensor:
    """Build the voxel coordinates of a field's own grid.

    Args:
        ddf: any (B, C, H, W, L) tensor; its sides, device and dtype are used.

    Returns:
        (1, 3, H, W, L): channel *i* holds the index along axis *i*.
    """
    axes = [torch.arange(n, device=ddf.device, dtype=ddf.dtype) for n in ddf.shape[2:]]
    g0, g1, g2 = torch.meshgrid(axes[0], axes[1], axes[2], indexing="ij")
    return torch.stack([g0, g1, g2]).unsqueeze(0)


def warp(image: Features, ddf: DDF, mode: str = "bilinear", padding: str = "zeros") -> Features:
    """Pull an image through a field: warped(x) = image(x + ddf(x)).

    Coordinates are computed in float32 at least, whatever autocast says: half precision is off by up to 0.3 voxel on
    an axis of 192.

    Args:
        image: (B, C, H, W, L), on the same grid as the field.
        ddf: (B, 3, H, W, L), voxels; a displacement that is no number points outside the image.
        mode: ``"bilinear"`` (trilinear in 3-D) or ``"nearest"`` (labels).
        padding: what lies outside the image: ``"zeros"``, or ``"border"`` for its nearest value.

    Returns:
        (B, C, H, W, L), in the dtype of the coordinates (float32, or float64 for a float64 field).

    Raises:
        ValueError: the image and the field are not of the same batch and grid; scripted or traced, nothing is checked.

    Source:
        Equals ``monai.networks.blocks.Warp(mode, padding_mode=padding)``, and can be scripted.

    Example:
        >>> image = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
        >>> one_up_axis_0 = torch.zeros(1, 3, 2, 2, 2)
        >>> one_up_axis_0[:, 0] = 1
        >>> warp(image, one_up_axis_0).flatten().tolist()
        [4.0, 5.0, 6.0, 7.0, 0.0, 0.0, 0.0, 0.0]
    """
    u = ddf if ddf.dtype == torch.float64 else ddf.float()
    image = image.to(u.dtype)
    if not torch.jit.is_scripting():
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            _check_grids(image, ddf)
            if image.device.type == "cpu" and not torch.is_grad_enabled():
                return _warp_by_rows(image.as_subclass(torch.Tensor), u.as_subclass(torch.Tensor), mode, padding)
    return F.grid_sample(
        image, _sampling_grid(u, [u.shape[2], u.shape[3], u.shape[4]], 0), mode, padding, align_corners=True
    )


def warp_planes(image: Features, ddf: DDF, first: int, last: int) -> Features:
    """Compute planes of ``warp(image, ddf)``, and read no more of the image than they need.

    Args:
        image: (1, C, H, W, L), channels-last, float32 or bfloat16, on a CPU; no graph is made.
        ddf: (1, 3, H, W, L), float32.
        first: of the planes, along the first axis.
        last: the plane after the last.

    Returns:
        (1, C, last − first, W, L), float32.

    Raises:
        ValueError: the image and the field are not of the same batch and grid.
    """
    _check_grids(image, ddf)
    moved, height = ddf[:, :, first:last], image.shape[2]
    lowest, highest = (float(bound) for bound in moved[:, 0].aminmax())
    if not math.isfinite(highest - lowest):
        lowest, highest = -height, height  # of a field that is no number somewhere nothing else is known
    start = max(0, min(math.floor(first + lowest), height - 2))
    stop = min(max(math.ceil(last - 1 + highest) + 1, start + 2), height)
    part = image[0, :, start:stop].float()
    out = part.new_empty(1, len(part), last - first, *part.shape[2:])
    _warp_rows(part, moved, out[0], "bilinear", "zeros", first - start)
    return out


def _check_grids(image: Features, ddf: DDF) -> None:
    """Refuse an image and a field that lie on different grids: either way of warping would take the sides of one."""
    if ddf.dim() != 5 or image.shape[0] != ddf.shape[0] or image.shape[2:] != ddf.shape[2:] or ddf.shape[1] != 3:
        shapes = f"{tuple(image.shape)} and {tuple(ddf.shape)}"
        raise ValueError(f"An image (B, C, H, W, L) is warped by a field (B, 3, H, W, L) of its grid, got {shapes}.")


def _sampling_grid(u: DDF, sides: list[int], ahead: int) -> torch.Tensor:
    """Compute where a field points to as ``F.grid_sample`` wants it: (B, H, W, L, 3), −1 to 1, L first.

    One multiply-add an axis, from an axis-wise base.

    Args:
        u: (B, 3, H, W, L), voxels.
        sides: of the image that is sampled.
        ahead: plane of the image that the field begins at.
    """
    s0, s1, s2 = 2.0 / max(sides[0] - 1, 1), 2.0 / max(sides[1] - 1, 1), 2.0 / max(sides[2] - 1, 1)
    a0 = torch.arange(ahead, ahead + u.shape[2], device=u.device, dtype=u.dtype).view(-1, 1, 1) * s0 - 1
    a1 = torch.arange(u.shape[3], device=u.device, dtype=u.dtype).view(-1, 1) * s1 - 1
    a2 = torch.arange(u.shape[4], device=u.device, dtype=u.dtype) * s2 - 1
    return torch.stack(
        [torch.add(a2, u[:, 2], alpha=s2), torch.add(a1, u[:, 1], alpha=s1), torch.add(a0, u[:, 0], alpha=s0)], -1
    )


def _warp_by_rows(image: Features, u: DDF, mode: str, padding: str) -> Features:
    """Warp without a graph on a CPU."""
    out = image.new_empty(len(image), image.shape[1], *u.shape[2:])
    image = image.contiguous(memory_format=torch.channels_last_3d)  # a voxel's channels share a line of the cache
    for one, v, result in zip(image, u.split(1), out):
        _warp_rows(one, v, result, mode, padding, 0)
    return out


def _warp_rows(image: torch.Tensor, u: DDF, out: torch.Tensor, mode: str, padding: str, ahead: int) -> None:
    """Warp on all cores of a CPU: ``F.grid_sample`` shares its work out by the batch, and each row is made one here.

    A gradient cannot go this way: each row would have one of the whole image.

    Args:
        image: (C, H, W, L), channels-last.
        u: (1, 3, h, W, L), voxels.
        out: (C, h, W, L), written to.
        mode: as for ``warp``.
        padding: as for ``warp``.
        ahead: plane of the image that the field begins at.
    """
    channels, (height, width, depth) = len(image), u.shape[2:]
    planes = max(1, VOXELS_PER_SLAB // (width * depth))
    for first in range(0, height, planes):
        last = min(first + planes, height)
        rows = _sampling_grid(u[:, :, first:last], list(image.shape[1:]), ahead + first).view(-1, 1, 1, depth, 3)
        found = F.grid_sample(image.expand(len(rows), *image.shape), rows, mode, padding, align_corners=True)
        out[:, first:last] = found.view(-1, width, channels, depth).permute(2, 0, 1, 3)


def compose(ddf: DDF, residual: DDF) -> DDF:
    """Fuse two warps into one: first by ``ddf``, then by ``residual``.

    u(x) = r(x) + u₀(x + r(x)). Thus warping by the result equals warping twice, up to interpolation, yet interpolates
    the image once. Where x + r(x) leaves the grid the field found so far continues with its border value: a zero there
    would tear the field at the border.

    Args:
        ddf: field found so far u₀, (B, 3, H, W, L), voxels of this grid.
        residual: correction r, same shape and units.

    Returns:
        (B, 3, H, W, L), voxels of this grid.

    Departs from paper:
        The paper does not say what lies outside the grid; the border value keeps constant fields exact.

    Example:
        >>> a, b = torch.full((1, 3, 2, 3, 4), 0.5), torch.full((1, 3, 2, 3, 4), 0.25)
        >>> torch.allclose(compose(a, b), torch.full((1, 3, 2, 3, 4), 0.75))
        True
    """
    warped = warp(ddf, residual, padding="border")
    return residual + warped if torch.is_grad_enabled() else warped.add_(residual)


def upsample(ddf: DDF, size: list[int]) -> DDF:
    """Bring a field to a finer grid: trilinear, corners aligned, values scaled to voxels of the new grid.

    Args:
        ddf: (B, 3, h, w, l), voxels of its own grid.
        size: sides of the new grid.

    Returns:
        (B, 3, *size). Values are multiplied by the ratio of the sides (2 between two pyramid levels).

    Example:
        >>> upsample(torch.ones(1, 3, 2, 2, 2), [4, 4, 4]).unique().tolist()
        [2.0]
    """
    ratio = torch.tensor([size[i] / ddf.shape[2 + i] for i in range(3)], device=ddf.device, dtype=ddf.dtype)
    finer = F.interpolate(ddf, size, mode="trilinear", align_corners=True)
    ratio = ratio.view(1, 3, 1, 1, 1)
    return finer * ratio if torch.is_grad_enabled() else finer.mul_(ratio)


def jacobian_determinant(ddf: DDF) -> Volume:
    """Compute the local volume change of x ↦ x + ddf(x): det(I + ∂u/∂x).

    Central differences inside, one-sided at the border, as ``numpy.gradient``. The determinant does not depend on the
    unit as long as displacement and axis share it; values ≤ 0 are folds.

    Args:
        ddf: (B, 3, H, W, L), voxels, every side ≥ 2.

    Returns:
        (B, 1, H, W, L).

    Raises:
        ValueError: a side is shorter than 2 voxels, or there are not 3 channels.

    Example:
        >>> grid = identity_grid(torch.zeros(1, 3, 3, 4, 5))
        >>> jacobian_determinant(0.5 * grid).unique().tolist()  # 1.5 in every direction
        [3.375]
    """
    if ddf.dim() != 5 or ddf.shape[1] != 3 or min(ddf.shape[2:]) < 2:
        raise ValueError(f"A field must be (B, 3, H, W, L) with sides of 2 or more, got {tuple(ddf.shape)}.")
    if not torch.jit.is_scripting():
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            if ddf.device.type == "cpu" and ddf.is_floating_point() and not torch.is_grad_enabled():
                return _determinant_by_slabs(ddf.as_subclass(torch.Tensor))
    j = [list(torch.gradient(ddf[:, i], dim=(1, 2, 3))) for i in range(3)]
    for i in range(3):
        j[i][i] = j[i][i] + 1
    det = (
        j[0][0] * (j[1][1] * j[2][2] - j[1][2] * j[2][1])
        - j[0][1] * (j[1][0] * j[2][2] - j[1][2] * j[2][0])
        + j[0][2] * (j[1][0] * j[2][1] - j[1][1] * j[2][0])
    )
    return det.unsqueeze(1)


def _determinant_by_slabs(ddf: DDF) -> Volume:
    """Compute the determinant some planes at a time: what is made on the way stays in the cache of a CPU."""
    out, height = ddf.new_empty(len(ddf), 1, *ddf.shape[2:]), ddf.shape[2]
    planes = max(1, VOXELS_PER_SLAB // (ddf.shape[3] * ddf.shape[4]))
    for first in range(0, height, planes):
        last, start = min(first + planes, height), max(0, first - 1)
        slab = ddf[:, :, start : min(last + 1, height)]
        a, b, c = (_difference(slab, axis)[:, :, first - start : last - start].unbind(1) for axis in range(3))
        det = a[0] * (b[1] * c[2] - c[1] * b[2])
        det -= b[0] * (a[1] * c[2] - c[1] * a[2])
        det += c[0] * (a[1] * b[2] - b[1] * a[2])
        out[:, 0, first:last] = det
    return out


def _difference(ddf: DDF, axis: int) -> torch.Tensor:
    """Differentiate x + ddf(x) along one axis as ``torch.gradient`` does: (B, 3, H, W, L)."""
    found, dim, n = torch.empty_like(ddf), axis + 2, ddf.shape[axis + 2]
    inner = found.narrow(dim, 1, n - 2)
    torch.sub(ddf.narrow(dim, 2, n - 2), ddf.narrow(dim, 0, n - 2), out=inner)
    inner.mul_(0.5)
    for place, step in ((0, 0), (n - 1, n - 2)):
        found.select(dim, place).copy_(ddf.select(dim, step + 1) - ddf.select(dim, step))
    found[:, axis] += 1
    return found
