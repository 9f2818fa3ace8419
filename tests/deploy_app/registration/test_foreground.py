"""The body in images of any scale: densities below 10, as well as grey values of thousands."""

import numpy as np
import pytest
from panreg.registration.foreground import foreground
from synthetic import FIXED_AFFINE, FIXED_SHAPE, points_of, scene

SPACING = (2.5, 3.0, 4.0)


@pytest.mark.parametrize("exponent", [-3, -4, -7, -11, -40, -120])
def test_the_body_is_where_it_is_whatever_the_unit(exponent):
    """ITK's search for a threshold fails, or takes all for the body, where the values have a narrow range."""
    values = scene(points_of(FIXED_SHAPE, FIXED_AFFINE)).astype(np.float32)
    body = foreground(values * np.float32(2), SPACING)
    assert 0.2 < body.mean() < 0.8
    assert (foreground(values * np.float32(2.0**exponent), SPACING) == body).all()


def test_the_body_lies_where_it_does_on_the_coarse_grid_that_it_is_searched_on():
    values = np.zeros((60, 64, 68), np.float32)
    values[18:42, 18:46, 14:50] = 100  # the middles of its voxels of 4 mm
    body = foreground(values, (1.0, 1.0, 1.0))
    for axis, (first, last) in enumerate([(18, 42), (18, 46), (14, 50)]):
        line = np.moveaxis(body, axis, 0)[:, 32, 32]
        assert np.flatnonzero(line)[[0, -1]].tolist() == [first, last - 1]


def test_a_cleft_that_is_open_to_the_air_belongs_to_the_body():
    values = np.zeros((30, 32, 34), np.float32)
    values[5:25, 5:27, 5:29] = 100
    values[14:16, :, 5:18] = 0  # two voxels of air
    body = foreground(values, (4.0, 4.0, 4.0))
    assert body[14:16, 10:22, 9:18].all()
    assert not body[:4].any()
