"""A run's state, handed from operator to operator; a failure stops the work, not the graph."""

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from decode import Volume
from manifest import Manifest
from pairing import Pair
from publication import Publication
from scan import Scan

from bundle_model import BundleModel
from failures import Code, Failure
from provenance import Provenance
from registration import Registration
from settings import Settings
from stack import Stack

__all__ = ["Job"]


@dataclass(eq=False)
class Job:
    """What one run knows; every operator reads what it needs and adds its part.

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
    scan: Scan | None = None
    stacks: tuple[Stack, ...] = ()
    pair: Pair | None = None
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    model: BundleModel | None = None
    registration: Registration | None = None
    provenance: Provenance | None = None
    timings: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None

    def attempt(self, name: str, step: Callable[["Job"], None]) -> None:
        """Run a step unless one before it failed; keep its seconds, and its failure.

        An exception in an operator would end the application with exit code 1, whatever went wrong.
        """
        if self.failure is not None:
            return
        start = time.perf_counter()
        try:
            step(self)
        except Failure as failure:
            self.failure = failure
        except Exception as error:  # the text of an exception may hold anything, the patient's name too
            places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
            logging.getLogger("panreg").error("%s in %s, at %s", type(error).__name__, name, " > ".join(places))
            self.failure = Failure(Code.E_INTERNAL, f"Something unforeseen went wrong ({type(error).__name__}).")
        self.timings[name] = round(time.perf_counter() - start, 3)
