"""Pairs with a known transform on oblique, anisotropic grids of unequal sides, and their pages."""

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.report import judge, page_content, write_page
from bundle.spatial import Grid, SpatialTransform
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import oblique

FIXED_SHAPE, MOVING_SHAPE = (40, 52, 30), (36, 30, 48)
QUALITY = {
    "similarity_before": 0.3,
    "similarity_aligned": 0.4,
    "similarity_after": 0.6,
    "foreground_similarity": 0.9,
    "folding_percent": 0.0,
}
BOUNDS = {"folding_percent": (None, 0.5)}, {"foreground_similarity": (0.8, None)}


def blobs(shape, seed, sigma=3.0):
    """A smooth image with structure everywhere, 100 to 900."""
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (500 + 400 * np.clip(image / np.abs(image).max() * 1.5, -1, 1)).astype(np.float32)


class Pair:
    """Images, labels and the transform between them.

    Args:
        linear: without a field.
        regions: labels in each map.
        fixed_shape: of the fixed image.
    """

    def __init__(self, linear=False, regions=5, fixed_shape=FIXED_SHAPE):
        self.fixed_grid = oblique(fixed_shape, (-1.6, 1.4, 2.3), (11, -8, 14), (7.0, -11.0, 23.0))
        moving = oblique(MOVING_SHAPE, (2.1, -2.4, 1.7), (-6, 9, 5), (9.0, -8.0, 21.0))
        self.moving_grid = Grid(moving.shape, moving.affine[:, [2, 0, 1, 3]])  # the axes in another order
        self.fixed, self.moving = blobs(fixed_shape, 0), blobs(MOVING_SHAPE, 1)
        self.fixed_label, self.moving_label = (self._regions(image, regions) for image in (self.fixed, self.moving))
        alignment = np.eye(4)
        alignment[:3, :3] = Rotation.from_euler("xyz", (4, -3, 6), degrees=True).as_matrix() * 1.05
        alignment[:3, 3] = (2.0, -3.0, 1.5)
        rng = np.random.default_rng(2)
        field = [gaussian_filter(rng.normal(size=fixed_shape), 5) for _ in range(3)]
        ddf = torch.from_numpy(np.stack([3.5 * u / np.abs(u).max() for u in field]).astype(np.float32))
        self.transform = SpatialTransform(
            alignment, None if linear else ddf, self.fixed_grid, self.fixed_grid, self.moving_grid
        )

    @staticmethod
    def _regions(image, count):
        edges = np.quantile(image, np.linspace(0, 1, count + 2)[1:-1])
        return 10 * np.digitize(image, edges).astype(np.int64)

    def content(self, labelled=True):
        tensors = [torch.from_numpy(image)[None] for image in (self.fixed, self.moving)]
        labels = [torch.from_numpy(label)[None] for label in (self.fixed_label, self.moving_label)]
        warped = self.transform.resample(tensors[1])
        if not labelled:
            return page_content(*tensors, warped, self.transform)
        warped_label = self.transform.resample(labels[1], mode="nearest")
        return page_content(*tensors, warped, self.transform, *labels, warped_label)

    def write(self, path, quality=None, labelled=True, **summary):
        quality = QUALITY | (quality or {})
        judgement = judge(quality, *BOUNDS)
        summary = {"moving": "/data/moving.nii.gz", "fixed": "/data/fixed.nii.gz"} | summary
        summary |= {name: value if np.isfinite(value) else None for name, value in quality.items()}
        write_page(path, self.content(labelled), summary, judgement)
        return path

    # what ITK makes of them
    def itk_image(self, role):
        grid = self.fixed_grid if role == "fixed" else self.moving_grid
        image = sitk.GetImageFromArray(getattr(self, role).transpose(2, 1, 0))
        return placed(image, grid)

    def itk_transform(self, stage):
        """From fixed to moving: nothing by the headers, A aligned, A (p + u(p)) warped."""
        if stage == "moving":
            return sitk.Transform(3, sitk.sitkIdentity)
        linear = sitk.AffineTransform(self.transform.alignment[:3, :3].ravel().tolist(), [0.0] * 3)
        linear.SetTranslation(self.transform.alignment[:3, 3].tolist())
        if stage == "aligned" or self.transform.ddf is None:
            return linear
        return sitk.CompositeTransform([linear, sitk.DisplacementFieldTransform(self.itk_field())])

    def itk_jacobian(self):
        """ITK's filter leaves the direction of the axes out: it is given the components along them."""
        along = np.einsum("ji,jhwl->ihwl", self.fixed_grid.direction, self.transform.field_mm.numpy())
        image = sitk.GetImageFromArray(np.ascontiguousarray(along.transpose(3, 2, 1, 0)), isVector=True)
        image.SetSpacing(self.fixed_grid.spacing_mm.tolist())
        return sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).transpose(2, 1, 0)

    def itk_field(self):
        """U, mm, LPS, at the fixed image's voxels."""
        mm = self.transform.field_mm.numpy().transpose(3, 2, 1, 0)
        return placed(sitk.GetImageFromArray(np.ascontiguousarray(mm), isVector=True), self.fixed_grid)


def placed(image, grid):
    image.SetOrigin(grid.origin_mm.tolist())
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    return image
