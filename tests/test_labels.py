"""The vote of the voxels around a point, beside ITK's, and what it does to borders."""

import itk
import numpy as np
import pytest
import torch
from bundle.labels import SIGMA, LabelSampler
from scipy.ndimage import gaussian_filter

SHAPE = (9, 12, 7)


def blobs(shape=SHAPE, count=5, seed=0):
    """Regions of several voxels, every label next to every other."""
    rng = np.random.default_rng(seed)
    return np.argmax([gaussian_filter(rng.standard_normal(shape), 1.2) for _ in range(count)], axis=0)


def points_of(shape=SHAPE, count=3000, margin=1.0, seed=1):
    return np.random.default_rng(seed).uniform(margin, np.array(shape) - 1 - margin, (count, 3))


def test_elects_the_label_that_itk_elects():
    labels, points = blobs(), points_of()
    image = itk.image_from_array(labels.astype(np.uint8).T.copy())  # ITK names the last axis of an array first
    spacing = [1.5, 0.7, 3.0]
    image.SetSpacing(spacing)
    theirs = itk.LabelImageGaussianInterpolateImageFunction[type(image), itk.D].New()
    theirs.SetInputImage(image)
    theirs.SetSigma([SIGMA * s for s in spacing])
    theirs.SetAlpha(1 / SIGMA)
    expected = [theirs.EvaluateAtContinuousIndex(point.tolist()) for point in points]
    found = LabelSampler(torch.from_numpy(labels)[None].double())(torch.from_numpy(points))
    assert len(set(expected)) == labels.max() + 1
    nearest = labels[tuple(np.rint(points).astype(int).T)]
    assert 0.02 < (nearest != expected).mean() < 0.3  # the vote matters
    assert np.array_equal(found[0].numpy(), expected)


def test_zero_where_the_nearest_voxel_is_none_of_the_maps():
    labels = torch.full((1, *SHAPE), 7.0)
    index = torch.tensor([[0.0, 0, 0], [-0.4, 0, 6.4], [-0.6, 3, 3], [8.6, 3, 3], [4, 4, 40]], dtype=torch.float64)
    assert LabelSampler(labels)(index).tolist() == [[7, 7, 0, 0, 0]]


def test_every_channel_for_itself_and_any_shape_of_points():
    labels = torch.stack([torch.from_numpy(blobs(seed=s)) for s in (0, 1)]).double()
    points = torch.from_numpy(points_of(count=24)).view(2, 3, 4, 3)
    found = LabelSampler(labels)(points)
    assert found.shape == (2, 2, 3, 4)
    for channel, one in zip(found, labels):
        assert torch.equal(LabelSampler(one[None])(points)[0], channel)


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1), (0, 1, 2)])
def test_of_voxels_equally_near_the_one_that_nearest_neighbour_interpolation_takes_wins(axes):
    labels = torch.arange(float(np.prod(SHAPE)), dtype=torch.float64).view(1, *SHAPE)
    inner = [torch.arange(1.0, n - 2, dtype=torch.float64) for n in SHAPE]
    index = torch.stack(torch.meshgrid(*inner, indexing="ij"), -1)
    index[..., list(axes)] += 0.5
    upper = (index + 0.5).floor().long()
    assert torch.equal(LabelSampler(labels)(index)[0], labels[0][upper.unbind(-1)])


def test_large_labels_stay_what_they_are():
    labels = torch.from_numpy(np.array([0, 2035, 14175, 16777217])[blobs(count=4)])[None].double()
    found = LabelSampler(labels)(torch.from_numpy(points_of()))
    assert set(found.unique().tolist()) == {0, 2035, 14175, 16777217}


def test_a_map_of_one_plane_is_read():
    labels = torch.from_numpy(blobs((1, 12, 7)))[None].double()
    index = torch.stack(torch.meshgrid(torch.zeros(1), torch.arange(12.0), torch.arange(7.0), indexing="ij"), -1)
    assert (LabelSampler(labels)(index.double()) == labels).float().mean() > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_a_rough_border_is_nearer_to_what_was_meant_than_by_the_nearest_voxel(seed):
    grid = np.stack(np.meshgrid(*[np.arange(24.0)] * 3, indexing="ij"), -1) - 11.5
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-0.5, 0.5, 3)
    drawn = np.linalg.norm(grid - shift, axis=-1) + rng.normal(0, 0.6, grid.shape[:-1]) < 8  # a hand's tremor
    meant = np.linalg.norm(grid, axis=-1) < 8
    index = torch.from_numpy(grid + 11.5 + shift)
    voted = LabelSampler(torch.from_numpy(drawn)[None].double())(index)[0].numpy()
    nearest = drawn[tuple(np.clip(np.rint(index.numpy()), 0, 23).astype(int).reshape(-1, 3).T)].reshape(drawn.shape)
    assert (voted != meant).sum() < 0.7 * (nearest != meant).sum()


def test_a_line_one_voxel_thick_vanishes_and_a_plane_on_the_voxels_stays():
    labels = torch.zeros(1, *SHAPE, dtype=torch.float64)
    labels[0, 4, 6], labels[0, :, 2] = 1, 2
    index = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in SHAPE], indexing="ij"), -1)
    assert torch.equal(LabelSampler(labels)(index), labels * (labels == 2))
