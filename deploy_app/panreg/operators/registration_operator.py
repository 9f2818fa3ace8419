"""Third step: the registration, by the bundle."""

from panreg.objects.provenance import VERSION, Provenance
from panreg.operators.job import Job
from panreg.operators.step_operator import StepOperator
from panreg.output.manifest import describe_geometry
from panreg.registration.bundle_model import BundleModel
from panreg.registration.contrast import departures
from panreg.registration.foreground import foreground
from panreg.registration.preparation import from_air, prealignment, without_padding
from panreg.registration.result import Registration
from panreg.registration.straight import grid_of_result, onto
from panreg.settings import digest

__all__ = ["RegistrationOperator"]


class RegistrationOperator(StepOperator):
    """Let the bundle register the pair, on the GPU where there is one."""

    def step(self, job: Job) -> None:
        """Register, and say with what."""
        assert job.pair is not None
        model = BundleModel(job.models)
        fixed, moving = job.pair.fixed, job.pair.moving
        affine = prealignment(job.settings.affine, fixed, moving)
        config = digest(job.settings, model.device, {"affine": affine})
        job.provenance = Provenance(
            fixed.sop_instance_uids, moving.sop_instance_uids, model.weights_sha256, config, VERSION, job.clock
        )
        job.manifest.record(weights_sha256=model.weights_sha256, config_sha256=config, device=model.device)
        intended = model.description.get("intended_input", {})
        flags = departures(fixed, "fixed", intended) + departures(moving, "moving", intended)
        values = {
            role: without_padding(job.volumes[role], job.settings.padding[stack.modality])
            for role, stack in (("fixed", fixed), ("moving", moving))
        }
        grid, notes = grid_of_result(fixed, job.settings.grid)
        if grid is not fixed:
            values["fixed"] = onto(grid, fixed, values["fixed"], job.settings.padding[fixed.modality])
        job.manifest.record(geometry=describe_geometry(job.pair, grid))
        # the field no finer than its object holds it: all outputs agree
        options = {"affine": affine, "field_spacing_mm": job.settings.deformable.spacing_mm}
        result = model.register(
            *(grid, from_air(values["fixed"], fixed, job.settings)),
            *(moving, from_air(values["moving"], moving, job.settings)),
            options,
        )
        flags = notes + flags
        if result.quality.get("field_dropped"):
            flags += ("The network's field left the images less alike and was dropped: the alignment alone remains.",)
        job.registration = Registration(
            *(grid, moving, values["moving"], result.transform, result.quality, result.overview, flags),
            body=foreground(values["fixed"], grid.spacing_mm),
            is_straightened=grid is not fixed,
        )
        job.manifest.warn(flags)
