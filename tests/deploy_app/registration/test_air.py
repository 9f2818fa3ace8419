"""What the bundle is told of a CT: its values, and the one that it draws where nothing was imaged."""

import numpy as np
import pytest
from application import ROOT
from panreg.registration.bundle_model import BundleModel, volume
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


def registered(pair, padding):
    options = {"affine": "none", "field_spacing_mm": 4.0}
    return BundleModel(ROOT).register(*(volume(stack, values, padding) for stack, values in pair), options)


def warped_in(picture):
    """The warped image of the sagittal row."""
    height, width = picture.shape[:2]
    return picture.astype(int)[: height // 3, 2 * width // 8 : 3 * width // 8]


@pytest.mark.slow
def test_beyond_the_moving_ct_the_montage_shows_air_and_not_water(pair):
    found = registered(pair, Settings().padding["CT"])
    assert (warped_in(found.overview).max(-1) < 25).mean() > 0.6
    as_water = registered(pair, 0)
    assert (warped_in(as_water.overview).max(-1) < 25).mean() < 0.6  # gray
    mean = {name: found.quality[name] for name in ("similarity_after", "max_displacement_mm", "foreground_dice")}
    assert {name: as_water.quality[name] for name in mean} == mean  # what is drawn there moves nothing
