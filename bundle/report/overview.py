"""Pictures of a registration."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bundle.spatial import Grid, SpatialTransform
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

__all__ = ["overview"]

Picture = npt.NDArray[np.uint8]
Volume = npt.NDArray[np.float64]
PLANES = ("sagittal", "coronal", "axial")
GRID_LINES = 24
TILES = 8
LARGEST_JACOBIAN = 4.0  # colours reach from a quarter to four times the volume
FOLDED = "#00ff40"
PLACES = {"left": 0.015, "right": 0.995, "top": 0.965, "bottom": 0.06, "wspace": 0.02, "hspace": 0.02}


def overview(fixed: torch.Tensor, moving: torch.Tensor, warped: torch.Tensor, transform: SpatialTransform) -> Picture:
    """Draw three planes of a registration, one a row, through the middle of the fixed image.

    Columns: fixed; moving after the alignment; warped; the difference to the fixed image before and after the field;
    tiles of the fixed and the warped image in turn; the Jacobian determinant of the field; the fixed grid as the field
    deforms it.

    Args:
        fixed: (1, H, W, L), the fixed image as given.
        moving: (1, H, W, L), the moving image as given.
        warped: (1, H, W, L), on the fixed image's grid.
        transform: what was found.

    Returns:
        (height, width, 3), RGB.
    """
    grid = transform.fixed_grid.canonical()
    ranges = ((fixed, fixed), (moving, warped), (warped, warped))  # moving and warped have the same intensities
    images = [torch.from_numpy(scale(image.float().numpy(), of.numpy())) for image, of in ranges]
    planes = [grid.plane(axis, n // 2) for axis, n in enumerate(grid.shape)]
    columns = [_columns(images, transform, plane) for plane in planes]
    sides = grid.spacing_mm * (np.array(grid.shape) - 1)
    line_mm = max(1, round(float(sides.max()) / GRID_LINES))
    steps = np.maximum(np.rint(line_mm / grid.spacing_mm), 1).astype(int)
    figure = Figure(figsize=(20, 8.2), dpi=100, facecolor="black")
    cells = figure.add_gridspec(4, len(columns[0]) + 1, height_ratios=(1, 1, 1, 0.04), **PLACES)
    axes = np.array([[figure.add_subplot(cells[row, c]) for c in range(cells.ncols)] for row in range(3)])
    for axis, plane in enumerate(PLANES):
        others = [i for i in range(3) if i != axis]
        extent = (0.0, float(sides[others[0]]), 0.0, float(sides[others[1]]))
        for ax, (name, (volume, style)) in zip(axes[axis], columns[axis].items()):
            ax.imshow(volume.squeeze(axis).T, origin="lower", extent=extent, **style)
            _dress(ax, name if axis == 0 else "")
        axes[axis, 0].set_ylabel(plane, color="white", fontsize=11)
        displaced = _deformed_positions(transform, planes[axis])[others].squeeze(axis + 1)
        _draw_grid(axes[axis, -1], displaced, steps[others], extent)
        _dress(axes[axis, -1], f"deformed grid, {line_mm} mm" if axis == 0 else "")
    _explain_colours(figure, cells, axes[0])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _columns(
    images: list[torch.Tensor], transform: SpatialTransform, grid: Grid
) -> dict[str, tuple[Volume, dict[str, Any]]]:
    """Bring the scaled images, fixed, moving and warped, onto one grid: the volume and drawing style of each column."""
    fixed, moving, warped = images
    identity = transform.without_field(aligned=False)
    aligned = {
        "fixed": identity.resample(fixed, grid, image_grid=transform.fixed_grid),
        "moving, aligned": transform.without_field().resample(moving, grid),
        "warped": identity.resample(warped, grid, image_grid=transform.fixed_grid),
    }
    scaled = {name: image[0].numpy() for name, image in aligned.items()}
    gray, signed = {"cmap": "gray", "vmin": 0, "vmax": 1}, {"cmap": "coolwarm", "vmin": -1, "vmax": 1}
    colours = colormaps["coolwarm"].with_extremes(bad=FOLDED)
    jacobian = {"cmap": colours, "norm": LogNorm(1 / LARGEST_JACOBIAN, LARGEST_JACOBIAN), "interpolation": "nearest"}
    return {name: (volume, gray) for name, volume in scaled.items()} | {
        "difference before": (scaled["moving, aligned"] - scaled["fixed"], signed),
        "difference after": (scaled["warped"] - scaled["fixed"], signed),
        "checkerboard": (checkerboard(scaled["fixed"], scaled["warped"]), gray),
        "Jacobian determinant": (jacobian_on(grid, transform), jacobian),
    }


def checkerboard(first: Volume, second: Volume, tiles: int = TILES) -> Volume:
    """Take cubes of two images in turn: edges run on where the images agree.

    Args:
        first: seen in the cube at index (0, 0, 0).
        second: same shape.
        tiles: cubes along the longest side.
    """
    side = -(-max(first.shape) // tiles)
    i, j, k = (np.arange(n) // side for n in first.shape)
    return np.where((i[:, None, None] + j[:, None] + k) % 2, second, first)


def jacobian_on(grid: Grid, transform: SpatialTransform) -> Volume:
    """Read the determinant of the network's field at the nearest voxel, 1 outside its grid; masked where it folds."""
    if transform.jacobian is None:
        return np.ones(grid.shape)
    identity = transform.without_field(aligned=False)
    beyond_identity = identity.resample(transform.jacobian - 1, grid, "nearest", image_grid=transform.field_grid)
    determinant = 1 + beyond_identity[0].numpy()
    return np.ma.masked_less_equal(determinant, 0)


def scale(image: npt.NDArray[Any], like: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Scale intensities between percentiles 0.5 and 99.5, its own or those of another image, to [0, 1]."""
    low, high = np.percentile(image if like is None else like, (0.5, 99.5))
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def _deformed_positions(transform: SpatialTransform, grid: Grid) -> npt.NDArray[np.float64]:
    """Where the network's field moves each voxel, in mm along the canonical axes: (3, H, W, L)."""
    field = transform.without_alignment().displacement_field(grid).numpy()
    along_axes = np.einsum("ji,jhwl->ihwl", grid.direction, field)
    positions = np.meshgrid(*[np.arange(n) * s for n, s in zip(grid.shape, grid.spacing_mm)], indexing="ij")
    return np.stack(positions) + along_axes


def _draw_grid(
    ax: Axes,
    positions: npt.NDArray[np.float64],
    steps: npt.NDArray[np.int64],
    extent: tuple[float, float, float, float],
) -> None:
    """Draw every few grid lines of one plane where the field takes them."""
    for axis in (0, 1):
        lines = np.moveaxis(positions, axis + 1, 1)[:, :: steps[axis]]
        ax.plot(lines[0].T, lines[1].T, color="#7fd0ff", linewidth=0.5)
    ax.set_xlim(extent[0], extent[1])
    ax.set_ylim(extent[2], extent[3])
    ax.set_aspect("equal")


def _explain_colours(figure: Figure, cells: GridSpec, axes: npt.NDArray[Any]) -> None:
    """Put a colour bar below the differences and one below the Jacobian determinant."""
    ratios = [1 / LARGEST_JACOBIAN, 0.5, 1, 2, LARGEST_JACOBIAN]
    for columns, values, label in (
        (slice(3, 5), [-1, 0, 1], "part of the range of grays"),
        (slice(6, 7), ratios, "volume ratio; green: folded"),
    ):
        bar_ax = figure.add_subplot(cells[-1, columns])
        bar = figure.colorbar(axes[columns][0].images[0], cax=bar_ax, orientation="horizontal", ticks=values)
        bar.set_label(label, color="white", fontsize=9)
        bar_ax.minorticks_off()
        bar_ax.set_xticklabels([f"{v:g}" for v in values])
        bar_ax.tick_params(colors="white", labelsize=9)


def _dress(ax: Axes, title: str) -> None:
    ax.set_facecolor("black")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, color="white", fontsize=11)
    for spine in ax.spines.values():
        spine.set_visible(False)
