"""Dictionary transforms that the configs name."""

from bundle.transforms.augmentation import RandMaskd
from bundle.transforms.darkest import DarkestToZerod
from bundle.transforms.ignored import without_ignored
from bundle.transforms.likeness import MeasureLikenessd
from bundle.transforms.matching import MatchPaird
from bundle.transforms.prediction import WarpByPredictiond
from bundle.transforms.reading import ReadVolumed, check_sides, grid_of, on_grid_of, read_file, read_grid, read_volume
from bundle.transforms.scaling import ScaleToPercentilesd

__all__ = [
    "DarkestToZerod",
    "MatchPaird",
    "MeasureLikenessd",
    "RandMaskd",
    "ReadVolumed",
    "ScaleToPercentilesd",
    "WarpByPredictiond",
    "check_sides",
    "grid_of",
    "on_grid_of",
    "read_file",
    "read_grid",
    "read_volume",
    "without_ignored",
]
