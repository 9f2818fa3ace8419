"""Last step: every object checked as its file holds it, then all published at once."""

from panreg.objects.required_attributes import missing
from panreg.operators.job import Job
from panreg.operators.step_operator import StepOperator

__all__ = ["PublicationOperator"]


class PublicationOperator(StepOperator):
    """Publish, and declare the output valid."""

    def step(self, job: Job) -> None:
        """Check, publish, declare."""
        job.manifest.succeed(job.publication.publish([missing], job.manifest.announce))
