"""Fourth step: the DICOM objects, staged."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from panreg.objects.deformable.stored_field import StoredField
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.objects.montage import write_montage
from panreg.objects.quality_report import write_quality_report
from panreg.objects.registered_series import write_registered_series
from panreg.objects.segmentation.propagation import propagate_segmentations
from panreg.operators.hand_overs import Registered, Written
from panreg.operators.job import Job
from panreg.operators.step_operator import StepOperator
from panreg.output.page import PAGE
from panreg.output.publication import output_failures
from panreg.registration.quality import enforce, gate_of, suited, verdict
from panreg.registration.result import Registration

__all__ = ["WritersOperator"]

# what the scan counts as skipped and may have been drawn on the moving series
DRAWN = {
    "segmentation_too_large": "Segmentation objects beyond the limit on voxels",
    "segmentation_uid_collision": "Objects drawn on images, or said to be, whose SOP Instance UID two files have",
    "Surface Segmentation Storage": "Surface Segmentation objects",
    "Tractography Results Storage": "Tractography Results objects",
}


class WritersOperator(StepOperator[Registered, Written]):
    """Write every object into the staging folder; the field first, since the quality gate asks how well it is kept."""

    def step(self, taken: Registered) -> Written:
        """Write, with an operating system's refusal as E_OUTPUT."""
        with output_failures():
            return write_objects(taken, self.job)


def write_objects(taken: Registered, job: Job) -> Written:
    """Write, gate, write on.

    Raises:
        Failure: E_OUTPUT, or E_QUALITY where the gate refuses.
    """
    registration, provenance, settings = taken.registration, taken.provenance, job.settings
    folder = job.publication.staging
    field = write_deformable_registration(registration, provenance, settings, folder / "registration.dcm")
    measurements = _measurements(registration, field)
    job.manifest.record(dsro=asdict(field), quality=measurements)
    gate = suited(gate_of(settings.quality, registration.fixed, registration.moving), registration.limits)
    broken = verdict(measurements, gate)
    job.manifest.warn(enforce(broken, settings.quality))
    uid = provenance.uid("dsro")
    write_registered_series(registration, provenance, settings, folder / "registered", uid, flagged=bool(broken))
    drawn = [frame.path for frame in taken.scan.segmentations]
    propagation = propagate_segmentations(registration, drawn, provenance, settings, folder)
    notes = (*_beyond_the_grid(field), *propagation.warnings, *_left_behind(taken.scan.skipped))
    job.manifest.warn(notes)
    registration = replace(registration, warnings=(*registration.warnings, *notes))
    write_montage(registration, provenance, settings, folder / "montage.dcm")
    write_quality_report(registration, measurements, broken, provenance, settings, folder / "report.dcm")
    if registration.page is not None:
        (folder / PAGE).write_text(registration.page, encoding="utf-8")
    return Written(tuple(broken))


def _measurements(registration: Registration, field: StoredField) -> dict[str, float]:
    """Gather the bundle's numbers and those of the stored grid."""
    return dict(registration.quality) | {
        "grid_error_mean_mm": field.body_mean_error_mm,
        "grid_error_p99_mm": field.body_p99_error_mm,
        "grid_error_max_mm": field.body_max_error_mm,
        "grid_error_p99_everywhere_mm": field.p99_error_mm,
        "grid_error_max_everywhere_mm": field.max_error_mm,
        "grid_megabytes": field.size_bytes / 1e6,
    }


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
