"""What the application's operators have in common."""

from collections.abc import Callable
from typing import Any

from holoscan.core import Operator, OperatorSpec
from panreg.operators.job import Job

__all__ = ["StepOperator"]


class StepOperator(Operator):
    """One step of the application: takes the job, does its part, hands the job on.

    Sub-classes say ``step``, which raises a ``Failure`` where the run must not go on. The first operator of the graph
    is given the job, and a ``CountCondition`` of one.
    """

    step: Callable[[Job], None]

    def __init__(self, fragment: Any, *args: Any, job: Job | None = None, last: bool = False, **kwargs: Any) -> None:
        self.job, self.last = job, last  # before the base class, which calls setup
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports: none in for the first, none out for the last."""
        if self.job is None:
            spec.input("job")
        if not self.last:
            spec.output("job")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Take the job, do the step, hand it on."""
        job: Job = self.job or op_input.receive("job")
        job.attempt(self.name, self.step)
        if not self.last:
            op_output.emit(job, "job")
