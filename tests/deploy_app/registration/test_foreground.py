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
