"""Fourth step: the DICOM objects, staged."""

from dataclasses import asdict

from deformable_registration import write_deformable_registration
from job import Job
from montage import write_montage
from publication import output_failures
from quality import enforce, verdict, within_one_frame
from quality_report import write_quality_report
from registered_series import write_registered_series
from segmentation import propagate_segmentations
from step_operator import StepOperator

__all__ = ["WritersOperator"]


class WritersOperator(StepOperator):
    """Write every object into the staging folder; the field first, since the quality gate asks how well it is kept."""

    def step(self, job: Job) -> None:
        """Write, with an operating system's refusal as E_OUTPUT."""
        with output_failures():
            write_objects(job)


def write_objects(job: Job) -> None:
    """Write, gate, write on.

    Raises:
        Failure: E_OUTPUT, or E_QUALITY where the gate refuses.
    """
    registration, provenance, settings = job.registration, job.provenance, job.settings
    assert registration is not None
    assert provenance is not None
    assert job.scan is not None
    folder = job.publication.staging
    field = write_deformable_registration(registration, provenance, settings, folder / "registration.dcm")
    measurements = dict(registration.quality) | {
        "grid_error_max_mm": field.max_error_mm,
        "grid_error_mean_mm": field.mean_error_mm,
    }
    job.manifest.record(dsro=asdict(field), quality=measurements)
    fixed, moving = registration.fixed, registration.moving
    one_frame = fixed.frame_of_reference_uid == moving.frame_of_reference_uid
    gate = within_one_frame(settings.quality) if one_frame else settings.quality
    broken = verdict(measurements, gate)
    job.manifest.warn(enforce(broken, settings.quality))
    uid = provenance.uid("dsro")
    write_registered_series(registration, provenance, settings, folder / "registered", uid, flagged=bool(broken))
    propagation = propagate_segmentations(
        registration, [frame.path for frame in job.scan.segmentations], provenance, settings, folder
    )
    job.manifest.warn(propagation.warnings)
    write_montage(registration, provenance, settings, folder / "montage.dcm")
    write_quality_report(registration, measurements, broken, provenance, settings, folder / "report.dcm")
