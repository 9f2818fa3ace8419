"""Last step: every object checked as its file holds it, then all published at once."""

from manifest import versions
from required_attributes import missing

from job import Job
from step_operator import StepOperator

__all__ = ["PublicationOperator"]


class PublicationOperator(StepOperator):
    """Publish, and declare the output valid."""

    def step(self, job: Job) -> None:
        """Check, publish, declare."""
        job.manifest.record(versions=versions(), timings=dict(job.timings))
        job.manifest.succeed(job.publication.publish([missing]))
