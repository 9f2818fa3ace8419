"""How good a registration is: overlap and distance of labels, folding of the field, error at landmarks.

``labels``, ``folding`` and ``landmarks`` measure one pair; ``handlers`` collects pairs in an engine, for the configs.
"""

from bundle.metrics.folding import (
    folding_percent,
    learn2reg_log_jacobian_sd,
    log_jacobian_sd,
    non_diffeomorphic_volume_percent,
)
from bundle.metrics.handlers import (
    DiceHandler,
    FoldingHandler,
    RegistrationDice,
    RegistrationFolding,
    RegistrationSimilarity,
    SimilarityHandler,
    key_metric,
)
from bundle.metrics.labels import SurfaceDistances, dice_per_label, mean_dice, surface_distances
from bundle.metrics.landmarks import tre_mm

__all__ = [
    "DiceHandler",
    "FoldingHandler",
    "RegistrationDice",
    "RegistrationFolding",
    "RegistrationSimilarity",
    "SimilarityHandler",
    "SurfaceDistances",
    "dice_per_label",
    "folding_percent",
    "key_metric",
    "learn2reg_log_jacobian_sd",
    "log_jacobian_sd",
    "mean_dice",
    "non_diffeomorphic_volume_percent",
    "surface_distances",
    "tre_mm",
]
