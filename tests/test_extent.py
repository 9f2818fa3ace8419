"""Grids that are too large to work on, or next to nothing, are refused before anything is computed on them."""

import numpy as np
import pytest
from bundle.postprocessing import BuildTransformd
from bundle.spatial import Grid
from bundle.transforms import MatchPaird
from bundle.transforms.extent import check_extent, check_spacing


def test_the_largest_grids_that_images_ask_for_pass():
    check_extent(Grid((512, 512, 512), np.eye(4)))
    check_extent(Grid((512, 512, 1000), np.diag([0.7, 0.7, 1.0, 1.0])), 0.8)


@pytest.mark.parametrize("spacing_mm", [None, 0.9])
def test_a_grid_of_more_is_refused_with_its_size(spacing_mm):
    with pytest.raises(ValueError, match=r"voxels \(.* million\).*more than a registration works on, 268 million"):
        check_extent(Grid((512, 512, 1100), np.diag([1.0, -1.0, 1.0, 1.0])), spacing_mm)


@pytest.mark.parametrize("spacing_mm", [0, 0.0, -1.0, float("nan")])
def test_a_spacing_that_is_no_length_is_refused(spacing_mm):
    for refuse in (check_spacing, lambda s: MatchPaird(spacing_mm=s), lambda s: BuildTransformd(field_spacing_mm=s)):
        with pytest.raises(ValueError, match=r"spacing_mm (must be above 0 mm|takes a number)"):
            refuse(spacing_mm)


def test_a_spacing_that_leaves_next_to_nothing_of_the_image_is_refused():
    head = Grid((120, 120, 90), np.diag([2.0, 2.0, 2.0, 1.0]))
    check_extent(head, 75)
    check_extent(Grid((3, 2, 2), np.eye(4)))  # an image of its own voxels is what it is
    with pytest.raises(ValueError, match=r"Voxels of 100 mm leave 3×3×2 of the image: give a smaller --spacing_mm"):
        check_extent(head, 100, "--spacing_mm")
