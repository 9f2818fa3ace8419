"""Which part of two heads the pre-alignment looks at, and what it finds where a neck turns against its head."""

import numpy as np
import pytest
import torch
from bundle.benchmark import measure
from bundle.commands import benchmark, equal_terms
from bundle.intensity import foreground
from bundle.phantom import random_anatomy, sample
from bundle.spatial import Grid
from bundle.transforms import MatchPaird, matching
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

SIDES_MM = (176.0, 176.0, 280.0)  # from side to side, from front to back, from top to bottom
TOP_MM = 110.0
ROLES = ("moving", "fixed")


def axes(order, flips, spacing_mm):
    """A grid in LPS over ``SIDES_MM`` whose axes run along those of space in some order and direction."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * spacing_mm * np.array(flips)
    shape = tuple(round(SIDES_MM[axis] / spacing) for axis, spacing in zip(order, spacing_mm))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


GRID = axes((0, 1, 2), (-1, -1, 1), (4.0, 4.0, 4.0))


RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ANATOMY = random_anatomy(0)


def head(grid, head_motion, neck_motion):
    """A synthetic head on a bright neck, each moved by itself: matrices from fixed to moving space, mm, LPS."""
    still = RAS @ np.linalg.inv(head_motion) @ RAS
    values = sample(ANATOMY, grid.shape, still @ RAS @ grid.affine)[0].astype(np.float64)
    points = grid.to_points(np.argwhere(np.ones(grid.shape)))
    below = (points - neck_motion[:3, 3]) @ np.linalg.inv(neck_motion[:3, :3]).T
    stripes = 1.5 + 0.5 * np.sin(below / (7, 9, 11)).prod(1)
    neck = (np.linalg.norm(below[:, :2] / (50, 60), axis=1) < 1) & (below[:, 2] < -70)
    values[(neck & (points[:, 2] < -70)).reshape(grid.shape)] = (stripes * values.max())[neck & (points[:, 2] < -70)]
    affine = torch.from_numpy(RAS @ grid.affine)
    return MetaTensor(torch.from_numpy(values).float()[None], affine=affine)


def moved(degrees=0.0, shift_mm=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def test_a_neck_that_turns_against_its_head_does_not_carry_the_head_along():
    motion = moved(4, (3, -5, 6))
    pair = {"moving": head(GRID, motion, moved(-8, (0, 28, -10))), "fixed": head(GRID, moved(), moved())}
    ball = np.random.default_rng(2).uniform(-60, 60, (500, 3))
    ball = ball[np.linalg.norm(ball, axis=1) < 60]
    errors = {}
    for top_mm in (None, 160.0):
        found = MatchPaird("rigid", 4.0, align_top_mm=top_mm)(dict(pair))["alignment"].numpy()
        apart = (ball @ found[:3, :3].T + found[:3, 3]) - (ball @ motion[:3, :3].T + motion[:3, 3])
        errors[top_mm] = np.linalg.norm(apart, axis=1).mean()
    assert errors[160.0] < 0.5
    assert errors[None] > 4 * errors[160.0]


@pytest.mark.parametrize(
    ("order", "flips", "spacing_mm"),
    [((0, 1, 2), (-1, -1, 1), (4, 4, 4)), ((2, 0, 1), (-1, 1, -1), (2.5, 5, 4)), ((1, 2, 0), (1, 1, -1), (4, 3.5, 8))],
)
def test_what_counts_is_the_upper_part_of_both_images_and_of_their_masks_however_they_are_stored(
    order, flips, spacing_mm, monkeypatch
):
    grid = axes(order, flips, spacing_mm)
    pair = {role: head(grid, moved(), moved()) for role in ROLES}
    pair["fixed_mask"] = (pair["fixed"] > 0).float()
    pair["moving_cost_mask"] = (pair["moving"] > pair["moving"].max() / 2).float()
    taken = []

    def note(*arguments, **more):
        taken.append((arguments, more))
        return np.eye(4)

    monkeypatch.setattr(matching, "align", note)
    MatchPaird("rigid", 4.0, align_top_mm=TOP_MM)(dict(pair))
    (moving, moving_grid, fixed, fixed_grid, _, _, fixed_mask), more = taken[0]
    step = spacing_mm[order.index(2)]
    shown = np.argwhere(foreground(pair["fixed"][0].as_tensor()).numpy())
    top = np.quantile(grid.to_points(shown)[:, 2], 0.999)
    for volume, its, key in (
        (moving, moving_grid, "moving"),
        (fixed, fixed_grid, "fixed"),
        (fixed_mask, fixed_grid, "fixed_mask"),
        (more["moving_ignored"], moving_grid, "moving_cost_mask"),
    ):
        assert volume.shape == its.shape
        height = its.to_points(np.argwhere(np.ones(its.shape)))[:, 2]
        assert height.min() == pytest.approx(top - TOP_MM, abs=1.5 * step)
        assert height.max() == pytest.approx(SIDES_MM[2] / 2, abs=step)
        index = np.rint(grid.to_index(its.to_points(np.argwhere(np.ones(its.shape))))).astype(int)
        there = pair[key][0].as_tensor().numpy()[tuple(index.T)]
        assert np.array_equal(volume.ravel(), there - pair[key].min().item() if key in ROLES else there)
    assert more["fixed_ignored"] is None


def test_an_image_that_is_lower_is_looked_at_as_a_whole(monkeypatch):
    pair = {role: head(GRID, moved(), moved()) for role in ROLES}
    taken = []
    monkeypatch.setattr(matching, "align", lambda *arguments, **_: taken.append(arguments) or np.eye(4))
    for top_mm in (None, 300.0):
        MatchPaird("rigid", 4.0, align_top_mm=top_mm)(dict(pair))
    assert all(np.array_equal(one, other) for one, other in zip(taken[0][::2][:2], taken[1][::2][:2]))
    assert all(one.is_close(other) for one, other in zip(taken[0][1:4:2], taken[1][1:4:2]))


@pytest.mark.parametrize("affine", ["none", "center"])
def test_an_alignment_by_the_headers_alone_looks_at_no_part_of_the_images(affine):
    pair = {"moving": head(GRID, moved(0, (0, 0, 40)), moved()), "fixed": head(GRID, moved(), moved())}
    assert np.array_equal(MatchPaird(affine, 4.0, align_top_mm=160.0)(pair)["alignment"], np.eye(4))


@pytest.mark.parametrize("weights", ["model", "any_contrast", "one_person", "hippocampus"])
@pytest.mark.parametrize("configs", [["inference"], ["train", "evaluate"]])
def test_weights_for_heads_have_the_workflows_look_at_the_upper_part(bundle_root, weights, configs):
    config = ConfigParser()
    config.read_config([str(bundle_root / "configs" / f"{name}.json") for name in configs])
    config["ckpt"] = str(bundle_root / "models" / f"{weights}.pt")
    transforms = config.get_parsed_content("preprocessing" if configs == ["inference"] else "validate#preprocessing")
    (match,) = [transform for transform in transforms.transforms if isinstance(transform, MatchPaird)]
    expected = None if weights == "hippocampus" else 160
    assert match.align_top_mm == expected
    if configs == ["inference"]:
        assert config.get_parsed_content("settings")["align_top_mm"] == expected


def test_a_benchmark_s_alignment_looks_as_far_down_as_it_is_told(monkeypatch):
    asked = []
    monkeypatch.setattr(measure, "MatchPaird", lambda *_, **options: asked.append(options) or dict)
    monkeypatch.setattr(measure, "ReadVolumed", lambda *_: dict)
    pair = dict.fromkeys(measure.IMAGE_KEYS, "x")
    measure.Common(align_top_mm=160.0).read(pair)
    assert asked == [{"align_top_mm": 160.0}]


@pytest.mark.parametrize(("module", "command"), [(benchmark, "accuracy"), (equal_terms, "curve")])
@pytest.mark.parametrize(("weights", "expected"), [(None, 160), ("hippocampus", None)])
def test_benchmarks_align_as_their_weights_ask(bundle_root, monkeypatch, tmp_path, module, command, weights, expected):
    class EnoughError(Exception):
        pass

    def note(_pairs, _methods, common, _cache):
        asked.append(common.align_top_mm)
        raise EnoughError

    asked = []
    monkeypatch.setattr(module, "compare", note)
    monkeypatch.setattr(module, "labelled_pairs", lambda *_: [])
    path = None if weights is None else str(bundle_root / "models" / f"{weights}.pt")
    with pytest.raises(EnoughError):
        getattr(module, command)("data", str(tmp_path / "out"), methods="pan", weights=path)
    assert asked == [expected]


@pytest.mark.parametrize("top_mm", [0, -5.0, "high"])
def test_a_height_that_is_none_is_refused(top_mm):
    with pytest.raises(ValueError, match="align_top_mm"):
        MatchPaird("rigid", align_top_mm=top_mm)
