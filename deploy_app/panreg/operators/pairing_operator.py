"""Second step: which stack is fixed and which moves, and that both are one patient's."""

from panreg.ingest.decode import read_stack
from panreg.operators.job import Job
from panreg.operators.step_operator import StepOperator
from panreg.output.manifest import describe_geometry, describe_inputs, describe_pair
from panreg.pairing.choice import choose_pair

__all__ = ["PairingOperator"]


class PairingOperator(StepOperator):
    """Choose the pair by rules, check the patient, and only then read pixels."""

    def step(self, job: Job) -> None:
        """Choose, check, read."""
        settings = job.settings
        job.pair = pair = choose_pair(job.stacks, settings.pair, job.input)
        job.manifest.record(
            pair=describe_pair(pair, settings.dates),
            geometry=describe_geometry(pair),
            inputs=describe_inputs(pair, settings.plain_uids),
        )
        job.manifest.warn([*pair.warnings, *pair.fixed.warnings, *pair.moving.warnings])
        job.volumes = {"fixed": read_stack(pair.fixed), "moving": read_stack(pair.moving)}
