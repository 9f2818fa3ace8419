"""What the bundle is given: values counted from air, which it draws where nothing was imaged."""

import numpy as np
import pytest
from conftest import ROOT
from panreg.registration.bundle_model import BundleModel
from panreg.registration.preparation import from_air
from panreg.settings import Settings
from synthetic import affine_of, points_of, scene, stack_of, write_series

SHAPE = (20, 40, 40)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A CT whose moving image ends in the middle of the fixed one."""
    folder = tmp_path_factory.mktemp("ct")
    fixed, moving = affine_of(np.eye(3), (3, 3, 4), (-60, -60, -40)), affine_of(np.eye(3), (3, 3, 4), (-60, -60, 5))
    made = []
    for name, affine in (("fixed", fixed), ("moving", moving)):
        values = (np.where(scene(points_of(SHAPE, affine)) > 150, 40.0, -1000)).astype(np.float32)
        paths = write_series(folder / name, values, affine, name=name, modality="CT")
        made.append((stack_of(paths, affine), values))
    return made


def test_beyond_the_moving_ct_the_montage_shows_air_and_not_water(pair):
    (fixed, _), (moving, _) = pair
    model, options = BundleModel(ROOT), {"affine": "none", "field_spacing_mm": 4.0}
    values = [from_air(v, s, Settings()) for s, v in pair]
    found = model.register(fixed, values[0], moving, values[1], options)
    picture = found.overview.astype(int)
    height, width = picture.shape[:2]
    warped = picture[: height // 3, 2 * width // 8 : 3 * width // 8]  # sagittal
    assert (warped.max(-1) < 25).mean() > 0.6  # water would be gray


def test_an_mr_is_given_as_it_is(pair):
    stack = pair[0][0]
    values = np.arange(5, dtype=np.float32)
    assert (from_air(values, stack, Settings(padding={"CT": 0, "MR": 0})) == values).all()
    assert (from_air(values, stack, Settings()) == values + 1024).all()
