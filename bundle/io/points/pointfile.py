"""What all files of points have in common."""

import os
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bundle.spatial import along_lps

__all__ = ["BEYOND", "FLAG", "SPACES", "PointFile", "Points", "Reached", "UnsaidSpaceError"]

Points = npt.NDArray[np.float64]
Reached = npt.NDArray[np.bool_]

SPACES = ("lps", "ras")
FLAG = "in_field"
BEYOND = "beyond the field: not deformed"


class UnsaidSpaceError(ValueError):
    """Neither a file of points says how they count, nor does the user."""


class PointFile(ABC):
    """Points in a file, and all else that it holds.

    Args:
        path: of the file.
        said: the space that it says it is in, ``"lps"`` or ``"ras"``; None where it leaves that open.
        space: the space that the user says it is in.

    Raises:
        UnsaidSpaceError: neither says it.
        ValueError: they differ.
    """

    def __init__(self, path: Path, said: str | None, space: str | None) -> None:
        if said is None and space is None:
            raise UnsaidSpaceError(f"The points ({path}) do not say how they count: give --space lps or --space ras.")
        if said and space and said != space:
            raise ValueError(f"The points ({path}) say that they are {said.upper()}, not {space.upper()} as given.")
        self.path, self.space = path, said or space or ""
        name = path.name.lower()
        self.ending = ".mrk.json" if name.endswith(".mrk.json") else path.suffix.lower()

    @property
    @abstractmethod
    def positions(self) -> Points:
        """The numbers as they stand, (n, 3), of the points that have a position."""

    @abstractmethod
    def write(self, positions: Points, reached: Reached, path: Path) -> None:
        """Write the same file with other numbers, (n, 3), flagging the points that no field reached."""

    @property
    def labels(self) -> list[str]:
        """What the file calls each of its positions; "" without a word."""
        return [""] * len(self.positions)

    @property
    def ranks(self) -> list[int]:
        """Which point of the file each position is of, from 0: points without a position are counted, too."""
        return list(range(len(self.positions)))

    @property
    def count(self) -> int:
        """How many points there are, those without a position included."""
        return len(self.positions)

    @property
    def points_mm(self) -> Points:
        """The points, (n, 3), mm, LPS."""
        return _turned(self.positions, self.space)

    def check_output(self, path: str | os.PathLike[str]) -> None:
        """Refuse a path to write to that has another ending than the file.

        Raises:
            ValueError: another ending.
        """
        if not Path(path).name.lower().endswith(self.ending):
            raise ValueError(f"The output ({path}) must end in {self.ending}, as the points do.")

    def write_points(self, points_mm: Points, reached: Reached, path: str | os.PathLike[str]) -> None:
        """Write the file with its points elsewhere.

        Args:
            points_mm: (n, 3), mm, LPS, in the order of the file.
            reached: (n,), False for points to be flagged.
            path: of a file with the same ending.
        """
        self.write(_turned(points_mm, self.space), reached, Path(path))


def _turned(points: Points, space: str) -> Points:
    """RAS ↔ LPS, or LPS as it is."""
    return along_lps(points) if space == "ras" else points
