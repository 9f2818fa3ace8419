"""What several commands read: transforms, with or without the images they belong to."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from bundle import spatial
from bundle.io.files import check_outputs
from bundle.io.transforms import UNKNOWN, files_of, read_any
from bundle.spatial import Grid, Inverse, SpatialTransform, unreached_percent
from bundle.transforms import read_grid
from monai.data import MetaTensor

__all__ = [
    "UNKNOWN",
    "Files",
    "check_places",
    "grid_if_given",
    "note_unreached",
    "notes_of",
    "print_notes",
    "read_chain",
    "read_one",
]


Files: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""One file or several: text with commas between them, or from Python a path or a list of paths, as they stand."""


def check_places(
    outputs: Iterable[str | os.PathLike[str]], transforms: Files, others: Mapping[str, str | None]
) -> None:
    """Refuse to write over what is read, before any work; see ``bundle.io.files.check_outputs``.

    Args:
        outputs: paths of files to write.
        transforms: path of a transform, or of several; what elastix's files name is read, too.
        others: paths of other files that are read, by what messages call them.
    """
    if isinstance(transforms, str):
        paths = [transforms, *(path for way in _ways(transforms.split(",")) for path in way)]
    else:
        paths = _paths(transforms)
    files = dict.fromkeys(file for path in paths for file in files_of(path))
    check_outputs(outputs, [*(("transform", file) for file in files), *others.items()])


def read_one(
    transform: Files, fixed_grid: Grid = UNKNOWN, moving_grid: Grid = UNKNOWN, kind: str | None = None
) -> SpatialTransform:
    """Read one transform, where several are not taken; see ``bundle.io.transforms.read_any``.

    Raises:
        ValueError: several paths with commas between them, or a list.
    """
    if not isinstance(transform, str | os.PathLike):
        given = ", ".join(str(path) for path in transform)
        raise ValueError(f"One transform is taken here, not a list ({given}): make one of several by compose.")
    if isinstance(transform, str) and not Path(transform).exists() and _ways(transform.split(",")):
        raise ValueError(f"One transform is taken here, not several ({transform}): make one of them by compose.")
    return read_any(transform, fixed_grid, moving_grid, kind)


def read_chain(
    transforms: Files,
    inverse: Sequence[bool] | bool,
    fixed_grid: Grid = UNKNOWN,
    moving_grid: Grid = UNKNOWN,
    kind: str | None = None,
) -> list[spatial.Mapping]:
    """Read transforms that follow each other, nearest to the moving image first; some of them turned around.

    Args:
        transforms: paths with commas between them, which may be part of their names, too; or a list of paths.
        inverse: for each whether its inverse is meant; a single value is meant for all.
        fixed_grid: of the image at the end of the last, as its file has it.
        moving_grid: of the image at the start of the first.
        kind: whose transforms they are, where their files leave that open.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: commas that may be of a name or between two; an empty list; as many flags as transforms, or one, are
            not given; see ``read_any``.
    """
    paths = _paths(transforms)
    flags = [inverse] if isinstance(inverse, bool) else list(inverse)
    flags = flags * len(paths) if len(flags) == 1 else flags
    if len(flags) != len(paths):
        raise ValueError(f"--inverse takes one value or {len(paths)}, one for each transform, not {len(flags)}.")
    ends = [UNKNOWN] * len(paths)
    starts = list(ends)
    ends[-1], starts[0] = fixed_grid, moving_grid
    chain: list[spatial.Mapping] = []
    for path, flag, end, start in zip(paths, flags, ends, starts):
        chain.append(Inverse(read_any(path, start, end, kind)) if flag else read_any(path, end, start, kind))
    return chain


def _paths(given: Files) -> list[str]:
    """Take apart a list of files in text, whose commas may be part of their names; other paths are as they stand."""
    if isinstance(given, os.PathLike):
        return [str(given)]
    if isinstance(given, str):
        return _taken_apart(given)
    if not given:
        raise ValueError("The list of transforms is empty: give at least one.")
    return [str(path) for path in given]


def _taken_apart(text: str) -> list[str]:
    parts = text.split(",")
    ways = _ways(parts)
    if len(ways) > 1:
        first, second = (" and ".join(way) for way in ways[:2])
        raise ValueError(
            f"The transforms ({text}) may be {first}, or {second}, as there are such files: give those whose "
            "names have commas other names."
        )
    if ways or len(parts) == 1:
        return ways[0] if ways else parts
    missing = next(part.strip() for part in parts if not Path(part.strip()).is_file())
    raise FileNotFoundError(
        f"Of the transforms given ({text}), with commas between them, '{missing}' is no file: check the paths."
    )


def _ways(parts: list[str]) -> list[list[str]]:
    """List the ways in which the parts between commas, one or several in a row, name files."""
    if not parts:
        return [[]]
    heads = ((n, ",".join(parts[:n]).strip()) for n in range(1, len(parts) + 1))
    return [[head, *rest] for n, head in heads if Path(head).is_file() for rest in _ways(parts[n:])]


def grid_if_given(path: str | None, name: str) -> tuple[Grid, list[str]]:
    """Read where the voxels of an image are, as its file has them, if there is one, and the notes on its header."""
    return (UNKNOWN, []) if path is None else read_grid(Path(str(path)), name, as_stored=True)


def notes_of(image: MetaTensor, path: str, name: str) -> list[str]:
    """List the notes on the header of an image that was read from a file, as ``read_grid`` makes them."""
    return [f"{name} ({path}): {note}" for note in str(image.meta.get("notes", "")).split("\n") if note]


def note_unreached(chain: Sequence[spatial.Mapping], grid: Grid) -> list[str]:
    """Note how much of an image an inverse among some transforms has no points for; see ``unreached_percent``."""
    percent = unreached_percent(chain, grid)
    if percent == 0:
        return []
    return [
        f"no point of the field comes to about {percent:.2g} % of the voxels, which the alignment takes into it: there "
        "the inverse goes on with the field's outermost values"
    ]


def print_notes(notes: Iterable[str]) -> None:
    """Tell the user what there is to know about a result, one sentence a line."""
    for note in notes:
        print(f"note: {note}")
