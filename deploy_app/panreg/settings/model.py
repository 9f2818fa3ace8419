"""The settings and their defaults, as ``app.yaml`` has them (section ``panreg``)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from panreg.limits import Limits

__all__ = ["DeformableSettings", "PairSettings", "QualityGate", "Settings", "digest"]


@dataclass(frozen=True)
class PairSettings:
    """Which stack is fixed and which moves (docs/deploy.md)."""

    fixed_series_uid: str | None = None
    moving_series_uid: str | None = None
    fixed_path: str | None = None
    moving_path: str | None = None
    series: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    order: str = "later_is_fixed"
    min_slices: int = 16
    allow_cross_modality: bool = False
    patient_check: str = "strict"
    patient_conflict: str = "refuse"
    invalid_uids: str = "refuse"


@dataclass(frozen=True)
class QualityGate:
    """What a result must meet; ``on_failure`` is ``fail`` (exit 50, nothing written) or ``flag``.

    The limits from ``min_similarity`` to ``max_log_jacobian_sd`` are the bundle's (``bundle.plausibility``).
    """

    on_failure: str = "flag"
    min_similarity: float = 0.7
    min_foreground_dice: float = 0.8
    min_common_view_percent: float = 50.0
    max_rotation_degrees: float = 45.0
    max_stretch: float = 1.2
    max_volume_ratio: float = 1.75
    max_log_jacobian_sd: float = 0.6
    max_nonrigid_displacement_mm: float = 40.0
    max_displacement_mm: float = 500.0
    max_folding_percent: float = 0.5
    max_grid_error_mm: float = 0.5
    max_grid_error_p99_mm: float = 0.2


@dataclass(frozen=True)
class DeformableSettings:
    """The Deformable Spatial Registration object."""

    spacing_mm: float = 2.0
    max_megabytes: float = 30.0
    two_items: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything that changes a result or its objects; its digest goes into every UID."""

    affine: str = "auto"
    grid: str = "auto"
    pair: PairSettings = PairSettings()
    limits: Limits = field(default_factory=Limits)
    quality: QualityGate = QualityGate()
    deformable: DeformableSettings = DeformableSettings()
    series_numbers: Mapping[str, int] = field(
        default_factory=lambda: {"dsro": 901, "registered": 902, "segmentation": 904, "montage": 906, "report": 907}
    )
    padding: Mapping[str, int] = field(default_factory=lambda: {"CT": -1024, "MR": 0})
    label: str = "AI-derived, research use only, not for primary diagnosis"
    plain_uids: bool = False
    dates: bool = False


def digest(settings: Settings, device: str, overrides: Mapping[str, object] | None = None) -> str:
    """SHA-256 of the effective configuration, for the UIDs and the manifest.

    Args:
        settings: file and environment together.
        device: kind of device, "cpu" or "cuda".
        overrides: other options of the registration.
    """
    effective = {"settings": asdict(settings), "device": device, "overrides": dict(overrides or {})}
    return hashlib.sha256(json.dumps(effective, sort_keys=True, default=str).encode()).hexdigest()
