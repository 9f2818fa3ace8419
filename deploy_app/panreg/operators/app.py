"""The operator graph."""

from itertools import pairwise

from holoscan.conditions import CountCondition
from monai.deploy.core import Application
from panreg.operators.ingest_operator import IngestOperator
from panreg.operators.job import Job
from panreg.operators.pairing_operator import PairingOperator
from panreg.operators.publication_operator import PublicationOperator
from panreg.operators.registration_operator import RegistrationOperator
from panreg.operators.writers_operator import WritersOperator

__all__ = ["RegistrationApp"]


class RegistrationApp(Application):
    """DICOM in, registration, DICOM out.

    Args:
        job: of the run; what it holds afterwards tells how the run ended.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__()

    def compose(self) -> None:
        """Chain the operators: each hands the job to the next."""
        steps = [
            IngestOperator(self, CountCondition(self, 1), job=self.job, name="ingest"),
            PairingOperator(self, name="pairing"),
            RegistrationOperator(self, name="registration"),
            WritersOperator(self, name="writers"),
            PublicationOperator(self, last=True, name="publication"),
        ]
        for step, following in pairwise(steps):
            self.add_flow(step, following, {("job", "job")})
