"""Third step: the registration, by the bundle."""

import numpy as np
from bundle_model import BundleModel
from contrast import departures
from decode import Volume
from job import Job
from provenance import VERSION, Provenance
from registration import Array, Registration
from settings import digest
from stack import Stack
from step_operator import StepOperator

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
        # the field no finer than its object holds it: all outputs agree
        options = {"affine": affine, "field_spacing_mm": job.settings.deformable.spacing_mm}
        result = model.register(fixed, values["fixed"], moving, values["moving"], options)
        if result.quality.get("field_dropped"):
            flags += ("The network's field left the images less alike and was dropped: the alignment alone remains.",)
        job.registration = Registration(
            fixed, moving, values["moving"], result.transform, result.quality, result.overview, flags
        )
        job.manifest.warn(flags)


def prealignment(setting: str, fixed: Stack, moving: Stack) -> str:
    """Decide how to align before the network: one frame of reference means that the headers agree already."""
    if setting != "auto":
        return setting
    return "none" if fixed.frame_of_reference_uid == moving.frame_of_reference_uid else "affine"


def without_padding(volume: Volume, value: float) -> Array:
    """Give the source's padding the value that the output has where nothing was imaged."""
    if volume.padding is None:
        return volume.values
    return np.where(volume.padding, np.float32(value), volume.values)
