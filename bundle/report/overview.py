"""Pictures of a registration."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from bundle.intensity import percentile_range
from bundle.report.colours import colour_map
from bundle.spatial import Grid, SpatialTransform
from PIL import Image, ImageDraw, ImageFont

__all__ = ["overview"]

Picture = npt.NDArray[np.uint8]
Volume = npt.NDArray[np.float64]
PLANES = {  # by the axis that is left out: what is at the left, right, top and bottom
    "sagittal": ("A", "P", "S", "I"),
    "coronal": ("R", "L", "S", "I"),
    "axial": ("R", "L", "A", "P"),
}
GRID_LINES = 24
TILES = 8
LARGEST_JACOBIAN = 4.0  # colours reach from a quarter to four times the volume
FOLDED = "#00ff40"
SIZE = (2000, 820)  # width and height of the picture, pixels
LEFT, TOP, CELL, STEP = 28, 26, 244, 246  # where the first panel is, its side, and how far to the next
LINES = "#7fd0ff"
FINER = 4  # how much finer lines are drawn: what is averaged has no steps


class _Column(NamedTuple):
    """What a column shows of a plane.

    Args:
        volume: (H, W, L), one of the sides 1; masked where it has no value.
        low: value of the first colour.
        high: value of the last colour.
        colours: ``"gray"`` or a name of ``colour_map``.
        smooth: whether to interpolate between voxels.
    """

    volume: Volume
    low: float = 0.0
    high: float = 1.0
    colours: str = "gray"
    smooth: bool = True


def overview(fixed: torch.Tensor, moving: torch.Tensor, warped: torch.Tensor, transform: SpatialTransform) -> Picture:
    """Draw three planes of a registration, one a row, through the middle of the fixed image.

    Columns: fixed; moving after the alignment; warped; the difference to the fixed image before and after the field;
    tiles of the fixed and the warped image in turn; the Jacobian determinant of the field; the fixed grid as the field
    deforms it. The patient's left is on the right, and the nose of the sagittal plane on the left, as on the page;
    letters on the fixed image say so.

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
    sides = grid.spacing_mm * np.maximum(np.array(grid.shape) - 1, 1)
    line_mm = max(1, round(float(sides.max()) / GRID_LINES))
    steps = np.maximum(np.rint(line_mm / grid.spacing_mm), 1).astype(int)
    picture = Image.new("RGB", SIZE)
    titles: list[str] = []
    unaligned = transform.without_alignment()
    for axis, name in enumerate(PLANES):
        plane, others = grid.plane(axis, grid.shape[axis] // 2), [i for i in range(3) if i != axis]
        columns = _columns(images, transform, plane)
        titles = [*columns, f"deformed grid, {line_mm} mm"]
        pixels = CELL / float(sides[others].max())  # a mm
        panels = [_panel(column, axis, sides[others] * pixels) for column in columns.values()]
        displaced = _deformed_positions(unaligned, plane)[others].squeeze(axis + 1)
        panels.append(_grid_lines(displaced * pixels, steps[others], sides[others] * pixels))
        for number, panel in enumerate(panels):
            left, top = LEFT + number * STEP, TOP + axis * STEP
            picture.paste(panel, (left + (CELL - panel.width) // 2, top + (CELL - panel.height) // 2))
        _name_sides(picture, PLANES[name], (LEFT, TOP + axis * STEP))
        _write(picture, name, (LEFT // 2, TOP + axis * STEP + CELL // 2), upright=True)
    for number, title in enumerate(titles):
        _write(picture, title, (LEFT + number * STEP + CELL // 2, TOP // 2))
    _explain_colours(picture)
    return np.asarray(picture).copy()


def _columns(images: list[torch.Tensor], transform: SpatialTransform, grid: Grid) -> dict[str, _Column]:
    """Bring the scaled images, fixed, moving and warped, onto the grid of a plane: the columns by their titles."""
    fixed, moving, warped = images
    identity = transform.without_field(aligned=False)
    aligned = {
        "fixed": identity.resample(fixed, grid, image_grid=transform.fixed_grid),
        "moving, aligned": transform.without_field().resample(moving, grid),
        "warped": identity.resample(warped, grid, image_grid=transform.fixed_grid),
    }
    scaled = {name: image[0].numpy() for name, image in aligned.items()}
    before, after = (scaled[name] - scaled["fixed"] for name in ("moving, aligned", "warped"))
    largest = float(np.log(LARGEST_JACOBIAN))
    return {name: _Column(volume) for name, volume in scaled.items()} | {
        "difference before": _Column(before, -1, 1, "coolwarm"),
        "difference after": _Column(after, -1, 1, "coolwarm"),
        "checkerboard": _Column(checkerboard(scaled["fixed"], scaled["warped"])),
        "Jacobian determinant": _Column(
            np.ma.log(masked_jacobian(grid, transform)), -largest, largest, "coolwarm", False
        ),
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


def masked_jacobian(grid: Grid, transform: SpatialTransform) -> Volume:
    """Read the determinant of the network's field at the nearest voxel, 1 outside its grid; masked where it folds."""
    if transform.jacobian is None:
        return np.ones(grid.shape)
    identity = transform.without_field(aligned=False)
    beyond_identity = identity.resample(transform.jacobian - 1, grid, "nearest", image_grid=transform.field_grid)
    determinant = 1 + beyond_identity[0].numpy()
    return np.ma.masked_less_equal(determinant, 0)


def scale(image: npt.NDArray[Any], like: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Scale intensities between percentiles 0.5 and 99.5, its own or those of another image, to [0, 1]."""
    low, high = percentile_range(image if like is None else like)
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def _panel(column: _Column, axis: int, size: npt.NDArray[np.float64]) -> Image.Image:
    """Draw a plane, the first axis to the left and the second up, as large as so many pixels."""
    width, height = (max(1, round(n)) for n in size.tolist())
    plane = np.flip(column.volume.squeeze(axis).T)  # rows run downwards, and columns to the right
    values = (np.ma.getdata(plane) - column.low) / (column.high - column.low)
    enlarged = width >= 3 * plane.shape[1]  # the voxels themselves are seen then
    how = Image.Resampling.BILINEAR if column.smooth and not enlarged else Image.Resampling.NEAREST
    stretched = Image.fromarray(values.astype(np.float32)).resize((width, height), how)
    levels = np.clip(np.asarray(stretched) * 255 + 0.5, 0, 255).astype(np.uint8)
    panel = Image.fromarray(colour_map(column.colours)[levels])
    if np.ma.is_masked(plane):
        panel.paste(FOLDED, (0, 0), Image.fromarray(np.uint8(np.ma.getmaskarray(plane) * 255)).resize(panel.size, how))
    return panel


def _deformed_positions(transform: SpatialTransform, grid: Grid) -> npt.NDArray[np.float64]:
    """Where a transform moves each voxel, in mm along the canonical axes: (3, H, W, L)."""
    field = transform.displacement_field(grid).numpy()
    along_axes = np.einsum("ji,jhwl->ihwl", grid.direction, field)
    positions = np.meshgrid(*[np.arange(n) * s for n, s in zip(grid.shape, grid.spacing_mm)], indexing="ij")
    return np.stack(positions) + along_axes


def _grid_lines(
    positions: npt.NDArray[np.float64], steps: npt.NDArray[np.int64], size: npt.NDArray[np.float64]
) -> Image.Image:
    """Draw every few grid lines of one plane where the field takes them.

    Args:
        positions: (2, H, W), pixels, to the left and up.
        steps: from line to line along each axis.
        size: of the panel, pixels.
    """
    width, height = (max(1, round(n)) for n in size.tolist())
    mask = Image.new("L", (width * FINER, height * FINER))
    draw = ImageDraw.Draw(mask)
    right, down = (width - positions[0]) * FINER, (height - positions[1]) * FINER
    for axis in (0, 1):
        for x, y in zip(*(np.moveaxis(p, axis, 0)[:: steps[axis]] for p in (right, down))):
            draw.line(np.stack([x, y], 1).ravel().tolist(), fill=255, width=FINER * 3 // 4)
    panel = Image.new("RGB", (width, height))
    panel.paste(LINES, (0, 0), mask.reduce(FINER))
    return panel


def _name_sides(picture: Image.Image, letters: Sequence[str], corner: tuple[int, int]) -> None:
    """Write at the left, right, top and bottom of a panel, whose upper left corner is given, what is there."""
    (left, top), middle, edge = corner, CELL // 2, 9
    places = ((edge, middle), (CELL - edge, middle), (middle, edge), (middle, CELL - edge))
    for letter, (x, y) in zip(letters, places):
        _write(picture, letter, (left + x, top + y), halo=2)


def _explain_colours(picture: Image.Image) -> None:
    """Put a colour bar below the differences and one below the Jacobian determinant."""
    ratios = [1 / LARGEST_JACOBIAN, 0.5, 1, 2, LARGEST_JACOBIAN]
    differences = {(v + 1) / 2: f"{v:g}" for v in (-1, 0, 1)}
    volumes = {(np.log(v) / np.log(LARGEST_JACOBIAN) + 1) / 2: f"{v:g}" for v in ratios}
    _bar(picture, (3, 5), differences, "part of the range of grays")
    _bar(picture, (6, 7), volumes, "volume ratio; green: folded")


def _bar(picture: Image.Image, columns: tuple[int, int], ticks: dict[Any, str], label: str) -> None:
    """Draw a colour bar below some columns, with words at parts of its length."""
    left, right = LEFT + columns[0] * STEP, LEFT + columns[1] * STEP - (STEP - CELL)
    top = TOP + len(PLANES) * STEP + 4
    levels = np.linspace(0, 255, right - left).round().astype(np.uint8)
    picture.paste(Image.fromarray(colour_map("coolwarm")[np.tile(levels, (9, 1))]), (left, top))
    for part, words in ticks.items():
        inside = min(max(left + float(part) * (right - left), left + 10), right - 10)
        _write(picture, words, (round(inside), top + 19), 12)
    _write(picture, label, ((left + right) // 2, top + 36), 12)


def _write(
    picture: Image.Image, words: str, middle: Sequence[int], points: int = 15, upright: bool = False, halo: int = 0
) -> None:
    """Write in white about a place, with so many pixels of black around it; upright runs from below."""
    font = ImageFont.load_default(points)
    for colour, width in [("black", halo)] * bool(halo) + [("white", 0)]:
        box = font.getbbox(words, stroke_width=width)
        mask = Image.new("L", (int(box[2] - box[0]) + 2, int(box[3] - box[1]) + 2))
        ImageDraw.Draw(mask).text((1 - box[0], 1 - box[1]), words, fill=255, font=font, stroke_width=width)
        mask = mask.transpose(Image.Transpose.ROTATE_90) if upright else mask
        picture.paste(colour, (middle[0] - mask.width // 2, middle[1] - mask.height // 2), mask)
