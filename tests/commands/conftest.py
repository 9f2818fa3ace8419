"""Two small subjects, as files; and a transform, with points of its two images."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.itk import write_transform
from bundle.phantom import centred_affine, random_anatomy, sample
from bundle.spatial import SpatialTransform
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
