import numpy as np
import pytest
from panreg.objects.segmentation.contours import Contour, fill

TURN = np.linspace(0, 2 * np.pi, 300, endpoint=False)
ROWS, COLUMNS = 60, 70


def circle(i, j, radius):
    return np.column_stack([i + radius * np.cos(TURN), j + radius * np.sin(TURN)])


def disc(i, j, radius):
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    return (columns - i) ** 2 + (rows - j) ** 2 < radius**2


BIG, SMALL, APART = (30.2, 28.1, 20.3), (30.2, 28.1, 9.6), (60.0, 10.0, 5.5)


def test_a_contour_encloses_the_pixels_whose_centres_are_inside():
    assert (fill([Contour(circle(*BIG))], ROWS, COLUMNS) == disc(*BIG)).all()


@pytest.mark.parametrize("is_xor", [False, True])
@pytest.mark.parametrize("turned", [1, -1])
def test_a_contour_inside_another_is_a_hole_and_one_in_that_an_island_whatever_order_and_direction(is_xor, turned):
    island = (30.2, 28.1, 4.2)
    contours = [Contour(circle(*c)[::turned], is_xor) for c in (island, APART, SMALL, BIG)]
    expected = (disc(*BIG) & ~disc(*SMALL)) | disc(*APART) | disc(*island)
    assert (fill(contours, ROWS, COLUMNS) == expected).all()


def test_a_keyhole_leaves_its_inner_part_out():
    outer, inner = circle(*BIG), circle(*SMALL)[::-1]
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    assert (fill([Contour(keyhole)], ROWS, COLUMNS) == (disc(*BIG) & ~disc(*SMALL))).all()


def test_contours_that_overlap_in_part_are_united_unless_declared_as_xor():
    first, second = (30.0, 28.0, 20.3), (45.0, 28.0, 15.3)
    for is_xor, expected in ((False, disc(*first) | disc(*second)), (True, disc(*first) ^ disc(*second))):
        contours = [Contour(circle(*c), is_xor) for c in (first, second)]
        assert (fill(contours, ROWS, COLUMNS) == expected).all()


@pytest.mark.parametrize("noise", [0, 1e-6, -1e-6])
def test_an_outline_through_pixel_centres_belongs_to_the_region_that_of_a_hole_too(noise):
    outer = np.array([[5, 5], [15, 5], [15, 12], [5, 12]]) + noise
    hole = np.array([[7, 7], [12, 7], [12, 10], [7, 10]]) + noise
    expected = np.zeros((20, 20), bool)
    expected[5:13, 5:16] = True
    expected[8:10, 8:12] = False
    assert (fill([Contour(outer), Contour(hole)], 20, 20) == expected).all()


def test_a_point_and_a_line_are_the_pixels_that_they_lie_on():
    found = fill([Contour(np.array([[3.0, 4.0]])), Contour(np.array([[8.0, 8.0], [8.0, 12.0]]))], 20, 20)
    assert {(3, 4), *((8, j) for j in range(8, 13))} == set(zip(*found.nonzero()[::-1]))


def test_what_lies_beyond_the_plane_is_cut_off():
    assert (fill([Contour(circle(0, 0, 9.5))], ROWS, COLUMNS) == disc(0, 0, 9.5)).all()
    assert not fill([Contour(circle(-50, -50, 9.5))], ROWS, COLUMNS).any()
