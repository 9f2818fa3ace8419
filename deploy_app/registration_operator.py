"""Third step: the registration, by the bundle."""

import numpy as np
from bundle_model import BundleModel
from contrast import departures
from decode import Volume
from foreground import foreground
from job import Job
from manifest import describe_geometry
from provenance import VERSION, Provenance
from registration import Array, Registration
from settings import Settings, digest
from stack import Stack
from step_operator import StepOperator
from straight import grid_of_result, onto

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


def prealignment(setting: str, fixed: Stack, moving: Stack) -> str:
    """Decide how to align before the network: one frame of reference means that the headers agree already."""
    if setting != "auto":
        return setting
    return "none" if fixed.frame_of_reference_uid == moving.frame_of_reference_uid else "affine"


def from_air(values: Array, stack: Stack, settings: Settings) -> Array:
    """Count values from what nothing imaged has: what the bundle draws outside an image, 0, is then air in CT, too."""
    padding = settings.padding[stack.modality]
    return values - np.float32(padding) if padding else values


def without_padding(volume: Volume, value: float) -> Array:
    """Give the source's padding the value that the output has where nothing was imaged."""
    if volume.padding is None:
        return volume.values
    return np.where(volume.padding, np.float32(value), volume.values)
