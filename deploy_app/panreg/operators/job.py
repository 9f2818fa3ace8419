"""A run's state, handed from operator to operator; a failure stops the work, not the graph."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from panreg.failures import Code, Failure
from panreg.ingest.decode import Volume
from panreg.ingest.scan import Scan
from panreg.ingest.stack import Stack
from panreg.objects.provenance import Provenance
from panreg.output.manifest import Manifest
from panreg.output.publication import Publication
from panreg.pairing.choice import Pair
from panreg.registration.result import Registration
from panreg.settings import Settings

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
        except Exception as error:
            logging.getLogger("panreg").error("%s failed: %s", name, " from ".join(_places(error)))
            self.failure = Failure(Code.E_INTERNAL, f"Something unforeseen went wrong ({type(error).__name__}).")
        self.timings[name] = round(time.perf_counter() - start, 3)


def _places(error: BaseException | None) -> Iterator[str]:
    """Tell the kind and place of an exception and its causes; its text may hold anything, the patient's name too."""
    while error is not None:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        yield f"{type(error).__name__} at " + "".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in last)
        error = error.__cause__ or error.__context__
