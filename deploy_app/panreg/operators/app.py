"""The operator graph."""

from itertools import pairwise
from typing import Any

from holoscan.conditions import CountCondition
from monai.deploy.core import Application
from panreg.failures import Failure
from panreg.operators.ingest_operator import IngestOperator
from panreg.operators.job import Job
from panreg.operators.pairing_operator import PairingOperator
from panreg.operators.publication_operator import PublicationOperator
from panreg.operators.registration_operator import RegistrationOperator
from panreg.operators.step_operator import StepOperator
from panreg.operators.writers_operator import WritersOperator

__all__ = ["RegistrationApp", "register"]


class RegistrationApp(Application):
    """DICOM in, registration, DICOM out.

    Args:
        job: of the run.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.last: StepOperator[Any, Any] | None = None
        super().__init__()

    def compose(self) -> None:
        """Chain the operators: each hands what it made to the next."""
        job = self.job
        steps: list[StepOperator[Any, Any]] = [
            IngestOperator(self, CountCondition(self, 1), job=job, first=True, name="ingest"),
            PairingOperator(self, job=job, name="pairing"),
            RegistrationOperator(self, job=job, name="registration"),
            WritersOperator(self, job=job, name="writers"),
            PublicationOperator(self, job=job, last=True, name="publication"),
        ]
        self.last = steps[-1]
        for step, following in pairwise(steps):
            self.add_flow(step, following, {("made", "taken")})


def register(job: Job) -> None:
    """Run the application.

    Raises:
        Failure: why there is no result.
        RuntimeError: the graph ended before its last operator did.
    """
    app = RegistrationApp(job)
    app.run()
    outcome = None if app.last is None else app.last.outcome
    if isinstance(outcome, Failure):
        raise outcome
    if outcome is None:
        raise RuntimeError("the graph ended before its last operator")
