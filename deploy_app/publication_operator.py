"""Last step: every object checked as its file holds it, then all published at once."""

from job import Job
from required_attributes import missing
from step_operator import StepOperator

__all__ = ["PublicationOperator"]


class PublicationOperator(StepOperator):
    """Publish, and declare the output valid."""

    def step(self, job: Job) -> None:
        """Check, publish, declare."""
        job.manifest.succeed(job.publication.publish([missing], job.manifest.announce))
