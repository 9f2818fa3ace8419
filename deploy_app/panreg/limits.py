"""How much the application reads, at most."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What the scan refuses before it allocates anything (E_LIMIT)."""

    files: int = 100_000
    depth: int = 16
    rows: int = 4096
    columns: int = 4096
    frames: int = 4096
    voxels: int = 512 * 512 * 1024
