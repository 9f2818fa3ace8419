"""The quality gate: which limits a registration breaks, and whether it is then refused or flagged."""

from collections.abc import Mapping

from failures import Code, Failure
from settings import QualityGate

__all__ = ["enforce", "verdict"]


def verdict(quality: Mapping[str, float], gate: QualityGate) -> list[str]:
    """List the limits that a result breaks, each as a sentence; a number that is missing or NaN meets no limit.

    Args:
        quality: ``similarity_before`` and ``similarity_after`` within the common field of view, ``folding_percent``
            (det J ≤ 0), ``max_displacement_mm``, and ``grid_error_max_mm`` and ``grid_error_p99_mm``, the errors of
            the stored grid in the body.
        gate: the limits.
    """
    missing = float("nan")
    limits = {
        "folding_percent": gate.max_folding_percent,
        "max_displacement_mm": gate.max_displacement_mm,
        "grid_error_max_mm": gate.max_grid_error_mm,
        "grid_error_p99_mm": gate.max_grid_error_p99_mm,
    }
    broken = [
        f"{name} is {quality.get(name, missing):.4g}, above the limit of {limit:g}."
        for name, limit in limits.items()
        if not quality.get(name, missing) <= limit
    ]
    before, after = (quality.get(f"similarity_{stage}", missing) for stage in ("before", "after"))
    if not after >= before:
        broken.insert(0, f"similarity_after is {after:.4g}, below similarity_before, {before:.4g}.")
    return broken


def enforce(broken: list[str], gate: QualityGate) -> tuple[str, ...]:
    """Refuse a result that breaks limits, or return what to flag in its objects and the manifest.

    Raises:
        Failure: E_QUALITY, where the gate says ``fail``.
    """
    if broken and gate.on_failure == "fail":
        raise Failure(Code.E_QUALITY, f"The registration is not good enough: {' '.join(broken)}")
    return tuple(f"Quality: {sentence}" for sentence in broken)
