"""Second step: which stack is fixed and which moves, and that both are one patient's."""

import math

from panreg.ingest.decode import read_stack
from panreg.ingest.stack import Stack
from panreg.operators.hand_overs import Ingested, Paired
from panreg.operators.step_operator import StepOperator
from panreg.output.manifest import describe_geometry, describe_inputs, describe_pair
from panreg.pairing.choice import choose_pair
from panreg.settings import Settings

__all__ = ["PairingOperator"]

BYTES_PER_VOXEL = 2  # of the registered series
OTHER_BYTES = 8_000_000  # headers, montage, report, segmentations
PAGE_BYTES = 15_000_000  # of report.html, at most


class PairingOperator(StepOperator[Ingested, Paired]):
    """Choose the pair by rules, check the patient and the space for the results, and only then read pixels."""

    def step(self, taken: Ingested) -> Paired:
        """Choose, check, read."""
        settings, manifest = self.job.settings, self.job.manifest
        pair = choose_pair(taken.stacks, settings.pair, self.job.input, taken.scan.skipped)
        manifest.record(
            pair=describe_pair(pair, settings.dates),
            geometry=describe_geometry(pair),
            inputs=describe_inputs(pair, settings.plain_uids),
        )
        manifest.warn([*pair.warnings, *pair.fixed.warnings, *pair.moving.warnings])
        self.job.publication.require_space(_bytes_needed(pair.fixed, settings))
        return Paired(taken.scan, pair, read_stack(pair.fixed), read_stack(pair.moving))


def _bytes_needed(fixed: Stack, settings: Settings) -> int:
    """How large the results will be, about."""
    others = OTHER_BYTES + (PAGE_BYTES if settings.page else 0)
    return math.prod(fixed.shape) * BYTES_PER_VOXEL + int(settings.deformable.max_megabytes * 1e6) + others
