"""The application's settings: ``app.yaml`` (section ``panreg``), overridden by the environment (``PANREG_…``)."""

from panreg.settings.loading import load_settings, settings_file, variables
from panreg.settings.model import DeformableSettings, Grid, PairSettings, QualityGate, Settings, digest

__all__ = [
    "DeformableSettings",
    "Grid",
    "PairSettings",
    "QualityGate",
    "Settings",
    "digest",
    "load_settings",
    "settings_file",
    "variables",
]
