"""First step: what lies in the input folder."""

from panreg.ingest.scan import scan
from panreg.ingest.stacks import find_stacks
from panreg.objects.provenance import VERSION
from panreg.operators.hand_overs import Ingested
from panreg.operators.step_operator import StepOperator
from panreg.output.manifest import describe_refused, versions

__all__ = ["IngestOperator"]


class IngestOperator(StepOperator[None, Ingested]):
    """Find the images of the input and split them into stacks; no pixels are read yet."""

    def step(self, taken: None) -> Ingested:
        """Scan, and note what was passed over or refused."""
        manifest = self.job.manifest
        manifest.record(versions=versions(VERSION))
        found = scan(self.job.input, self.job.settings.limits)
        manifest.record(skipped=dict(found.skipped))
        stacks = find_stacks(found)
        manifest.record(refused=describe_refused(stacks))
        return Ingested(found, stacks)
