"""What one run is given: the same for all operators."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from panreg.output.manifest import Manifest
from panreg.output.publication import Publication
from panreg.settings import Settings

__all__ = ["Job"]


@dataclass(frozen=True, eq=False)
class Job:
    """Folders, settings and time of a run, its manifest and its way to the output.

    Args:
        input: folder to read.
        models: folder of the bundle.
        settings: of the run.
        publication: the way of the objects into the output.
        manifest: of the run.
        clock: when it began.
    """

    input: Path
    models: Path
    settings: Settings
    publication: Publication
    manifest: Manifest
    clock: datetime
