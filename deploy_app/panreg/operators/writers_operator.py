"""Fourth step: the DICOM objects, staged."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from panreg.objects.deformable.stored_field import StoredField
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.objects.montage import write_montage
from panreg.objects.quality_report import write_quality_report
from panreg.objects.registered_series import write_registered_series
from panreg.objects.segmentation.propagation import propagate_segmentations
from panreg.operators.job import Job
from panreg.operators.step_operator import StepOperator
from panreg.output.publication import output_failures
from panreg.registration.quality import enforce, verdict, within_one_frame

__all__ = ["WritersOperator"]

# what the scan counts as skipped and may have been drawn on the moving series
DRAWN = {
    "segmentation_too_large": "Segmentation objects beyond the limit on voxels",
    "Surface Segmentation Storage": "Surface Segmentation objects",
    "Tractography Results Storage": "Tractography Results objects",
}


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
        "grid_error_mean_mm": field.body_mean_error_mm,
        "grid_error_p99_mm": field.body_p99_error_mm,
        "grid_error_max_mm": field.body_max_error_mm,
        "grid_error_p99_everywhere_mm": field.p99_error_mm,
        "grid_error_max_everywhere_mm": field.max_error_mm,
        "grid_megabytes": field.size_bytes / 1e6,
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
    notes = (*_beyond_the_grid(field), *propagation.warnings, *_left_behind(job.scan.skipped))
    job.manifest.warn(notes)
    registration = replace(registration, warnings=(*registration.warnings, *notes))
    write_montage(registration, provenance, settings, folder / "montage.dcm")
    write_quality_report(registration, measurements, broken, provenance, settings, folder / "report.dcm")


def _beyond_the_grid(field: StoredField) -> Iterator[str]:
    if field.covers == "body":
        yield (
            "The registration object's grid lies over the body and the air near it, not over the whole fixed image, to "
            "stay small enough: beyond it the object displaces nothing."
        )


def _left_behind(skipped: Mapping[str, int]) -> Iterator[str]:
    """Name what may have been drawn on the moving series, and isn't propagated."""
    for reason, name in DRAWN.items():
        if skipped.get(reason):
            yield f"{name} in the input were not propagated: {skipped[reason]}."
