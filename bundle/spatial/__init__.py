"""Physical space: grids of voxels in millimetres, and the one transform that a registration returns.

Everything here is LPS (the patient's left, posterior and superior are positive), as ITK and DICOM have it; NIfTI and
MONAI are RAS. One becomes the other by ``lps_from_ras`` (matrices) and ``along_lps`` (points and vectors) alone.
"""

from bundle.spatial.chain import Inverse, Mapping, compose, unreached_percent
from bundle.spatial.grid import Grid, Matrix, along_lps, lps_from_ras, ras_from_lps
from bundle.spatial.inverse import beyond_percent, inverse_residual, invert, invert_points
from bundle.spatial.resampling import antialias, is_inside, sample
from bundle.spatial.transform import LABEL_MODES, MODES, SpatialTransform

__all__ = [
    "LABEL_MODES",
    "MODES",
    "Grid",
    "Inverse",
    "Mapping",
    "Matrix",
    "SpatialTransform",
    "along_lps",
    "antialias",
    "beyond_percent",
    "compose",
    "inverse_residual",
    "invert",
    "invert_points",
    "is_inside",
    "lps_from_ras",
    "ras_from_lps",
    "sample",
    "unreached_percent",
]
