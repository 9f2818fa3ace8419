"""Second step: which stack is fixed and which moves, and that both are one patient's."""

from panreg.ingest.decode import read_stack
from panreg.operators.hand_overs import Ingested, Paired
from panreg.operators.step_operator import StepOperator
from panreg.output.manifest import describe_geometry, describe_inputs, describe_pair
from panreg.pairing.choice import choose_pair

__all__ = ["PairingOperator"]


class PairingOperator(StepOperator[Ingested, Paired]):
    """Choose the pair by rules, check the patient, and only then read pixels."""

    def step(self, taken: Ingested) -> Paired:
        """Choose, check, read."""
        settings, manifest = self.job.settings, self.job.manifest
        pair = choose_pair(taken.stacks, settings.pair, self.job.input)
        manifest.record(
            pair=describe_pair(pair, settings.dates),
            geometry=describe_geometry(pair),
            inputs=describe_inputs(pair, settings.plain_uids),
        )
        manifest.warn([*pair.warnings, *pair.fixed.warnings, *pair.moving.warnings])
        return Paired(taken.scan, pair, read_stack(pair.fixed), read_stack(pair.moving))
