"""The settings and their defaults, as ``app.yaml`` has them (section ``panreg``)."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from panreg.limits import Limits
from panreg.settings.rules import Rules
from panreg.values import TEXT, Flag, Label, Section, number, one_of, whole
from pydantic import Field

__all__ = ["DeformableSettings", "Grid", "PairSettings", "QualityGate", "Settings", "digest"]

Grid = Literal["auto", "straight", "original"]
AboveZero = Annotated[float, number()]
Fraction = Annotated[float, number(0, 1)]
Percent = Annotated[float, number(0, 100)]
Series = Annotated[str, one_of("dsro", "registered", "segmentation", "montage", "report")]
Modality = Annotated[str, one_of("CT", "MR")]


class PairSettings(Section):
    """Which stack is fixed and which moves (docs/deploy.md)."""

    fixed_series_uid: Annotated[str | None, TEXT] = None
    moving_series_uid: Annotated[str | None, TEXT] = None
    fixed_path: Annotated[str | None, TEXT] = None
    moving_path: Annotated[str | None, TEXT] = None
    series: Rules = Field(default_factory=dict)
    order: Annotated[Literal["later_is_fixed", "prior_is_fixed"], TEXT] = "later_is_fixed"
    min_slices: Annotated[int, whole(3, 100_000)] = 16
    allow_cross_modality: Flag = False
    patient_check: Annotated[Literal["strict", "allow_unidentified"], TEXT] = "strict"
    patient_conflict: Annotated[Literal["refuse", "warn"], TEXT] = "refuse"
    invalid_uids: Annotated[Literal["refuse", "keep"], TEXT] = "refuse"


class QualityGate(Section):
    """What a result must meet; ``on_failure`` is ``fail`` (exit 50, nothing written) or ``flag``.

    The limits from ``min_similarity`` to ``max_folding_percent`` are the bundle's (``bundle.plausibility``). Weights
    may have others in the place of defaults, and never of those that somebody set.
    """

    on_failure: Annotated[Literal["flag", "fail"], TEXT] = "flag"
    min_similarity: Fraction = 0.7
    min_foreground_dice: Fraction = 0.8
    min_common_view_percent: Percent = 50.0
    max_rotation_degrees: Annotated[float, number(0, 180)] = 45.0
    max_stretch: Annotated[float, number(1, 100)] = 1.2
    max_volume_ratio: Annotated[float, number(1, 1000)] = 1.75
    max_log_jacobian_sd: AboveZero = 0.6
    max_nonrigid_displacement_mm: AboveZero = 40.0
    max_displacement_mm: AboveZero = 500.0
    max_folding_percent: Percent = 0.5
    max_grid_error_mm: AboveZero = 1.5
    max_grid_error_p99_mm: AboveZero = 0.2


class DeformableSettings(Section):
    """The Deformable Spatial Registration object."""

    spacing_mm: Annotated[float, number(0.5, 50)] = 2.0
    max_megabytes: AboveZero = 30.0
    two_items: Flag = False


class Settings(Section):
    """Everything that changes a result or its objects; its digest goes into every UID."""

    affine: Annotated[Literal["auto", "none", "center", "rigid", "affine"], TEXT] = "auto"
    grid: Annotated[Grid, TEXT] = "auto"
    pair: PairSettings = PairSettings()
    limits: Limits = Limits()
    quality: QualityGate = QualityGate()
    deformable: DeformableSettings = DeformableSettings()
    series_numbers: dict[Series, Annotated[int, whole(1, 2**31 - 1)]] = Field(
        default_factory=lambda: {"dsro": 901, "registered": 902, "segmentation": 904, "montage": 906, "report": 907}
    )
    padding: dict[Modality, Annotated[int, whole(-32768, 32767)]] = Field(
        default_factory=lambda: {"CT": -1024, "MR": 0}
    )
    label: Label = "AI-derived, research use only, not for primary diagnosis"
    page: Flag = True
    plain_uids: Flag = False
    dates: Flag = False


def digest(settings: Settings, device: str, overrides: Mapping[str, object] | None = None) -> str:
    """SHA-256 of the effective configuration, for the UIDs and the manifest.

    Args:
        settings: file and environment together.
        device: kind of device, "cpu" or "cuda".
        overrides: other options of the registration.
    """
    limits = sorted(settings.quality.model_fields_set - {"on_failure"})  # which the weights can't replace
    effective = {"settings": settings.model_dump(), "limits_set": limits, "device": device}
    effective["overrides"] = dict(overrides or {})
    return hashlib.sha256(json.dumps(effective, sort_keys=True, default=str).encode()).hexdigest()
