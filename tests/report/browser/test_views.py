"""Each control changes the picture, to what ITK makes of the same pair."""

import time

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from matplotlib import colormaps
from selenium.webdriver.common.by import By

STAGES = {"m": "moving", "a": "aligned", "w": "warped"}
TILES = 8
RATIO, SIGNED = "PuOr_r", "berlin"


def points_of(content, fractions):
    """Where fractions of the volume are, mm, LPS."""
    return content.grid.to_points(fractions * content.grid.shape - 0.5)


def gray(pair, content, role, points):
    """The gray, 0 to 255, that an image has at points in fixed space by ITK; NaN where nothing of it is."""
    image = sitk.Cast(pair.itk_image("fixed" if role == "fixed" else "moving"), sitk.sitkFloat64)
    transform = pair.itk_transform("moving" if role == "fixed" else role)
    values = []
    for point in points:
        there = transform.TransformPoint(point.tolist())
        inside = image.TransformPhysicalPointToContinuousIndex(there)
        within = all(0 <= i <= n - 1 for i, n in zip(inside, image.GetSize()))
        values.append(image.EvaluateAtPhysicalPoint(there, sitk.sitkLinear) if within else np.nan)
    low, high = window(content, role)
    return np.clip((np.array(values) - low) / (high - low), 0, 1) * 255


def window(content, role):
    """The intensities drawn black and white, from the header of the volume."""
    from tests.report.test_volumes import opened

    header = opened(content.volumes[role]).dataobj
    return header.inter, header.inter + 255 * header.slope


def alike(found, expected):
    """The median difference in grays, where ITK knows the value; and of the same to another image's, for comparison."""
    known = np.isfinite(expected)
    assert known.sum() > 300
    return np.median(np.abs(found[known] - expected[known]))


def sampled(page, side="right"):
    """Pixels (n, 4) on a lattice over the three planes, and their fractions of the volume (n, 3)."""
    pixels, planes = page.pixels(side), page.planes(side)
    assert sorted(planes) == [0, 1, 2]
    places, fractions = (np.concatenate(parts) for parts in zip(*planes.values()))
    return pixels[places[:, 1], places[:, 0]], fractions


@pytest.mark.parametrize("key", STAGES)
def test_side_by_side_shows_fixed_and_the_image_chosen(page, pair, content, key):
    page.press("1", key)
    pixels, fractions = sampled(page, "left")
    assert alike(pixels[:, 0], gray(pair, content, "fixed", points_of(content, fractions))) < 3
    pixels, fractions = sampled(page, "right")
    points = points_of(content, fractions)
    differences = {role: alike(pixels[:, 0], gray(pair, content, role, points)) for role in STAGES.values()}
    assert differences.pop(STAGES[key]) < 1.5
    assert min(differences.values()) > 4
    assert (pixels[:, 0] == pixels[:, 1]).mean() > 0.99


def test_a_checkerboard_takes_tiles_of_both_in_turn(page, pair, content):
    page.press("4", "w")
    pixels, fractions = sampled(page)
    points = points_of(content, fractions)
    index = fractions * content.grid.shape - 0.5
    sizes = index * content.grid.spacing_mm / ((np.array(content.grid.shape) * content.grid.spacing_mm).max() / TILES)
    clear = (np.abs(sizes - np.rint(sizes)) > 0.25).all(1)  # away from where one tile meets another
    tiles = np.floor(sizes).sum(1) % 2
    images = {tile: gray(pair, content, role, points) for tile, role in ((0, "fixed"), (1, "warped"))}
    for tile in (0, 1):
        here = clear & (tiles == tile)
        assert np.nanmedian(np.abs(pixels[here, 0] - images[tile][here])) < 4
        assert np.nanmedian(np.abs(pixels[here, 0] - images[1 - tile][here])) > 20


def test_the_difference_has_the_colours_of_its_bar(page, pair, content):
    page.press("5", "w")
    pixels, fractions = sampled(page)
    points = points_of(content, fractions)
    difference = gray(pair, content, "warped", points) - gray(pair, content, "fixed", points)
    known = np.isfinite(difference)
    levels = np.clip(np.rint(128 + difference[known]), 1, 255).astype(int)
    expected = colormaps[SIGNED](levels)[:, :3] * 255
    assert np.median(np.abs(pixels[known, :3] - expected)) < 4
    assert np.median(np.abs(pixels[known, :3] - expected[::-1])) > 12


def test_swipe_shows_fixed_left_of_its_line_and_the_other_right_of_it(page):
    page.press("2", "w", *">" * 4)  # 70 %
    shot, (left, top, width, height) = page.shot()
    fixed, warped = page.pixels("left"), page.pixels("right")
    assert (fixed.shape, warped.shape) == ((height, width, 4), (height, width, 4))
    seen = shot[top : top + height, left : left + width, :3]
    line = round(0.7 * width)
    for there, image, other in ((slice(0, line - 3), fixed, warped), (slice(line + 3, width), warped, fixed)):
        assert np.abs(seen[:, there] - image[:, there, :3]).mean() < 1
        assert np.abs(seen[:, there] - other[:, there, :3]).mean() > 5


def test_flicker_shows_both_in_turn_and_by_itself(page):
    page.press("3", "w")
    page.driver.execute_script("document.getElementById('flickering').checked = false")
    page.driver.execute_script("state.front = 'left'; turnOver()")
    fixed, warped = page.pixels("left")[..., :3], page.pixels("right")[..., :3]
    for image in (warped, fixed, warped):
        shot, (left, top, width, height) = page.shot()
        assert np.abs(shot[top : top + height, left : left + width, :3] - image).mean() < 1
        page.press(" ")
    front = "return document.getElementById('panes').dataset.front"
    page.press("f")
    seen, end = set(), time.monotonic() + 20
    while len(seen) < 2 and time.monotonic() < end:
        seen.add(page.driver.execute_script(front))
        time.sleep(0.05)
    assert seen == {"left", "right"}


def test_the_jacobian_lies_over_the_image_in_the_colours_of_its_bar(page, pair, content):
    page.press("1", "w")
    plain, fractions = sampled(page)
    page.press("j")
    painted, _ = sampled(page)
    determinant = pair.itk_jacobian()
    index = np.rint(pair.fixed_grid.to_index(points_of(content, fractions))).astype(int)
    inner = ((index >= 2) & (index < np.array(pair.fixed_grid.shape) - 2)).all(1)
    values = determinant[tuple(np.clip(index, 0, np.array(pair.fixed_grid.shape) - 1).T)]
    change = np.log(values) / np.log(4)
    levels = (1 + np.rint((np.clip(change, -1, 1) + 1) / 2 * 253)).astype(int)
    expected = 0.4 * plain[:, :3] + 0.6 * colormaps[RATIO](levels)[:, :3] * 255
    inner &= plain[:, 0] > 40  # black in neither image
    coloured, clear = inner & (np.abs(np.log(values)) > 0.15), inner & (np.abs(np.log(values)) < 0.05)
    assert min(coloured.sum(), clear.sum()) > 100
    assert np.median(np.abs(painted[coloured, :3] - expected[coloured])) < 6
    assert np.median(np.abs(painted[clear] - plain[clear])) < 2
    assert "1/4" in page.text("legend")
    mirrored = 0.4 * plain[:, :3] + 0.6 * colormaps[RATIO](255 - levels)[:, :3] * 255
    assert np.median(np.abs(painted[coloured, :3] - mirrored[coloured])) > 10


def test_the_deformed_grid_runs_where_itks_field_takes_it(page, pair, content):
    page.press("1", "w", "g")
    lines, planes = page.pixels(lines=True)[..., 3] > 0, page.planes()
    step = page.driver.execute_script("return gridStep()")
    field = sitk.DisplacementFieldTransform(pair.itk_field())
    for plane, (places, fractions) in planes.items():
        normal = [2, 1, 0][plane]
        across, up = (axis for axis in range(3) if axis != normal)
        hits = {0.0: [], 0.5: []}  # on the lines, and halfway between them
        spacing = content.grid.spacing_mm
        strides = [max(1, round(step / spacing[axis])) for axis in (across, up)]
        for shift in hits:
            for at in np.arange(1, 6):
                voxel = np.full(3, fractions[0, normal] * content.grid.shape[normal] - 0.5)
                voxel[across] = (2 + 2 * (at % 2) + shift) * strides[0]
                voxel[up] = content.grid.shape[up] * at / 6 // strides[1] * strides[1] + strides[1] / 2
                moved = content.grid.to_index(field.TransformPoint(content.grid.to_points(voxel).tolist()))
                x, y = on_canvas(moved, places, fractions, content, across, up)
                hits[shift].append(lines[y - 1 : y + 2, x - 1 : x + 2].any())
        assert np.mean(hits[0.0]) == 1
        assert np.mean(hits[0.5]) < 0.5


def on_canvas(voxel, places, fractions, content, across, up):
    """The pixel of a plane at which a voxel is drawn, from the pixels whose fractions are known."""
    wanted = (np.asarray(voxel) + 0.5) / content.grid.shape
    x = np.interp(*ascending(wanted[across], fractions[:, across], places[:, 0]))
    y = np.interp(*ascending(wanted[up], fractions[:, up], places[:, 1]))
    return round(x), round(y)


def ascending(value, along, places):
    order = np.argsort(along)
    return value, along[order], places[order]


@pytest.mark.parametrize("key", STAGES)
def test_contours_run_between_the_labels_as_itk_resamples_them(page, pair, content, key):
    page.press("1", key, "l")
    pixels, planes = page.pixels(lines=True), page.planes()
    label = pair.itk_image("moving")
    label = sitk.GetImageFromArray(pair.moving_label.transpose(2, 1, 0).astype(np.float32))
    label.CopyInformation(pair.itk_image("moving"))
    transform = pair.itk_transform(STAGES[key])

    def label_at(voxel):
        there = transform.TransformPoint(content.grid.to_points(voxel).tolist())
        index = label.TransformPhysicalPointToContinuousIndex(there)
        if any(not -0.5 <= i < n - 0.5 for i, n in zip(index, label.GetSize())):
            return 0
        nearest = [int(np.floor(i + 0.5)) for i in index]
        return label[tuple(min(max(i, 0), n - 1) for i, n in zip(nearest, label.GetSize()))]

    orange = (np.abs(pixels[..., :3] - (230, 159, 0)) < 40).all(-1) & (pixels[..., 3] > 100)
    places, fractions = planes[0]
    found = {True: [], False: []}
    slice_ = round(fractions[0, 2] * content.grid.shape[2] - 0.5)
    for i in range(4, content.grid.shape[0] - 5, 3):
        for j in range(4, content.grid.shape[1] - 5, 4):
            differ = label_at((i, j, slice_)) != label_at((i + 1, j, slice_))
            x, y = on_canvas((i + 0.5, j, slice_), places, fractions, content, 0, 1)
            found[differ].append(orange[y, x - 1 : x + 2].any())
    assert min(map(len, found.values())) > 15
    assert np.mean(found[True]) > 0.95
    assert np.mean(found[False]) < 0.15


def test_patients_left_is_on_the_right_until_it_is_turned_off(page, content):
    for radiological in (True, False):
        planes = page.planes()
        for plane, axis, sign in ((0, 0, 1), (1, 0, 1)):  # x to the right: LPS x, towards the patient's left
            places, fractions = planes[plane]
            points = points_of(content, fractions)
            slope = np.polyfit(places[:, 0], points[:, axis], 1)[0]
            assert np.sign(slope) == (sign if radiological else -sign)
        for plane, axis, sign in ((0, 1, 1), (1, 2, -1), (2, 2, -1)):  # downwards: posterior; inferior
            places, fractions = planes[plane]
            slope = np.polyfit(places[:, 1], points_of(content, fractions)[:, axis], 1)[0]
            assert np.sign(slope) == sign
        page.press("r")


def test_voxels_are_drawn_as_wide_and_high_as_they_are(page, content):
    for places, fractions in page.planes().values():
        points = points_of(content, fractions)
        row, column = places[:, 1] == places[0, 1], places[:, 0] == places[0, 0]
        mm_per_pixel = [
            np.linalg.norm(np.ptp(points[line], axis=0)) / np.ptp(places[line, axis])
            for line, axis in ((row, 0), (column, 1))
        ]
        assert np.isclose(*mm_per_pixel, rtol=0.03)


def test_the_rendering_is_drawn_when_it_is_asked_for(page):
    before = page.pixels()
    page.press("d")
    after = page.pixels()
    (box,) = page.driver.execute_script(
        "return right.screenSlices.filter((tile) => tile.axCorSag > 2).map((tile) => tile.leftTopWidthHeight)"
    )
    left, top, width, height = (round(v) for v in box)
    there = after[top : top + height, left : left + width, :3]
    assert (there > 40).any(-1).mean() > 0.1
    page.driver.execute_script("right.setRenderAzimuthElevation(20, 60)")
    turned = page.pixels()[top : top + height, left : left + width, :3]
    assert np.abs(turned - there).mean() > 2
    page.press("d")
    assert (page.pixels() == before).mean() > 0.99


def test_a_click_on_a_control_does_what_its_key_does(page):
    for name in ("mode", "other", "overlay"):
        controls = page.driver.find_elements(By.CSS_SELECTOR, f"input[name={name}]")
        assert len(controls) == {"mode": 5, "other": 3, "overlay": 4}[name]
        for control in controls:
            control.click()
            assert page.driver.execute_script(f"return state.{name}") == control.get_attribute("value")
