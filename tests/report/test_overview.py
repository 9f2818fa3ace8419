import numpy as np
import pytest
import torch
from bundle.fields import identity_grid
from bundle.report import FOLDED, checkerboard, masked_jacobian, overview
from bundle.report.colours import colour_map
from bundle.spatial import Grid, SpatialTransform
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from tests.spatial.oblique import oblique

SHAPE = (13, 17, 11)
ON_GRID = {"spacing_mm": (2.2, -1.6, 3.1), "degrees": (12, -9, 17), "centre_mm": (9.0, -21.0, 33.0)}
GRID = oblique(SHAPE, **ON_GRID)
JACOBIAN_COLUMN = slice(6 * 250, 7 * 250)


def transform_of(ddf, fixed=None, field=None):
    fixed = fixed or GRID
    return SpatialTransform(np.eye(4), ddf, field or fixed, fixed, fixed)


def about_the_centre(factor):
    """The field of a scaling: determinant ``factor``³ everywhere."""
    index = identity_grid(torch.zeros(1, 3, *SHAPE))[0]
    return (factor - 1) * (index - (torch.tensor(SHAPE).view(3, 1, 1, 1) - 1) / 2)


def folded_in_the_middle():
    """No displacement but along axis 1 in the middle, which turns that axis around there."""
    ddf, middle = torch.zeros(3, *SHAPE), tuple(n // 2 for n in SHAPE)
    ddf[1, :, middle[1] - 1], ddf[1, :, middle[1] + 1] = 1.5, -1.5
    return ddf


def images(seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.uniform(0, 100, (1, *SHAPE)).astype(np.float32)) for _ in range(3)]


def images_on(grid):
    return [torch.zeros(1, *grid.shape)] * 3


def greens(picture):
    """Where a picture has the colour of folded voxels: (height, width), true or false."""
    return (np.abs(picture / 255.0 - to_rgb(FOLDED)) < 0.02).all(-1)


@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_the_jacobian_of_a_scaling_is_its_volume_factor_on_any_grid(factor):
    transform = transform_of(about_the_centre(factor))
    determinant = masked_jacobian(transform.fixed_grid.canonical(), transform)
    assert np.allclose(determinant, factor**3, atol=1e-4)
    assert not np.ma.is_masked(determinant)


def test_beyond_the_field_the_volume_is_kept():
    wide = oblique(tuple(n + 8 for n in SHAPE), **ON_GRID)
    determinant = masked_jacobian(wide, transform_of(about_the_centre(1.3), wide, GRID))
    assert np.allclose(determinant[4:-4, 4:-4, 4:-4], 1.3**3, atol=1e-4)
    assert np.allclose(determinant[:3], 1)


def test_a_linear_transform_shows_no_change_of_volume():
    assert (masked_jacobian(GRID, transform_of(None)) == 1).all()


def test_folded_voxels_are_masked_and_no_others():
    masked = np.ma.getmaskarray(masked_jacobian(GRID, transform_of(folded_in_the_middle())))
    middle = SHAPE[1] // 2
    assert masked[:, middle].all()
    assert masked.sum() == SHAPE[0] * SHAPE[2]


def test_the_determinant_is_that_of_a_voxel_of_the_field_and_none_between():
    transform = transform_of(folded_in_the_middle())
    shown = masked_jacobian(GRID.centred([2 * n for n in SHAPE], GRID.spacing_mm / 2), transform)
    known = np.unique(transform.jacobian.numpy().round(4))
    assert len(known) > 2
    assert set(np.unique(shown.data.round(4))) == set(known)


def test_what_the_moving_image_shows_beyond_the_fixed_one_does_not_darken_it():
    wide = oblique(tuple(n + 8 for n in SHAPE), **ON_GRID)
    fixed, inside, _ = images()
    moving = torch.full((1, *wide.shape), 1000.0)
    moving[:, 4:-4, 4:-4, 4:-4] = inside
    picture = overview(fixed, moving, inside, SpatialTransform(np.eye(4), None, GRID, GRID, wide))
    aligned, warped = (picture[26:764, 28 + n * 246 : 272 + n * 246].astype(int) for n in (1, 2))
    assert np.abs(aligned - warped).max() <= 1


def test_a_fold_is_green_in_the_jacobian_column_alone():
    green = greens(overview(*images(), transform_of(folded_in_the_middle())))
    assert green[:, JACOBIAN_COLUMN].sum() > 50
    assert green.sum() == green[:, JACOBIAN_COLUMN].sum()
    assert not greens(overview(*images(), transform_of(about_the_centre(1.1)))).any()


def test_the_picture_has_the_size_that_it_promises_and_no_blank_panel():
    picture = overview(*images(), transform_of(about_the_centre(1.2)))
    assert (picture.shape, picture.dtype) == ((820, 2000, 3), np.uint8)
    assert (picture[:750].reshape(3, 250, 8, 250, 3).std((1, 3, 4)) > 5).all()


def test_a_checkerboard_takes_cubes_of_both_images_in_turn():
    board = checkerboard(np.zeros(SHAPE), np.ones(SHAPE), tiles=4)  # cubes of 5
    assert (board[:5, :5, :5] == 0).all()
    assert (board[5:10, :5, :5] == 1).all()
    assert (board[:5, 5:10, :5] == 1).all()
    assert (board[:5, :5, 5:10] == 1).all()
    assert (board[5:10, 5:10, :5] == 0).all()
    assert 0.4 < board.mean() < 0.6


def test_a_checkerboard_of_one_image_is_the_image():
    image = np.random.default_rng(1).normal(size=SHAPE)
    assert (checkerboard(image, image) == image).all()


@pytest.mark.parametrize("name", ["gray", "coolwarm", "berlin", "PuOr_r"])
def test_the_colours_are_those_of_matplotlib(name):
    assert np.abs(colour_map(name) / 255 - colormaps[name](np.arange(256))[:, :3]).max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize("name", ["fixed", "warped"])
def test_the_panels_show_the_middle_planes_the_right_way_round(name):
    ramp = torch.arange(SHAPE[2], dtype=torch.float32).expand(1, *SHAPE) * 7  # upwards: the third axis points there
    column = {"fixed": 0, "warped": 2}[name]
    panel = overview(ramp, ramp, ramp, transform_of(None))[26:270, 28 + column * 246 : 272 + column * 246, 0]
    rows = np.flatnonzero(panel.max(1))
    assert panel[rows[0]].mean() > 200  # the top is the brightest
    assert panel[rows[-1]].mean() < 40


@pytest.mark.parametrize(
    ("axis", "row", "horizontal"), [(0, 1, True), (0, 2, True), (1, 0, True), (1, 2, False), (2, 0, False)]
)
def test_left_is_on_the_right_and_the_nose_on_the_left_as_on_the_page(axis, row, horizontal):
    grid = Grid((24, 30, 20), np.diag([-2.0, -2.0, 2.0, 1.0]))  # upwards: towards right, anterior, superior
    ramp = torch.arange(grid.shape[axis], dtype=torch.float32)
    image = ramp.view([-1 if a == axis else 1 for a in range(3)]).expand(1, *grid.shape).contiguous()
    picture = overview(image, image, image, transform_of(None, grid))
    panel = picture[26 + row * 246 : 270 + row * 246, 28 + 2 * 246 : 272 + 2 * 246, 0].astype(float)
    shown = panel.max(0 if horizontal else 1)
    filled = np.flatnonzero(shown)
    first, last = shown[filled[0] : filled[0] + 20].mean(), shown[filled[-1] - 20 : filled[-1]].mean()
    assert first > last + 100  # right, anterior and superior are at the left or at the top


def test_the_lines_of_the_grid_lie_as_the_images_do():
    grid = Grid((24, 30, 20), np.diag([-2.0, -2.0, 2.0, 1.0]))
    ddf = torch.zeros(3, *grid.shape)
    index = torch.arange(24.0)
    ddf[0] = (3 * torch.exp(-((index - 19) ** 2) / 8)).view(-1, 1, 1)  # only towards the patient's right
    still, moved = (overview(*images_on(grid), transform_of(field, grid)) for field in (torch.zeros_like(ddf), ddf))
    changed = np.abs(moved.astype(int) - still)[26 + 2 * 246 : 270 + 2 * 246, 28 + 7 * 246 : 272 + 7 * 246].sum((0, 2))
    assert changed[:122].sum() > 10 * changed[122:].sum()


def test_letters_on_the_fixed_image_say_what_is_where():
    black = torch.zeros(1, *SHAPE)
    picture = overview(black, black, black, transform_of(None))
    first = picture[26:764, 28:272].reshape(3, 246, 244, 3)[:, :244].astype(int)
    letters = [first[:, 113:131, :18], first[:, 113:131, -18:], first[:, :18, 113:131], first[:, -18:, 113:131]]
    for row, shown in enumerate(first):
        assert all((letter[row] > 200).any() for letter in letters)
        assert (shown > 200).sum() == sum((letter[row] > 200).sum() for letter in letters)
    left, right, top, bottom = (letter.max(-1) for letter in letters)
    assert (left[1] == left[2]).all()  # R in the coronal and the axial plane, and A in the sagittal one
    assert (left[0] != left[1]).any()
    assert (right[1] == right[2]).all()  # L
    assert (top[0] == top[1]).all()  # S, and A above the axial plane
    assert (top[2] == left[0]).all()
    assert (bottom[0] == bottom[1]).all()  # I, and P below the axial plane
    assert (bottom[2] == right[0]).all()
