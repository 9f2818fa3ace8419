"""Files of points: landmarks in CSV and Slicer's markups, and the vertices of surfaces.

A file keeps its form and what it holds but for its positions, the normals of a surface (computed anew) and a note on
how it counts; properties of a ``.ply`` that VTK does not know are lost. Within the program points are LPS, mm.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bundle.io.files import check_file
from bundle.io.points.landmarks import CsvPoints, FcsvPoints, MarkupsPoints
from bundle.io.points.matching import match
from bundle.io.points.pointfile import SPACES, PointFile, Points, Reached, UnsaidSpaceError
from bundle.io.points.surfaces import GiftiSurface, VtkSurface

__all__ = ["PointFile", "Points", "Reached", "UnsaidSpaceError", "match", "read_points"]

READERS: dict[str, Callable[[Path, str | None], PointFile]] = {
    ".mrk.json": MarkupsPoints,
    ".fcsv": FcsvPoints,
    ".csv": CsvPoints,
    ".gii": GiftiSurface,
    ".vtk": VtkSurface,
    ".vtp": VtkSurface,
    ".stl": VtkSurface,
    ".ply": VtkSurface,
}


def read_points(path: str | os.PathLike[str], space: str | None = None) -> PointFile:
    """Read points; the ending of the path names the format.

    Args:
        path: ends in ``.csv``, ``.mrk.json``, ``.fcsv``, ``.gii``, ``.vtk``, ``.vtp``, ``.stl`` or ``.ply``.
        space: ``"lps"`` or ``"ras"``, which a CSV file leaves open; None for a file that says it itself.

    Raises:
        FileNotFoundError: no such file.
        UnsaidSpaceError: a space that the file leaves open.
        ValueError: another ending, a file of another form, a space that the file contradicts, or positions that are no
            finite numbers.
    """
    if space is not None and space not in SPACES:
        raise ValueError(f"The points' space is lps or ras, not '{space}'.")
    file = Path(path)
    ending = next((ending for ending in READERS if file.name.lower().endswith(ending)), None)
    if ending is None:
        raise ValueError(f"The points ({path}) must end in {', '.join(READERS)}.")
    check_file(path, "points", "do")
    try:
        read = READERS[ending](file, space)
        positions = read.positions
        if not len(positions):
            raise ValueError(f"The points ({path}) hold no points.")
        if not np.isfinite(positions).all():
            row = int(np.argmin(np.isfinite(positions).all(1)))
            raise ValueError(f"The points ({path}) hold NaN or an infinite number at vertex {row}: repair the surface.")
        return read
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"The points ({path}) cannot be read: {error}.") from error
