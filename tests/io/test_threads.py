from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.headers import read_header
from bundle.io.itk import linear_from_itk, write_transform
from bundle.spatial import Grid, SpatialTransform


def test_headers_read_in_other_threads_leave_a_transform_whole(tmp_path):
    """ITK's HDF5 is asked about every file that is opened, and is not made for threads; unguarded, this fails."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 9, 10), np.float32), np.eye(4)), tmp_path / "image.nii.gz")

    grid = Grid((3, 4, 5), np.eye(4))
    small = SpatialTransform(np.eye(4), None, grid, grid, grid)

    def work(number):
        if number % 2:
            return read_header(tmp_path / "image.nii.gz").grid.shape
        write_transform(small, tmp_path / f"{number}.h5")
        return number

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(200)))
    assert results == [(8, 9, 10) if number % 2 else number for number in range(200)]
    for number in range(0, 200, 2):
        assert linear_from_itk(sitk.ReadTransform(str(tmp_path / f"{number}.h5"))) == pytest.approx(np.eye(4))
