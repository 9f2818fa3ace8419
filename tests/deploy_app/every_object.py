"""Every object of a run, written from a registration."""

from known_field import settings_of
from panreg.objects.deformable.writer import write_deformable_registration
from panreg.objects.montage import write_montage
from panreg.objects.quality_report import MEASUREMENTS, write_quality_report
from panreg.objects.registered_series import write_registered_series
from panreg.objects.segmentation.propagation import propagate_segmentations
from synthetic import provenance_of


def write_all(folder, registration, sources):
    """Write every object of a run: their paths, of the registered series' each eighth."""
    run = provenance_of(registration.fixed, registration.moving), settings_of(spacing_mm=4.0)
    paths = write_registered_series(registration, *run, folder / "registered", run[0].uid("dsro"))[::8]
    write_deformable_registration(registration, *run, folder / "registration.dcm")
    report = dict.fromkeys(MEASUREMENTS, 0.5)
    paths += [folder / "registration.dcm", write_montage(registration, *run, folder / "montage.dcm")]
    paths.append(write_quality_report(registration, report, ["a limit"], *run, folder / "report.dcm"))
    propagation = propagate_segmentations(registration, sources, *run, folder)
    assert propagation.warnings == ()
    return [*paths, *propagation.paths]
