"""The application's settings: ``app.yaml`` (section ``panreg``), overridden by the environment (``PANREG_…``)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DeformableSettings", "Limits", "PairSettings", "QualityGate", "Settings"]


@dataclass(frozen=True)
class Limits:
    """What the scan refuses before it allocates anything (E_LIMIT)."""

    files: int = 100_000
    depth: int = 16
    rows: int = 4096
    columns: int = 4096
    frames: int = 4096
    voxels: int = 512 * 512 * 1024


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


@dataclass(frozen=True)
class QualityGate:
    """What a result must meet; ``on_failure`` is ``fail`` (exit 50, nothing written) or ``flag``."""

    on_failure: str = "flag"
    max_folding_percent: float = 0.5
    max_displacement_mm: float = 60.0
    max_grid_error_mm: float = 0.5


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
    pair: PairSettings = PairSettings()
    limits: Limits = Limits()
    quality: QualityGate = QualityGate()
    deformable: DeformableSettings = DeformableSettings()
    series_numbers: Mapping[str, int] = field(
        default_factory=lambda: {"dsro": 901, "registered": 902, "segmentation": 904, "montage": 906, "report": 907}
    )
    padding: Mapping[str, int] = field(default_factory=lambda: {"CT": -1024, "MR": 0})
    label: str = "AI-derived, research use only, not for primary diagnosis"
    plain_uids: bool = False
    dates: bool = False
