"""How much the application reads, at most."""

from typing import Annotated

from panreg.values import Section, whole

__all__ = ["Limits"]

Most = Annotated[int, whole()]


class Limits(Section):
    """What is refused before anything is allocated for it (E_LIMIT)."""

    files: Most = 100_000
    depth: Most = 16
    rows: Most = 4096
    columns: Most = 4096
    frames: Most = 4096
    voxels: Most = 512 * 512 * 1024
