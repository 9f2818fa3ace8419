"""First step: what lies in the input folder."""

from job import Job
from manifest import describe_refused, versions
from provenance import VERSION
from scan import scan
from stacks import find_stacks
from step_operator import StepOperator

__all__ = ["IngestOperator"]


class IngestOperator(StepOperator):
    """Find the images of the input and split them into stacks; no pixels are read yet."""

    def step(self, job: Job) -> None:
        """Scan, and note what was passed over or refused."""
        job.manifest.record(versions=versions(VERSION), timings=job.timings)  # the latter goes on growing
        job.scan = scan(job.input, job.settings.limits)
        job.manifest.record(skipped=dict(job.scan.skipped))
        job.stacks = find_stacks(job.scan)
        job.manifest.record(refused=describe_refused(job.stacks))
