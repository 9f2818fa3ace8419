"""What one run was given; every operator may ask for it, and none changes it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from panreg.output.manifest import Manifest
from panreg.output.publication import Publication
from panreg.settings import Settings

__all__ = ["Job"]


@dataclass(frozen=True, eq=False)
class Job:
    """The folders, the settings, the time, and where the run tells what it does.

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
