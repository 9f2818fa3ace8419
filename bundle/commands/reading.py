"""What several commands read: transforms, with or without the images they belong to."""

from collections.abc import Sequence
from pathlib import Path

from bundle.io.transforms import UNKNOWN, read_any
from bundle.spatial import Grid, Inverse, Mapping
from bundle.transforms import read_grid

__all__ = ["UNKNOWN", "grid_if_given", "read_any", "read_chain"]


def read_chain(
    transforms: str,
    inverse: Sequence[bool] | bool,
    fixed_grid: Grid = UNKNOWN,
    moving_grid: Grid = UNKNOWN,
    kind: str | None = None,
) -> list[Mapping]:
    """Read transforms that follow each other, nearest to the moving image first; some of them turned around.

    Args:
        transforms: paths with commas between them; or one path, which may hold commas.
        inverse: for each whether its inverse is meant; a single value is meant for all.
        fixed_grid: of the image at the end of the last.
        moving_grid: of the image at the start of the first.
        kind: whose transforms they are, where their files leave that open.

    Raises:
        ValueError: as many flags as transforms, or one, are not given; see ``read_any``.
    """
    text = str(transforms)
    paths = [text] if Path(text).is_file() else [path.strip() for path in text.split(",")]
    flags = [inverse] if isinstance(inverse, bool) else list(inverse)
    flags = flags * len(paths) if len(flags) == 1 else flags
    if len(flags) != len(paths):
        raise ValueError(f"--inverse takes one value or {len(paths)}, one for each transform, not {len(flags)}.")
    ends = [UNKNOWN] * len(paths)
    starts = list(ends)
    ends[-1], starts[0] = fixed_grid, moving_grid
    chain: list[Mapping] = []
    for path, flag, end, start in zip(paths, flags, ends, starts):
        chain.append(Inverse(read_any(path, start, end, kind)) if flag else read_any(path, end, start, kind))
    return chain


def grid_if_given(path: str | None, name: str) -> Grid:
    """Read where the voxels of an image are, if there is one."""
    return UNKNOWN if path is None else read_grid(Path(str(path)), name)[0]
