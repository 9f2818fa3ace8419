"""First step: what lies in the input folder."""

from panreg.ingest.scan import scan
from panreg.ingest.stacks import find_stacks
from panreg.objects.provenance import VERSION
from panreg.operators.job import Job
from panreg.operators.step_operator import StepOperator
from panreg.output.manifest import describe_refused, versions

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
