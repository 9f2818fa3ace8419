"""Stored transforms and images, oblique and of unequal sides, that commands are tried on."""

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.images import write_image
from bundle.io.itk import image_to_itk, linear_from_itk, linear_to_itk, write_transform
from bundle.spatial import SpatialTransform
from scipy.ndimage import gaussian_filter
from tests.spatial.oblique import linear_map, oblique, smooth_ddf

FIELD = oblique((19, 23, 17), (2.2, 1.7, 2.9), (4, 7, -12), (13.0, -20.0, 29.0))
FIXED = oblique((11, 9, 13), (-1.6, 2.1, 1.3))
MOVING = oblique((27, 24, 30), (1.3, -1.7, 1.2), (-6, 15, 8), (9.0, -19.0, 33.0))


def picture(shape, seed):
    return gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5).astype(np.float32) * 100


def write_chain(path):
    """Write two deformable transforms, a linear one, an image, the fixed one and a series; the folder."""
    for n in range(2):
        transform = SpatialTransform(linear_map(n), smooth_ddf(FIELD.shape, n), FIELD, FIXED, MOVING)
        write_transform(transform, path / f"t{n}.h5")
    write_transform(SpatialTransform(linear_map(5), None, FIXED, FIXED, MOVING), path / "linear,5.h5")
    write_image(torch.from_numpy(picture(MOVING.shape, 9))[None], MOVING, path / "moving.nii.gz")
    write_image(torch.from_numpy(picture(FIXED.shape, 8))[None], FIXED, path / "fixed.nii.gz")
    series = nibabel.load(path / "moving.nii.gz")
    volumes = np.stack([picture(MOVING.shape, seed) for seed in range(3)], -1)
    image = nibabel.Nifti1Image(volumes, series.affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path / "series.nii.gz")
    return path


def composite(kind):
    """Linear parts, and a spline or two fields between or behind them; and the determinant of the linear ones."""
    first, second = linear_to_itk(linear_map(3)), linear_to_itk(linear_map(4))
    field = sitk.DisplacementFieldTransform(
        image_to_itk(np.moveaxis(smooth_ddf(FIELD.shape, 4).double().numpy(), 0, -1), FIELD, is_vector=True)
    )
    spline = sitk.BSplineTransformInitializer(image_to_itk(np.zeros(FIXED.shape, np.float32), FIXED), [3, 4, 3])
    spline.SetParameters((2 * np.random.default_rng(0).standard_normal(len(spline.GetParameters()))).tolist())
    parts = {
        "affine, spline": [first, spline],
        "spline, affine": [spline, first],
        "affine, fields": [first, second, field, field],
        "affine, field, affine, field": [first, field, second, field],
    }[kind]
    linear = [part for part in parts if part.IsLinear()]
    return sitk.CompositeTransform(parts), float(np.prod([np.linalg.det(linear_from_itk(p)[:3, :3]) for p in linear]))
