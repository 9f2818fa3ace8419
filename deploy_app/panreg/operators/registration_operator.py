"""Third step: the registration, by the bundle."""

from typing import Any

import numpy as np
import numpy.typing as npt
from panreg.objects.provenance import VERSION, Provenance
from panreg.operators.hand_overs import Paired, Registered
from panreg.operators.step_operator import StepOperator
from panreg.output.manifest import describe_geometry
from panreg.registration.bundle_model import BundleModel, volume
from panreg.registration.foreground import foreground
from panreg.registration.intended_input import contrast_of, departures
from panreg.registration.preparation import Prepared, outside_value, page_options, prepare, registration_options
from panreg.registration.result import Registration
from panreg.settings import digest

__all__ = ["RegistrationOperator"]

FIELD_DROPPED = "The network's field left the images less alike and was dropped: the alignment alone remains."


class RegistrationOperator(StepOperator[Paired, Registered]):
    """Let the bundle register the pair, on the GPU where there is one."""

    def step(self, taken: Paired) -> Registered:
        """Register, and record the weights, the configuration and what to flag."""
        settings, manifest = self.job.settings, self.job.manifest
        model, fixed, moving = BundleModel(self.job.models), taken.pair.fixed, taken.pair.moving
        options = registration_options(settings, fixed, moving)
        config = digest(settings, model.device, options)
        provenance = Provenance(
            fixed.sop_instance_uids, moving.sop_instance_uids, model.weights_sha256, config, VERSION, self.job.clock
        )
        manifest.record(weights_sha256=model.weights_sha256, config_sha256=config, device=model.device)
        intended = model.intended_input(across_contrasts=contrast_of(fixed) != contrast_of(moving))
        flags = departures(fixed, "fixed", intended) + departures(moving, "moving", intended)
        prepared = prepare(fixed, taken.fixed, moving, taken.moving, settings)
        manifest.record(geometry=describe_geometry(taken.pair, prepared.fixed))
        registration = self._register(model, prepared, options, flags, taken.moving.padding)
        manifest.warn(registration.warnings)
        return Registered(taken.scan, registration, provenance)

    def _register(
        self,
        model: BundleModel,
        pair: Prepared,
        options: dict[str, Any],
        flags: tuple[str, ...],
        moving_padding: npt.NDArray[np.bool_] | None,
    ) -> Registration:
        settings = self.job.settings
        options = options | page_options(settings, pair.fixed, pair.moving, [*pair.notes, *flags])
        result = model.register(
            volume(pair.fixed, pair.fixed_values, outside_value(settings, pair.fixed)),
            volume(pair.moving, pair.moving_values, outside_value(settings, pair.moving)),
            options,
        )
        dropped = (FIELD_DROPPED,) if result.quality.get("field_dropped") else ()
        return Registration(
            *(pair.fixed, pair.moving, pair.moving_values, result.transform, result.quality, result.overview),
            warnings=(*pair.notes, *flags, *dropped),
            page=result.page,
            body=foreground(pair.fixed_values, pair.fixed.spacing_mm),
            is_straightened=pair.is_straightened,
            moving_padding=moving_padding,
            limits=result.limits,
        )
