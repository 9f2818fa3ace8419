"""What the application's operators have in common: a failure stops the work, not the graph."""

import logging
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from holoscan.core import Operator, OperatorSpec
from panreg.failures import Failure, as_failure, causes
from panreg.operators.job import Job

__all__ = ["StepOperator"]

Taken = TypeVar("Taken")
Made = TypeVar("Made")


class StepOperator(Operator, Generic[Taken, Made]):
    """One step of the application: takes what the step before made, and hands on what it makes or why it makes nothing.

    Subclasses define ``step``, which raises a ``Failure`` where the run must not go on. An exception in an operator
    would end the application with exit code 1, whatever went wrong: a failure is handed on in the place of what was to
    be made, and the steps after it pass it on.

    Args:
        fragment: the application.
        args: conditions. The first operator is given a ``CountCondition`` of one.
        job: of the run.
        first: takes nothing; ``step`` is given None.
        last: hands nothing on: ``outcome`` tells how the run ended.
        kwargs: of ``Operator``; ``name`` is also that of the step's seconds in the manifest.
    """

    def __init__(
        self, fragment: Any, *args: Any, job: Job, first: bool = False, last: bool = False, **kwargs: Any
    ) -> None:
        self.job, self.first, self.last = job, first, last  # before the base class, which calls setup
        self.outcome: Made | Failure | None = None
        super().__init__(fragment, *args, **kwargs)

    def step(self, taken: Taken) -> Made:
        """Do the step's work.

        Raises:
            Failure: the run must not go on.
        """
        raise NotImplementedError

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports: none in for the first, none out for the last."""
        if not self.first:
            spec.input("taken")
        if not self.last:
            spec.output("made")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Take, do the step unless one before it failed, hand on."""
        taken = None if self.first else op_input.receive("taken")
        self.outcome = taken if isinstance(taken, Failure) else self._attempt(taken)
        if not self.last:
            op_output.emit(self.outcome, "made")

    def _attempt(self, taken: Any) -> Made | Failure:
        """Do the step; keep its seconds."""
        start = time.perf_counter()
        try:
            return self.step(taken)
        except Failure as failure:
            return failure
        except Exception as error:
            logging.getLogger("panreg").error("%s failed: %s", self.name, " from ".join(_places(error)))
            return as_failure(error)
        finally:
            self.job.manifest.time(self.name, time.perf_counter() - start)


def _places(error: BaseException | None) -> Iterator[str]:
    """Tell the kind and place of an exception and its causes; its text may hold anything, the patient's name too."""
    for cause in causes(error):
        last = traceback.extract_tb(cause.__traceback__)[-1:]
        yield f"{type(cause).__name__} at " + "".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in last)
