"""Pictures of a registration."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.spatial import Grid, SpatialTransform

__all__ = ["overview"]

Picture = npt.NDArray[np.uint8]
Volume = npt.NDArray[np.float64]
PLANES = ("sagittal", "coronal", "axial")
GRID_LINES = 24


def overview(fixed: torch.Tensor, moving: torch.Tensor, warped: torch.Tensor, transform: SpatialTransform) -> Picture:
    """Draw three planes of a registration, one a row, through the middle of the fixed image.

    Columns: fixed; moving after the alignment; warped; the difference to the fixed image before and after the field;
    the fixed grid as the field deforms it.

    Args:
        fixed: (1, H, W, L), the fixed image as given.
        moving: (1, H, W, L), the moving image as given.
        warped: (1, H, W, L), on the fixed image's grid.
        transform: what was found.

    Returns:
        (height, width, 3), RGB.
    """
    grid = transform.fixed_grid.canonical()
    columns = _columns(fixed, moving, warped, transform, grid)
    displaced = _deformed_positions(transform, grid)
    sides = grid.spacing_mm * (np.array(grid.shape) - 1)
    figure = Figure(figsize=(15, 7.5), dpi=100, facecolor="black", layout="constrained")
    axes = figure.subplots(3, len(columns) + 1)
    for axis, plane in enumerate(PLANES):
        others = [i for i in range(3) if i != axis]
        extent = (0.0, float(sides[others[0]]), 0.0, float(sides[others[1]]))
        middle = grid.shape[axis] // 2
        for ax, (name, (volume, style)) in zip(axes[axis], columns.items()):
            ax.imshow(volume.take(middle, axis).T, origin="lower", extent=extent, **style)
            _dress(ax, name if axis == 0 else "")
        axes[axis, 0].set_ylabel(plane, color="white", fontsize=11)
        _draw_grid(axes[axis, -1], np.take(displaced[others], middle, axis + 1), extent)
        _dress(axes[axis, -1], "deformed grid" if axis == 0 else "")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _columns(
    fixed: torch.Tensor, moving: torch.Tensor, warped: torch.Tensor, transform: SpatialTransform, grid: Grid
) -> dict[str, tuple[Volume, dict[str, Any]]]:
    """Bring all images onto one grid and scale: the volume and drawing style of each column."""
    identity = transform.without_field(aligned=False)
    images = {
        "fixed": identity.resample(fixed.float(), grid, image_grid=transform.fixed_grid),
        "moving, aligned": transform.without_field().resample(moving.float(), grid),
        "warped": identity.resample(warped.float(), grid, image_grid=transform.fixed_grid),
    }
    scaled = {name: scale(image[0].numpy()) for name, image in images.items()}
    gray, signed = {"cmap": "gray", "vmin": 0, "vmax": 1}, {"cmap": "coolwarm", "vmin": -1, "vmax": 1}
    return {name: (volume, gray) for name, volume in scaled.items()} | {
        "difference before": (scaled["moving, aligned"] - scaled["fixed"], signed),
        "difference after": (scaled["warped"] - scaled["fixed"], signed),
    }


def scale(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scale intensities between percentiles 0.5 and 99.5 to [0, 1]."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def _deformed_positions(transform: SpatialTransform, grid: Grid) -> npt.NDArray[np.float64]:
    """Where the network's field moves each voxel, in mm along the canonical axes: (3, H, W, L)."""
    field = transform.without_alignment().displacement_field(grid).numpy()
    along_axes = np.einsum("ji,jhwl->ihwl", grid.direction, field)
    positions = np.meshgrid(*[np.arange(n) * s for n, s in zip(grid.shape, grid.spacing_mm)], indexing="ij")
    return np.stack(positions) + along_axes


def _draw_grid(ax: Axes, positions: npt.NDArray[np.float64], extent: tuple[float, float, float, float]) -> None:
    """Draw every few grid lines of one plane where the field takes them."""
    for axis in (0, 1):
        step = max(1, positions.shape[axis + 1] // GRID_LINES)
        lines = np.moveaxis(positions, axis + 1, 1)[:, ::step]
        ax.plot(lines[0].T, lines[1].T, color="#7fd0ff", linewidth=0.5)
    ax.set_xlim(extent[0], extent[1])
    ax.set_ylim(extent[2], extent[3])
    ax.set_aspect("equal")


def _dress(ax: Axes, title: str) -> None:
    ax.set_facecolor("black")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, color="white", fontsize=11)
    for spine in ax.spines.values():
        spine.set_visible(False)
