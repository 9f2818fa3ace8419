"""Landmarks: CSV, and Slicer's markups (``.mrk.json``, ``.fcsv``)."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundle.io.points.pointfile import BEYOND, FLAG, SPACES, PointFile, Points, Reached

__all__ = ["CsvPoints", "FcsvPoints", "MarkupsPoints"]

AXES = ("x", "y", "z")
LABELS = ("label", "name")  # the column of a table that says what a point is called
FCSV_SYSTEMS = {"0": "ras", "ras": "ras", "1": "lps", "lps": "lps"}
MADE_OF_POINTS = ("Fiducial", "Line", "Angle", "Curve", "ClosedCurve")  # and of nothing else


class CsvPoints(PointFile):
    """A table with a header that names x, y and z, as ANTs and ITK have it; all other columns are kept."""

    def __init__(self, path: Path, space: str | None) -> None:
        super().__init__(path, None, space)
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        self.separator = max(",;\t", key=first.count)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=self.separator) if any(c.strip() for c in row)]
        self.header = [cell.strip() for cell in rows[0]] if rows else []
        names = [cell.lower() for cell in self.header]
        if any(names.count(axis) != 1 for axis in AXES):
            raise ValueError(
                f"The points ({path}) need columns named x, y and z, one each; their first row is '{first}'."
            )
        self.columns = [names.index(axis) for axis in AXES]
        self.rows = rows[1:]
        short = next((n for n, row in enumerate(self.rows, 2) if len(row) <= max(self.columns)), None)
        if short is not None:
            raise ValueError(f"The points ({path}) have too few columns in row {short}.")

    @property
    def labels(self) -> list[str]:
        """The column ``label``, or ``name``."""
        names = [cell.lower() for cell in self.header]
        column = next((names.index(name) for name in LABELS if name in names), len(names))
        return [row[column].strip() if column < len(row) else "" for row in self.rows]

    @property
    def positions(self) -> Points:
        """The columns x, y, z."""
        cells = [[row[k] for k in self.columns] for row in self.rows]
        return np.array([_position(c, self.path, n) for n, c in enumerate(cells, 2)]).reshape(-1, 3)

    def write(self, positions: Points, reached: Reached, path: Path) -> None:
        """Write the table, with a column that is 0 for the points that no field reached, in an earlier call or now."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            flag = self.header.index(FLAG) if FLAG in self.header else len(self.header)  # of an earlier call
            writer.writerow([*self.header[:flag], FLAG, *self.header[flag + 1 :]])
            for row, position, inside in zip(self.rows, positions, reached):
                cells = list(row) + [""] * (len(self.header) - len(row))
                for column, number in zip(self.columns, position):
                    cells[column] = f"{number:.6f}"
                before = cells[flag : flag + 1] if flag < len(self.header) else []
                left = any(cell.strip() == "0" for cell in before)  # by an earlier call: it stays so
                writer.writerow([*cells[:flag], int(inside and not left), *cells[flag + len(before) :]])


class FcsvPoints(PointFile):
    """Slicer's fiducial list of before 5.0: RAS unless it says otherwise."""

    def __init__(self, path: Path, space: str | None) -> None:
        self.lines = path.read_text(encoding="utf-8-sig").splitlines()
        found = [re.match(r"#\s*CoordinateSystem\s*=\s*(\w+)", line) for line in self.lines]
        system = next((match[1].lower() for match in found if match), "0")
        if system not in FCSV_SYSTEMS:
            raise ValueError(f"The points ({path}) are in the coordinate system {system} of Slicer: save them as LPS.")
        super().__init__(path, FCSV_SYSTEMS[system], space)
        self.places = [n for n, line in enumerate(self.lines) if line.strip() and not line.startswith("#")]
        columns = next((line.split("=", 1)[1] for line in self.lines if re.match(r"#\s*columns\s*=", line)), "id,x,y,z")
        self.names = [name.strip() for name in columns.split(",")]
        if any(axis not in self.names for axis in AXES):
            raise ValueError(f"The points ({path}) are no fiducial list of Slicer: no columns x, y, z are named.")
        self.rows = [next(csv.reader([self.lines[n]])) for n in self.places]

    @property
    def labels(self) -> list[str]:
        """The column ``label``."""
        column = self.names.index("label") if "label" in self.names else len(self.names)
        return [row[column].strip() if column < len(row) else "" for row in self.rows]

    @property
    def positions(self) -> Points:
        """The columns x, y, z."""
        places = [self.names.index(axis) for axis in AXES]
        cells = [[row[k] for k in places if k < len(row)] for row in self.rows]
        return np.array([_position(c, self.path, n + 1) for n, c in zip(self.places, cells)]).reshape(-1, 3)

    def write(self, positions: Points, reached: Reached, path: Path) -> None:
        """Write the list; the description of a point that no field reached says so."""
        lines = list(self.lines)
        for place, row, position, inside in zip(self.places, self.rows, positions, reached):
            cells = list(row)
            for axis, number in zip(AXES, position):
                cells[self.names.index(axis)] = f"{number:.6f}"
            if not inside and "desc" in self.names and self.names.index("desc") < len(cells):
                column = self.names.index("desc")
                cells[column] = _with_flag(cells[column])
            text = io.StringIO()
            csv.writer(text, lineterminator="").writerow(cells)
            lines[place] = text.getvalue()
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class MarkupsPoints(PointFile):
    """Slicer's markups: the control points of every list, line, angle or curve in the file."""

    def __init__(self, path: Path, space: str | None) -> None:
        self.content = json.loads(path.read_text(encoding="utf-8-sig"))
        markups = self.content.get("markups") if isinstance(self.content, dict) else None
        if not isinstance(markups, list) or not markups:
            raise ValueError(f"The points ({path}) are no markups of Slicer: 'markups' is missing.")
        self.controls = [point for markup in markups for point in _controls(markup, path)]
        systems = {str(markup.get("coordinateSystem", "")).lower() for markup in markups}
        kinds = {str(markup.get("type", "Fiducial")) for markup in markups} - set(MADE_OF_POINTS)
        if kinds:
            raise ValueError(
                f"The points ({path}) hold a {kinds.pop()}, whose size and axes do not follow from its points: give "
                f"markups of the types {', '.join(MADE_OF_POINTS)}."
            )
        units = {_unit(markup.get("coordinateUnits", "mm")) for markup in markups}
        if len(systems) > 1 or not systems <= {"", *SPACES}:
            raise ValueError(f"The points ({path}) are in the coordinate systems {sorted(systems)}: save them as LPS.")
        if units != {"mm"}:
            raise ValueError(f"The points ({path}) are in {' and '.join(sorted(units))}, not in mm.")
        super().__init__(path, systems.pop() or None, space)
        self.placed = [point for point in self.controls if _is_placed(point)]

    @property
    def labels(self) -> list[str]:
        """Those of the control points that have a position."""
        return [str(point.get("label") or "").strip() for point in self.placed]

    @property
    def ranks(self) -> list[int]:
        """Among all control points."""
        return [rank for rank, point in enumerate(self.controls) if _is_placed(point)]

    @property
    def count(self) -> int:
        """Of all control points."""
        return len(self.controls)

    @property
    def positions(self) -> Points:
        """Of the control points that have a position."""
        return np.array([_position(point["position"], self.path, n) for n, point in enumerate(self.placed, 1)]).reshape(
            -1, 3
        )

    def write(self, positions: Points, reached: Reached, path: Path) -> None:
        """Write the markups; what Slicer measured of the old ones is left out, it measures anew when it opens them."""
        content = json.loads(json.dumps(self.content))
        for markup in content["markups"]:
            markup.pop("measurements", None)
        placed = [p for markup in content["markups"] for p in _controls(markup, path) if _is_placed(p)]
        for point, position, inside in zip(placed, positions, reached):
            point["position"] = [round(float(number), 6) for number in position]
            if not inside:
                point["description"] = _with_flag(str(point.get("description") or ""))
        path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _controls(markup: Any, path: Path) -> list[dict[str, Any]]:
    """The control points of one list, line, angle or curve."""
    points = (markup.get("controlPoints") or []) if isinstance(markup, dict) else None
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ValueError(f"The points ({path}) are no markups of Slicer: a list of 'controlPoints' is none.")
    return points


def _with_flag(description: str) -> str:
    """Say in a description that no field reached the point, once."""
    return description if BEYOND in description else "; ".join(filter(None, [description, BEYOND]))


def _unit(unit: Any) -> str:
    """The unit of a coded entry, ["mm", "UCUM", "millimeter"], or of a plain one."""
    return str(unit[0] if isinstance(unit, list) and unit else unit)


def _is_placed(point: dict[str, Any]) -> bool:
    return point.get("positionStatus", "defined") == "defined" and point.get("position") is not None


def _position(cells: Sequence[Any], path: Path, row: int) -> list[float]:
    try:
        if isinstance(cells, str):  # whose digits are no numbers
            raise TypeError
        numbers = [float(cell) for cell in cells]
        if len(numbers) != len(AXES):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"The points ({path}) hold no numbers in row {row}: {cells}.") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"The points ({path}) hold NaN or an infinite number in row {row}.")
    return numbers
