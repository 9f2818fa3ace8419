"""A pair of images without a body: the moving one's values are its own voxels' places, so that a tool's image says
where the tool took each voxel from.

Linear interpolation of a place is that place. So whatever tool resamples the three images (x, y, z) answers with T(p),
in mm, at every voxel p of the fixed grid; it is compared with ours where T(p) lies inside the moving image.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io.images import write_image
from bundle.io.transforms import read_any
from bundle.spatial import Grid, SpatialTransform
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import oblique

AXES = "xyz"


FIXED = oblique((40, 36, 28), (-1.9, 1.4, 2.3), (11, -7, 16), (12, -21, 33))
MOVING = oblique((58, 50, 46), (1.7, 2.1, 1.8), (-8, 12, 5), (9, -25, 30))
FIELD = oblique((40, 40, 40), (2.9, 2.8, 2.7), (3, 0, -5), (12, -21, 33))


def along_the_axes(grid):
    """The same sides and spacing along the axes of space: where AFNI's forms hold."""
    affine = np.diag([*grid.spacing_mm, 1.0])
    affine[:3, 3] = (31.0, -17.5, 4.0)
    return Grid.from_ras(grid.shape, affine)


@dataclass(frozen=True)
class Pair:
    """Two grids, a transform between them with and without its field, and the files of both images."""

    folder: Path
    transform: SpatialTransform
    linear: SpatialTransform

    @property
    def fixed(self):
        return str(self.folder / "fixed.nii.gz")

    def moving(self, axis, ending=".nii.gz"):
        return str(self.folder / f"{axis}{ending}")

    @property
    def moving_grid(self):
        return self.transform.moving_grid

    @property
    def fixed_grid(self):
        return self.transform.fixed_grid

    def points(self):
        """Of the fixed image's voxels, (H, W, L, 3), mm, LPS."""
        return self.fixed_grid.to_points(indices(self.fixed_grid.shape))

    def targets(self, transform):
        """T(p), (H, W, L, 3), mm, LPS."""
        return self.points() + transform.displacement_field().movedim(0, -1).double().numpy()

    def read(self, path, kind=None):
        """T as our reader has it."""
        return read_any(path, self.fixed_grid, self.moving_grid, kind)


def indices(shape):
    return np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)


def make(folder, fixed=FIXED, moving=MOVING, field=FIELD):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (6, -4, 5), degrees=True).as_matrix() @ np.diag([1.03, 0.98, 1.01])
    turn[:3, 3] = moving.centre_mm - turn[:3, :3] @ fixed.centre_mm + (2.0, -1.5, 3.0)
    noise = [gaussian_filter(np.random.default_rng(i).standard_normal(field.shape), 5.0) for i in range(3)]
    ddf = torch.from_numpy(np.stack([2.0 * n / np.abs(n).max() for n in noise])).float()
    transform = SpatialTransform(turn, ddf, field, fixed, moving)
    places = moving.to_points(indices(moving.shape))
    for i, axis in enumerate(AXES):
        image = torch.from_numpy(places[None, ..., i]).float()
        for ending in (".nii.gz", ".nrrd"):
            write_image(image, moving, folder / f"{axis}{ending}")
    blank = gaussian_filter(np.random.default_rng(9).standard_normal(fixed.shape), 2.0)
    for ending in (".nii.gz", ".nrrd"):
        write_image(torch.from_numpy(blank)[None].float(), fixed, folder / f"fixed{ending}")
    return Pair(folder, transform, transform.without_field())


def distance(pair, answer, expected, rim=1):
    """The largest distance, mm, between a tool's answer and T(p), both (H, W, L, 3), where T(p) lies in the image.

    The outermost voxels of the fixed image, ``rim`` of them, are left out, too: tools differ on fields at their border.
    """
    index = pair.moving_grid.to_index(expected)
    inside = ((index >= 1) & (index <= np.array(pair.moving_grid.shape) - 2)).all(-1)
    inside &= np.pad(np.ones(np.array(inside.shape) - 2 * rim, bool), rim)
    assert inside.sum() > 1000
    return float(np.linalg.norm(np.asarray(answer, dtype=float) - expected, axis=-1)[inside].max())


def resampled(pair, by):
    """Gather a tool's answer: ``by(axis)`` is the path of the image that it made of that axis, or an array."""
    planes = [by(axis) for axis in AXES]
    return np.stack([voxels(p) if isinstance(p, str | Path) else np.asarray(p) for p in planes], -1)


def voxels(path):
    """Of an image in the order of its axes, (H, W, L)."""
    if str(path).endswith((".nii", ".nii.gz", ".mgz")):
        return np.squeeze(np.asarray(nibabel.load(path).dataobj))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)
