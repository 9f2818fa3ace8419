"""Last step: every object checked as its file holds it, then all published at once."""

from panreg.objects.required_attributes import missing
from panreg.operators.hand_overs import Published, Written
from panreg.operators.step_operator import StepOperator

__all__ = ["PublicationOperator"]


class PublicationOperator(StepOperator[Written, Published]):
    """Publish, and declare the output valid."""

    def step(self, taken: Written) -> Published:
        """Check, publish, declare."""
        publication, manifest = self.job.publication, self.job.manifest
        objects = publication.publish([missing], lambda staged: manifest.announce(staged, publication.page))
        manifest.succeed(objects, publication.page)
        return Published(tuple(objects))
