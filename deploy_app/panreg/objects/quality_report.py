"""The quality report: a Comprehensive 3D SR by TID 1500, Measurement Report."""

import hashlib
import math
from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path

from highdicom import sr
from highdicom.sr.coding import CodedConcept
from panreg.ingest.stack import Stack
from panreg.objects.highdicom_objects import finish, identification, sources
from panreg.objects.modules import save
from panreg.objects.provenance import MANUFACTURER, MODEL_NAME, Provenance
from panreg.registration.result import Registration
from panreg.settings import Settings
from pydicom.sr.codedict import codes

__all__ = ["MEASUREMENTS", "VOLUME_CHANGE", "write_quality_report"]

SCHEME = "99PANREG"
RATIO = CodedConcept("1", "UCUM", "no units")
PERCENT = CodedConcept("%", "UCUM", "percent")
MILLIMETRE = CodedConcept("mm", "UCUM", "millimeter")
MEGABYTE = CodedConcept("MBy", "UCUM", "megabyte")
DEGREE = CodedConcept("deg", "UCUM", "degree")

# Name of a number in the manifest -> our private code, its meaning, its unit.
MEASUREMENTS: Mapping[str, tuple[str, str, CodedConcept]] = {
    "similarity_before": ("NCC_BEFORE", "Local normalised cross-correlation before registration", RATIO),
    "similarity_aligned": ("NCC_ALIGNED", "Local normalised cross-correlation after linear alignment", RATIO),
    "similarity_after": ("NCC_AFTER", "Local normalised cross-correlation after registration", RATIO),
    "folding_percent": ("FOLD_PCT", "Voxels where the Jacobian determinant is 0 or less", PERCENT),
    "log_jacobian_sd": ("LOG_JAC_SD", "Standard deviation of the logarithm of the Jacobian determinant", RATIO),
    "foreground_similarity": ("NCC_ANATOMY", "Local normalised cross-correlation inside the anatomy", RATIO),
    "foreground_dice": ("DICE_ANATOMY", "Overlap of the foregrounds after registration (Dice)", RATIO),
    "common_view_percent": ("COMMON_FOV", "Fixed anatomy within the moving field of view", PERCENT),
    "mean_displacement_mm": ("DISP_MEAN", "Mean displacement, alignment and field together", MILLIMETRE),
    "max_displacement_mm": ("DISP_MAX", "Maximum displacement, alignment and field together", MILLIMETRE),
    "mean_nonrigid_displacement_mm": ("DISP_NR_MEAN", "Mean displacement without its rigid part", MILLIMETRE),
    "max_nonrigid_displacement_mm": ("DISP_NR_MAX", "Maximum displacement without its rigid part", MILLIMETRE),
    "mean_field_displacement_mm": ("DISP_FIELD_MEAN", "Mean displacement of the network's field alone", MILLIMETRE),
    "max_field_displacement_mm": ("DISP_FIELD_MAX", "Maximum displacement of the network's field alone", MILLIMETRE),
    "rotation_degrees": ("ROTATION", "Rotation of the linear part", DEGREE),
    "stretch": ("STRETCH", "Ratio of the largest to the smallest scale of the linear part", RATIO),
    "volume_ratio": ("VOLUME_RATIO", "Volume in the moving image of a unit volume, linear part", RATIO),
    "foreground_log_jacobian_sd": ("LOG_JAC_SD_FG", "Standard deviation of the log-Jacobian in the anatomy", RATIO),
    "grid_error_mean_mm": ("GRID_ERR_MEAN", "Mean error of the stored deformation grid in the body", MILLIMETRE),
    "grid_error_p99_mm": ("GRID_ERR_P99", "99th percentile of its error in the body", MILLIMETRE),
    "grid_error_max_mm": ("GRID_ERR_MAX", "Maximum error of the stored deformation grid in the body", MILLIMETRE),
    "grid_error_p99_everywhere_mm": ("GRID_ERR_P99_ALL", "99th percentile of its error everywhere", MILLIMETRE),
    "grid_error_max_everywhere_mm": ("GRID_ERR_MAX_ALL", "Maximum error of the stored grid everywhere", MILLIMETRE),
    "grid_megabytes": ("GRID_MB", "Size of the stored deformation grid", MEGABYTE),
}
VOLUME_CHANGE = (
    "Volume change: growth or shrinkage of a structure must not be read from this field or its Jacobian determinant. "
    "It is held back where it explains little of what differs, and a small change may be held back with the noise: no "
    "displacement does not mean no change."
)
QUALITY = CodedConcept("QUALITY", SCHEME, "Quality of the registration")
OK = CodedConcept("QUALITY_OK", SCHEME, "All limits met")
FLAGGED = CodedConcept("QUALITY_FLAGGED", SCHEME, "A limit is not met")


def write_quality_report(
    registration: Registration,
    measurements: Mapping[str, float],
    departures: Items[str],
    provenance: Provenance,
    settings: Settings,
    path: Path,
) -> Path:
    """Write how good the registration is: complete, preliminary, unverified; the images are its evidence.

    Args:
        registration: whose warnings it repeats.
        measurements: numbers by the names of ``MEASUREMENTS``; what is absent is left out, what is not finite is said
            in words. Other names are ignored: they have no code.
        departures: which limits of the quality gate are not met, a sentence each without patient data.
        provenance: of the run.
        settings: with the label.
        path: file to write.

    Returns:
        The file.
    """
    report = sr.Comprehensive3DSR(
        evidence=[*sources(registration.fixed), *sources(registration.moving)],
        content=_content(registration, measurements, departures, provenance, settings)[0],
        is_complete=True,
        **identification("report", settings, provenance, source=_digest(registration.warnings)),
    )
    description = "FLAGGED: registration quality" if departures else "Registration quality"
    finish(report, description, registration.fixed, provenance, "Measurement of registration quality")
    save(report, path)
    return path


def _digest(warnings: Items[str]) -> str:
    """Tell reports apart by what else lay in the input: their warnings name what was drawn on the moving series."""
    return hashlib.sha256("\n".join(warnings).encode()).hexdigest()


def _content(
    registration: Registration,
    measurements: Mapping[str, float],
    departures: Items[str],
    provenance: Provenance,
    settings: Settings,
) -> sr.MeasurementReport:
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(provenance.uid("report:tracking"), "Registration"),
        algorithm_id=sr.AlgorithmIdentification(
            MODEL_NAME, provenance.version, family=codes.cid7162.ArtificialIntelligence, manufacturer=MANUFACTURER
        ),
        measurements=list(_numbers(measurements)),
        qualitative_evaluations=[sr.QualitativeEvaluation(QUALITY, FLAGGED if departures else OK)],
    )
    comments = [settings.label, _images(registration.fixed, "Fixed"), _images(registration.moving, "Moving")]
    comments.append(VOLUME_CHANGE)
    comments += [f"Limit not met: {departure}" for departure in departures]
    comments += [f"Not measurable: {MEASUREMENTS[name][1]}" for name in _undefined(measurements)]
    comments += [f"Warning: {warning}" for warning in registration.warnings]
    group[0].ContentSequence.extend(
        sr.TextContentItem(codes.DCM.Comment, text, sr.RelationshipTypeValues.CONTAINS) for text in comments
    )
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(provenance)),
        procedure_reported=codes.DCM.ImageContentBasedAlignment,
        imaging_measurements=[group],
    )


def _observer(provenance: Provenance) -> sr.ObserverContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        provenance.device_uid, MODEL_NAME, MANUFACTURER, MODEL_NAME, provenance.version
    )
    return sr.ObserverContext(codes.DCM.Device, device)


def _numbers(measurements: Mapping[str, float]) -> Items[sr.Measurement]:
    return [
        sr.Measurement(CodedConcept(value, SCHEME, meaning), float(measurements[name]), unit)
        for name, (value, meaning, unit) in MEASUREMENTS.items()
        if math.isfinite(measurements.get(name, math.nan))
    ]


def _undefined(measurements: Mapping[str, float]) -> Items[str]:
    return [name for name in MEASUREMENTS if name in measurements and not math.isfinite(measurements[name])]


def _images(stack: Stack, role: str) -> str:
    number = stack.header.get("SeriesNumber")
    series = "a series without number" if number is None else f"series {number}"
    return f"{role}: {stack.modality}, {series}, {len(stack.frames)} slices"
