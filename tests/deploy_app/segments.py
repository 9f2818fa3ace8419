"""Segmentation objects of the semantic phantom: two ellipsoids drawn on its moving series."""

from copy import deepcopy

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes
from synthetic import points_of, uid

CENTRES = {1: ([4, -8, 2], [16, 13, 17]), 2: ([-18, 16, 8], [13, 17, 14])}  # LPS mm, radii mm


def ellipsoid(points, number):
    centre, radii = CENTRES[number]
    return (((points - centre) / np.array(radii)) ** 2).sum(-1) < 1


def masks_on(shape, affine):
    points = points_of(shape, affine)
    return np.stack([ellipsoid(points, n) for n in CENTRES], -1).astype(np.uint8)


def description(number, label):
    return SegmentDescription(
        *(number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, "MANUAL"),
        tracking_id=f"lesion {number}",
        tracking_uid=uid("lesion", number),
    )


def write_segmentation(path, moving, masks, affine=None, kind="BINARY", labels=("Lesion A", "Lesion B"), edit=None):
    """Write masks [k, j, i, segment]: on the moving series' planes, or on a grid of its own."""
    geometry = {}
    if affine is not None:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        origins = affine[:3, 3] + np.arange(len(masks))[:, None] * affine[:3, 2]
        orientation = (affine[:3, :2] / spacing[:2]).T.ravel()
        geometry = {
            "plane_positions": [highdicom.PlanePositionSequence("PATIENT", origin) for origin in origins],
            "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", orientation),
            "pixel_measures": highdicom.PixelMeasuresSequence(spacing[1::-1], spacing[2], spacing[2]),
        }
    images = [deepcopy(frame.header) for frame in moving.frames]
    for image in images:
        image.pop("SpecificCharacterSet", None)  # highdicom knows but some
    ds = Segmentation(
        *(images, masks, kind),
        [description(n, label) for n, label in enumerate(labels, 1)],
        *(uid("segmentation series"), 9, uid("segmentation"), 1, "Maker", "Model", "1.0", "1"),
        series_description="Lesions",
        **geometry,
    )
    if "SpecificCharacterSet" in moving.header:
        ds["SpecificCharacterSet"] = deepcopy(moving.header["SpecificCharacterSet"])
    if edit is not None:
        edit(ds)
    ds.save_as(path)
    return path
