"""Two small subjects, as files; a transform, with points of its two images; and a data set to prepare."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.itk import write_transform
from bundle.phantom import centred_affine, random_anatomy, sample
from bundle.spatial import SpatialTransform
from tests.commands import raw_heads
from tests.commands.carried import FIELD, FIXED, MOVING
from tests.spatial.oblique import linear_map, random_points, smooth_ddf

GRIDS = {  # small, unequal-sided, oblique; the moving one flipped and with thick slices
    "moving": ((44, 46, 28), centred_affine((44, 46, 28), (-4.1, 4.4, 6.0), degrees=(9, -5, 7))),
    "fixed": ((40, 48, 36), centred_affine((40, 48, 36), (4.2, 4.0, 4.4), degrees=(-4, 6, 3))),
}


def save(array, affine, path):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return str(path)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Two subjects with their labels and brain masks, as paths."""
    folder = tmp_path_factory.mktemp("pair")
    paths = {}
    for seed, (role, (shape, affine)) in enumerate(GRIDS.items()):
        image, label = sample(random_anatomy(seed), shape, affine)
        paths[role] = save(image, affine, folder / f"{role}.nii.gz")
        paths[f"{role}_label"] = save(label, affine, folder / f"{role}_label.nii.gz")
        paths[f"{role}_mask"] = save((label > 0).astype(np.uint8), affine, folder / f"{role}_mask.nii.gz")
    return paths


@pytest.fixture(scope="session")
def weights(shifting_weights):
    return shifting_weights


@pytest.fixture(scope="module")
def transform():
    """A transform between two oblique images."""
    return SpatialTransform(linear_map(), smooth_ddf(FIELD.shape, 3), FIELD, FIXED, MOVING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, transform):
    """Where the transform lies, as transform.h5."""
    path = tmp_path_factory.mktemp("points")
    write_transform(transform, path / "transform.h5")
    return path


@pytest.fixture(scope="module")
def fixed_points():
    return random_points(FIXED, 1, 12)


@pytest.fixture(scope="module")
def moving_points(folder, fixed_points):
    """Where ITK takes the fixed points."""
    by_itk = sitk.ReadTransform(str(folder / "transform.h5"))
    return np.array([by_itk.TransformPoint(point) for point in fixed_points.tolist()])


@pytest.fixture(scope="module")
def heads():
    """Images, labels and affines of four subjects."""
    shapes = [shape for shape, _ in raw_heads.GRIDS[:3]] + [(20, 28, 30)]
    return [
        (*sample(random_anatomy(i), shape, affine), affine)
        for i, (shape, (_, affine)) in enumerate(zip(shapes, raw_heads.GRIDS))
    ]


@pytest.fixture
def source(heads, tmp_path):
    """A data set of two training images, one to validate, one to test."""
    items = []
    for i, (image, label, affine) in enumerate(heads):
        raw_heads.save(image, affine, tmp_path / "source" / "images" / f"head_{i}.nii.gz")
        raw_heads.save(label, affine, tmp_path / "source" / "labels" / f"head_{i}.nii.gz")
        items.append({"image": f"images/head_{i}.nii.gz", "label": f"labels/head_{i}.nii.gz"})
    listing = {"training": items[:2], "validation": items[2:3], "test": items[3:]}
    (tmp_path / "source" / "dataset.json").write_text(json.dumps(listing))
    return tmp_path / "source"
