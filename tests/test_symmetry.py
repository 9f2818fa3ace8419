"""Both directions meeting halfway."""

import numpy as np
import pytest
import torch
from bundle.fields import compose, identity_grid
from bundle.inferers import RecursiveInferer
from bundle.spatial import Grid, SpatialTransform, ras_from_lps
from bundle.symmetry import geometric_mean, half_field, halfway, inverse_field, meet, root
from bundle.transforms import MatchPaird, grid_of
from monai.data import MetaTensor
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import linear_map, oblique

SHAPE = (22, 26, 19)
INNER = (..., slice(5, -5), slice(5, -5), slice(5, -5))


def field(seed, voxels=2.0, width=3.0):
    noise = np.random.default_rng(seed).standard_normal((3, *SHAPE))
    smooth = np.stack([gaussian_filter(channel, width) for channel in noise])
    return torch.from_numpy(smooth / np.abs(smooth).max() * voxels)[None]


def largest(ddf):
    return float(ddf[INNER].abs().max())


def test_a_field_composed_with_its_inverse_moves_nothing():
    assert largest(compose(field(0), inverse_field(field(0)))) < 2e-3  # solved at voxels
    assert largest(compose(inverse_field(field(0)), field(0))) < 0.08  # interpolated between them


def test_a_shift_is_inverted_up_to_the_border_beyond_which_it_goes_on():
    shift = torch.tensor([1.5, -2.25, 0.75]).double().view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    torch.testing.assert_close(inverse_field(shift), -shift)


def test_the_half_of_a_field_composed_with_itself_is_the_field():
    assert largest(compose(half_field(field(0)), half_field(field(0))) - field(0)) < 2e-3
    scaling = 0.21 * (identity_grid(field(0)) - torch.tensor([10.5, 12.5, 9.0]).view(1, 3, 1, 1, 1))
    expected = 0.1 * (identity_grid(field(0)) - torch.tensor([10.5, 12.5, 9.0]).view(1, 3, 1, 1, 1))
    assert largest(half_field(scaling.double()) - expected) < 0.02  # √1.21 = 1.1


@pytest.mark.parametrize(("width", "left"), [(3.0, 0.005), (1.2, 0.021)])  # 1.2: rough from voxel to voxel
def test_swapped_fields_give_the_inverse_whatever_they_are(width, left):
    forward, backward = field(1, width=width), field(2, width=width)
    (there, back), swapped = halfway(forward, backward), halfway(backward, forward)
    assert torch.equal(there, swapped[1])
    assert torch.equal(back, swapped[0])
    assert largest(there) > 0.4
    assert float(compose(back, there)[INNER].norm(dim=1).mean()) < left
    assert largest(compose(back, there)) < 4 * left


def test_fields_that_are_each_other_s_inverse_stay_what_they_are():
    forward = field(3)
    found, _ = halfway(forward, inverse_field(forward))
    assert largest(found - forward) < 0.08  # what interpolation leaves between them


def test_what_is_found_halfway_joins_the_mean_and_swapping_still_inverts():
    pair = torch.cat([torch.ones(1, 1, *SHAPE), torch.zeros(1, 1, *SHAPE)], 1).double()
    fields = {"first": (field(1), field(2)), "then": (field(4, 0.6), -field(5, 0.6))}

    def find(which):
        return lambda images: fields[which][int(images[:, 0].mean() < images[:, 1].mean())]

    there, back = (meet(images, find("first"), find("then")) for images in (pair, pair.flip(1)))
    assert float(compose(back, there)[INNER].norm(dim=1).mean()) < 0.01
    more = (field(4, 0.6) + field(5, 0.6)) / 2
    joined = there - halfway(*fields["first"])[0]
    assert largest(joined - more) < 0.5 * largest(more)  # it lies halfway: the fields carry it elsewhere
    assert float(torch.corrcoef(torch.stack([joined[INNER].flatten(), more[INNER].flatten()]))[0, 1]) > 0.9


def test_what_is_left_is_looked_for_where_the_halves_of_the_field_take_both_images():
    """Halfway to a scaling by 1.44 lies one by 1.2; the half of its displacement would be one by 1.22."""
    place = identity_grid(field(0)) - torch.tensor([10.5, 12.5, 9.0]).view(1, 3, 1, 1, 1)
    pair, seen = torch.cat([place[:, :1], -place[:, :1]], 1), []

    def first(images):
        return (0.44 if torch.equal(images, pair) else 1 / 1.44 - 1) * place

    meet(pair, first, lambda images: seen.append(images) or torch.zeros_like(place))
    expected = torch.cat([1.2 * place[:, :1], -place[:, :1] / 1.2], 1)
    assert largest(seen[0] - expected) < 0.04
    assert torch.equal(seen[1], seen[0].flip(1))


class Steps:
    """An optimiser that notes what it is shown."""

    def __init__(self):
        self.images = []

    def __call__(self, image, ddf):
        self.images.append(image)
        return ddf


def test_both_ways_are_refined_where_they_meet_and_not_before():
    def network(pair):
        return torch.cat([pair[:, :1], field(int(pair[0, 0].mean() > 0.5)).float()], 1)

    pair, steps = torch.cat([torch.ones(1, 1, *SHAPE), torch.zeros(1, 1, *SHAPE)], 1), Steps()
    RecursiveInferer(symmetric=True, optimiser=steps)(pair, network)
    assert len(steps.images) == 2
    assert torch.equal(steps.images[0], steps.images[1].flip(1))
    assert not torch.equal(steps.images[0], pair)


def test_the_mean_of_two_alignments_is_inverted_by_swapping_them():
    forward, backward = linear_map(0), np.linalg.inv(linear_map(1))
    mean = geometric_mean(forward, backward)
    np.testing.assert_allclose(geometric_mean(backward, forward), np.linalg.inv(mean), atol=1e-12)
    np.testing.assert_allclose(geometric_mean(forward, np.linalg.inv(forward)), forward, atol=1e-9)


def test_half_of_a_rotation_is_half_its_angle_and_half_a_turn_has_none():
    matrix, half = np.eye(4), np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", 50, degrees=True).as_matrix()
    half[:3, :3] = Rotation.from_euler("z", 25, degrees=True).as_matrix()
    np.testing.assert_allclose(root(matrix), half, atol=1e-12)
    generator = np.zeros((4, 4))
    generator[:3] = np.random.default_rng(0).uniform(-0.2, 0.2, (3, 4))
    np.testing.assert_allclose(root(expm(generator)), expm(generator / 2), atol=1e-9)
    with pytest.raises(ValueError, match="no half"):
        root(np.diag([-1.0, 1, 1, 1]))


def head(grid, seed):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    distance = np.linalg.norm((grid.to_points(index) - (11, -23, 31)) / (9, 11, 8), axis=-1)
    texture = gaussian_filter(np.random.default_rng(seed).standard_normal(grid.shape), 1.5) * 10
    image = torch.from_numpy(((distance < 1) * (2 + texture - texture.min())).astype(np.float32))[None]
    return MetaTensor(image, affine=torch.from_numpy(ras_from_lps(grid.affine)))


def shifting_network(image):
    """A network whose field depends on both images, and on their order."""
    moving, fixed = image[:, :1], image[:, 1:]
    difference = torch.nn.functional.avg_pool3d(moving - fixed**2, 5, 1, 2)
    ddf = torch.cat([difference, -0.5 * difference, 0.7 * moving.mean() + 0 * difference], 1)
    return torch.cat([moving, ddf], 1)


def test_swapping_the_images_inverts_alignment_grid_and_field():
    a, b = (
        head(oblique((26, 28, 24), (1.3, 1.2, 1.4)), 0),
        head(oblique((24, 30, 26), (1.5, 1.0, 1.2), (3, 5, -4), (12.0, -22.0, 30.0)), 1),
    )
    found = []
    for moving, fixed in ((a, b), (b, a)):
        item = MatchPaird(affine="affine", symmetric=True)({"moving": moving, "fixed": fixed})
        pred = RecursiveInferer(symmetric=True)(item["image"][None], shifting_network)[0]
        grids = grid_of(item["image"]), grid_of(fixed), grid_of(moving)
        found.append(SpatialTransform(item["alignment"].numpy(), pred[1:], *grids).extended())
    there, back = found
    np.testing.assert_allclose(there.alignment @ back.alignment, np.eye(4), atol=1e-6)
    assert there.field_grid.bounds(there.fixed_grid)[0].min() >= 0
    points = grid_of(b).to_points(np.random.default_rng(0).uniform(8, 16, (300, 3)))
    moved = points + there.displacement_at(points).numpy()
    again = moved + back.displacement_at(moved).numpy()
    assert np.linalg.norm(moved - points, axis=1).mean() > 0.25
    assert np.linalg.norm(again - points, axis=1).mean() < 0.02


def test_extending_a_field_keeps_its_voxels_and_covers_the_fixed_image():
    lattice = Grid((6, 5, 7), oblique().affine)
    ddf = torch.rand(3, *lattice.shape)
    small = SpatialTransform(np.eye(4), ddf, lattice, oblique(), oblique())
    larger = small.extended()
    assert larger.ddf.shape[1:] == oblique().shape
    assert torch.equal(larger.ddf[:, :6, :5, :7], ddf)
    assert torch.equal(larger.ddf[:, :6, :5, -1], larger.ddf[:, :6, :5, 6])
