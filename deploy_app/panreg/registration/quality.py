"""The quality gate: which limits a registration breaks, and whether it is then refused or flagged."""

import math
from collections.abc import Mapping

from panreg.failures import Code, Failure
from panreg.ingest.stack import Stack
from panreg.registration.result import Limits
from panreg.settings import QualityGate

__all__ = ["MEASURES", "enforce", "gate_of", "page_bounds", "suited", "verdict", "within_one_frame"]

# setting -> the number that it bounds
MEASURES: Mapping[str, str] = {
    "min_similarity": "foreground_similarity",
    "min_foreground_dice": "foreground_dice",
    "min_common_view_percent": "common_view_percent",
    "max_rotation_degrees": "rotation_degrees",
    "max_stretch": "stretch",
    "max_volume_ratio": "volume_ratio",
    "max_log_jacobian_sd": "foreground_log_jacobian_sd",
    "max_nonrigid_displacement_mm": "max_nonrigid_displacement_mm",
    "max_displacement_mm": "max_displacement_mm",
    "max_folding_percent": "folding_percent",
    "max_grid_error_mm": "grid_error_max_mm",
    "max_grid_error_p99_mm": "grid_error_p99_mm",
}


def verdict(quality: Mapping[str, float], gate: QualityGate) -> list[str]:
    """List the limits that a result breaks, each as a sentence; a number that is missing or NaN meets no limit.

    Args:
        quality: the bundle's numbers, with ``similarity_before`` and ``similarity_after``; ``grid_error_max_mm`` and
            ``grid_error_p99_mm``, the errors of the stored grid in the body.
        gate: the limits.
    """
    missing = float("nan")
    broken = []
    before, after = (quality.get(f"similarity_{stage}", missing) for stage in ("before", "after"))
    if not after >= before:
        found = f"similarity_after is {after:.4g}, below similarity_before, {before:.4g}."
        broken.append(found if after < before else "similarity_before or similarity_after could not be measured.")
    limits = gate.model_dump()
    for setting, name in MEASURES.items():
        value, limit = quality.get(name, missing), limits[setting]
        compared = max(value, 1 / value) if name == "volume_ratio" and value > 0 else value
        if math.isnan(value):
            broken.append(f"{name} could not be measured ({_variable(setting)}).")
        elif setting.startswith("min") and not compared >= limit:
            broken.append(f"{name} is {value:.4g}, below the limit of {limit:g} ({_variable(setting)}).")
        elif setting.startswith("max") and not (compared <= limit and (name != "volume_ratio" or value > 0)):
            shown = f"{limit:g}" if name != "volume_ratio" else f"{limit:g} or below 1/{limit:g}"
            broken.append(f"{name} is {value:.4g}, above the limit of {shown} ({_variable(setting)}).")
    return broken


def gate_of(gate: QualityGate, fixed: Stack, moving: Stack) -> QualityGate:
    """Choose the limits for a pair: stricter within one frame of reference."""
    return within_one_frame(gate) if fixed.frame_of_reference_uid == moving.frame_of_reference_uid else gate


def within_one_frame(gate: QualityGate) -> QualityGate:
    """Halve the stretch that is allowed where one frame of reference says that the images lie as they should.

    The field alone would have to stretch there, and it reaches only half of what is wrong. The copy counts the limit as
    set: weights replace defaults alone.
    """
    return gate.model_copy(update={"max_stretch": 1 + (gate.max_stretch - 1) / 2})


def suited(gate: QualityGate, limits: Limits) -> QualityGate:
    """Put the limits that weights have of their own in the place of defaults, as the bundle's page does.

    A limit that somebody set, in the environment or the settings file, holds whatever the weights are.
    """
    update = dict[str, float]()
    for setting, name in MEASURES.items():
        if setting in gate.model_fields_set:
            continue
        low, high = limits.get(name, (None, None))
        limit = low if setting.startswith("min") else high
        update |= {} if limit is None else {setting: float(limit)}
    return gate.model_copy(update=update)


def page_bounds(gate: QualityGate) -> dict[str, list[float | None]]:
    """List the limits that were set on the bundle's numbers as its page takes them: least and greatest value.

    The defaults are the bundle's own, and it knows which of them the weights replace.
    """
    limits, bounds = gate.model_dump(exclude_unset=True), dict[str, list[float | None]]()
    for setting, name in MEASURES.items():
        if setting not in limits:
            continue
        limit = limits[setting]
        if name == "volume_ratio":
            bounds[name] = [1 / limit, limit]
        elif not name.startswith("grid_error"):  # which the bundle doesn't know
            bounds[name] = [limit, None] if setting.startswith("min") else [None, limit]
    return bounds


def _variable(setting: str) -> str:
    return f"PANREG_QUALITY_{setting.upper()}"


def enforce(broken: list[str], gate: QualityGate) -> tuple[str, ...]:
    """Refuse a result that breaks limits, or return what to flag in its objects and the manifest.

    Raises:
        Failure: E_QUALITY, where the gate says ``fail``.
    """
    if broken and gate.on_failure == "fail":
        raise Failure(Code.E_QUALITY, f"The registration is not good enough: {' '.join(broken)}")
    return tuple(f"Quality: {sentence}" for sentence in broken)
