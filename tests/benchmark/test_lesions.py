"""A lesion in one of two images: where it lies, and what is compared with what."""

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.benchmark.lesions import draw_lesion, field_errors, lesions_markdown, measure_lesions
from bundle.commands.benchmark import lesions
from bundle.data import draw_pairs, open_dataset
from bundle.io.itk import write_transform
from bundle.spatial import Grid, SpatialTransform

OBLIQUE = Grid(
    (50, 44, 30), np.array([[-1.9, 0.4, 0.6, 40.0], [0.4, 2.5, -0.3, -50.0], [-0.3, 0.2, 3.9, -30.0], [0, 0, 0, 1.0]])
)


def shift(*mm, grid=OBLIQUE):
    alignment = np.eye(4)
    alignment[:3, 3] = mm
    return SpatialTransform(alignment, None, grid, grid, grid)


def head(grid=OBLIQUE):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    away = np.linalg.norm(grid.to_points(index) - grid.centre_mm, axis=-1)
    return torch.from_numpy(np.where(away < 40, 100 + away, 0)).float()[None]


@pytest.mark.parametrize("seed", range(4))
def test_a_lesion_is_a_ball_in_space_brighter_than_the_rest(seed):
    image = head()
    found, mask = draw_lesion(image, OBLIQUE, seed)
    inside = mask[0] > 0
    points = OBLIQUE.to_points(inside.nonzero().numpy())
    reach = np.linalg.norm(points - points.mean(0), axis=1).max()
    volume = len(points) * abs(np.linalg.det(OBLIQUE.affine[:3, :3]))
    assert 12 < reach < 23
    assert 4 / 3 * math.pi * 13**3 < volume < 4 / 3 * math.pi * 23**3
    assert volume == pytest.approx(4 / 3 * math.pi * reach**3, rel=0.25)
    assert found[0][inside].mean() > np.percentile(image, 97)
    assert torch.equal(found[0][~inside], image[0][~inside])
    again, other = draw_lesion(image, OBLIQUE, seed)[0], draw_lesion(image, OBLIQUE, seed + 9)[0]
    assert torch.equal(found, again)
    assert not torch.equal(found, other)


def test_the_error_is_the_distance_in_mm_where_voxels_count():
    counts = torch.zeros(OBLIQUE.shape, dtype=torch.bool)
    counts[3:9, 4:8, 5:7] = True
    ddf = torch.zeros(3, *OBLIQUE.shape)
    ddf[:, 20:] = 50  # elsewhere
    bent = SpatialTransform(np.eye(4), ddf, OBLIQUE, OBLIQUE, OBLIQUE)
    errors = field_errors(shift(0, 0, 0), [shift(2, -1, 2), bent], counts, OBLIQUE)
    assert errors == pytest.approx([3.0, 0.0], abs=1e-4)


def test_each_pair_is_registered_as_it_is_with_a_lesion_and_with_its_mask(small_dataset):
    pairs = draw_pairs(open_dataset(str(small_dataset), "training"), 2, 0)
    calls = []

    def register(moving, fixed, folder, **options):
        calls.append(
            (moving, fixed, options, {role: sitk.ReadImage(str(p)) for role, p in (("m", moving), ("f", fixed))})
        )
        if options:
            (role, path), *_ = options.items()
            clean, spoiled = (sitk.GetArrayFromImage(calls[n][3][role[0]]) for n in (-3, -1))
            mask = sitk.GetArrayFromImage(sitk.ReadImage(path))
            assert (clean != spoiled).any()
            assert not (clean != spoiled)[mask == 0].any()
        folder.mkdir()
        grid = Grid((32, 40, 32), np.eye(4))
        write_transform(shift({0: 0, 1: 4, 2: 1}[(len(calls) - 1) % 3], 0, 0, grid=grid), folder / "t.tfm")
        return folder / "t.tfm"

    rows = measure_lesions(pairs, 0, register)
    assert [sorted(options) for _, _, options, _ in calls] == [
        [],
        [],
        ["fixed_cost_mask"],
        [],
        [],
        ["moving_cost_mask"],
    ]
    assert [(call[0], call[1]) for call in calls[::3]] == [(Path(p["moving"]), Path(p["fixed"])) for p in pairs]
    assert [row["image"] for row in rows] == ["fixed", "moving"]
    for row in rows:
        assert row["lesion_ml"] > 1
        assert row["error_without_mm"] == pytest.approx(4, abs=1e-3)
        assert row["error_with_mm"] == pytest.approx(1, abs=1e-3)
        assert row["ratio"] == pytest.approx(0.25, abs=1e-3)
    table = lesions_markdown(rows).splitlines()
    assert table[-1] == "| mean, and ratio of the means |  |  | 4.00 | 1.00 | 0.25 |"
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.slow
def test_the_command_registers_and_writes_its_tables(small_dataset, shifting_weights, tmp_path, capsys):
    out = tmp_path / "out"
    rows = lesions(str(small_dataset), str(out), split="training", pairs=1, weights=shifting_weights, device="cpu")
    assert math.isfinite(rows[0]["ratio"])
    assert "| mean, and ratio of the means |" in capsys.readouterr().out
    assert len((out / "lesions.csv").read_text().splitlines()) == 2
    assert (out / "lesions.md").read_text().endswith(lesions_markdown(rows))


def test_bad_options_are_refused_before_any_work(small_dataset, tmp_path):
    with pytest.raises(ValueError, match="--affine"):
        lesions(str(small_dataset), str(tmp_path / "out"), affine="bent")
    assert not (tmp_path / "out").exists()
