"""The map of the expected error: where it is small, where it is not, and where it lies."""

import json

import nibabel
import numpy as np
import pytest
import torch
from bundle.commands.register import register
from bundle.expected_error import SIGNS, UNCALIBRATED, MapExpectedErrord, disagreement
from bundle.fields import identity_grid, warp
from bundle.inferers import RecursiveInferer
from bundle.intensity import foreground
from bundle.io.transforms import read_any
from bundle.phantom import make_head
from bundle.spatial import Grid, ras_from_lps, sample
from bundle.transforms import grid_of, read_volume
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from tests.spatial.oblique import oblique

SHAPE = (26, 30, 24)
INNER = (..., slice(7, -7), slice(7, -7), slice(7, -7))
ONES = {"offset": 0.5, **dict.fromkeys(SIGNS, 1.0)}
UNSHIFTED = ONES | {"shifted": 0.0}  # the network below does not find the shift
GRID = oblique(SHAPE, (2.0, 3.0, 1.5))


def image(seed=0):
    noise = np.random.default_rng(seed).standard_normal((1, 2, *SHAPE))
    smooth = gaussian_filter(noise, (0, 0, 2, 2, 2)) * 8 + 0.5
    return torch.from_numpy(smooth.clip(0.05, 0.95)).float()


def constant(voxels):
    return torch.tensor(voxels, dtype=torch.float32).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE).clone()


def test_a_method_that_is_right_each_time_agrees_with_itself():
    """The truth is a shift: its field is known for swapped, mirrored and shifted images."""
    truth, calls = constant([1.0, -2.0, 0.5]), []

    def field(pair):
        answers = [-truth, truth * torch.tensor([-1.0, 1, 1]).view(1, 3, 1, 1, 1), truth - constant([2.0, -2.0, 2.0])]
        calls.append(pair)
        return answers[len(calls) - 1]

    pair = image()
    signs = disagreement(pair, truth, field, GRID)
    assert signs.shape == (3, *SHAPE)
    assert float(signs.max()) < 1e-4
    torch.testing.assert_close(calls[0], pair.flip(1))
    torch.testing.assert_close(calls[1], pair.flip(2))
    moved = warp(pair[:, :1], constant([2.0, -2.0, 2.0]))
    apart = (calls[2] - torch.cat([moved, pair[:, 1:]], 1))[INNER]
    assert 0.02 < float(apart.std()) < 0.04
    assert abs(float(apart.mean())) < 0.002


def test_the_noisy_images_show_no_noise_in_air_and_no_air_where_the_shifted_one_ends():
    pair, seen = image(), []
    pair[..., 9:13] = 0
    disagreement(pair, constant([0.0, 0, 0]), lambda images: seen.append(images) or constant([0.0, 0, 0]), GRID)
    moved = warp(pair[:, :1], constant([2.0, -2.0, 2.0]), padding="border")
    expected = torch.cat([moved, pair[:, 1:]], 1)
    assert (seen[2][expected == 0] == 0).all()
    assert float((expected == 0).float().mean()) > 0.1
    assert (seen[2][expected > 0] > 0).float().mean() > 0.9
    assert float((seen[2] - expected).abs().max()) < 0.2


def test_what_the_fields_are_apart_is_counted_in_millimetres_of_the_grid():
    """A voxel along each axis in turn, on a grid of unequal spacing that lies obliquely."""
    for axis, spacing in enumerate(GRID.spacing_mm):
        step = constant(np.eye(3)[axis])
        answers = iter([step, constant([0.0, 0, 0]), -constant([2.0, -2.0, 2.0]) + step])
        signs = disagreement(image(), constant([0.0, 0, 0]), lambda _: next(answers), GRID)  # noqa: B023
        assert signs.flatten(1).mean(1).tolist() == pytest.approx([spacing, 0, spacing], rel=0.01)


class Unsure(torch.nn.Module):
    """A network that is right, the identity, but for one place, where the order of the images counts."""

    def __init__(self, ball):
        super().__init__()
        self.ball = ball

    def forward(self, pair):
        difference = (pair[:, :1] - 0.5 * pair[:, 1:]) * (self.ball | self.ball.flip(2))
        return torch.cat([pair[:, :1], 4 * difference.expand(-1, 3, -1, -1, -1)], 1)


def mapped(network, calibration, fixed_grid, symmetric=False, choice=None):
    pair = image()
    pair = torch.cat([pair[:, :1], pair[:, :1]], 1)
    inferer = RecursiveInferer(symmetric=symmetric, weights_choice=choice)
    item = {
        "image": MetaTensor(pair[0], affine=torch.from_numpy(ras_from_lps(GRID.affine))),
        "pred": inferer(pair, network)[0],
        "quality": {"dice_after": 0.5},
        "fixed": MetaTensor(torch.rand(1, *fixed_grid.shape), affine=torch.from_numpy(ras_from_lps(fixed_grid.affine))),
    }
    return item, MapExpectedErrord(network, inferer, calibration)(item)


def ball():
    offset = identity_grid(torch.zeros(1, 1, *SHAPE)) - torch.tensor([7.0, 15, 12]).view(1, 3, 1, 1, 1)
    return offset.square().sum(1, keepdim=True) < 9


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_map_lies_on_the_fixed_image_s_grid_and_is_large_where_the_network_is_unsure(symmetric):
    fixed_grid = Grid((21, 17, 25), GRID.affine @ np.diag([1.2, 1.5, 0.9, 1.0]))
    item, found = mapped(Unsure(ball()), UNSHIFTED, fixed_grid, symmetric)
    assert found["expected_error"].shape == (1, 21, 17, 25)
    assert grid_of(item["image"]).is_close(GRID)
    expected = ONES["offset"] + found["disagreement"][:2].sum(0, keepdim=True)
    index = np.random.default_rng(0).integers(0, fixed_grid.shape, (50, 3))
    points = torch.from_numpy(fixed_grid.to_points(index))
    here = sample(expected, GRID, points, fill=None)[0].float()
    torch.testing.assert_close(found["expected_error"][(0, *index.T)], here, atol=1e-4, rtol=0)
    sure, unsure = expected[0][..., :4].mean(), expected[0][ball()[0, 0]].mean()
    assert unsure > 3 * sure
    quality = found["quality"]
    assert quality["dice_after"] == 0.5
    values = found["expected_error"][0][foreground(item["fixed"].as_tensor()[0])].numpy()
    assert quality["expected_error_mean_mm"] == pytest.approx(values.mean(), rel=1e-5)
    assert quality["expected_error_median_mm"] == pytest.approx(np.median(values), rel=0.01)
    assert quality["expected_error_p95_mm"] == pytest.approx(np.percentile(values, 95), rel=0.01)
    assert quality["expected_error_above_2mm_percent"] == pytest.approx(100 * (values > 2).mean(), abs=1e-6)
    assert 0 < quality["expected_error_above_2mm_percent"] < 100
    assert found["seconds"]["expected_error"] > 0


def test_beyond_the_network_s_grid_the_outermost_values_go_on():
    larger = Grid(tuple(n + 8 for n in SHAPE), GRID.affine)
    _, found = mapped(Unsure(ball()), UNSHIFTED, larger)
    inner = found["expected_error"][(0, *(slice(0, n) for n in SHAPE))]
    beyond = torch.nn.functional.pad(inner[None, None], (0, 8, 0, 8, 0, 8), mode="replicate")[0]
    torch.testing.assert_close(found["expected_error"], beyond, atol=1e-4, rtol=0)
    assert float(beyond.min()) >= 0.5  # the offset


class Chosen:
    """A choice of weights that has been made; what runs is the network at hand."""

    def __init__(self, file):
        self.usual, self.file = "usual.pt", file

    def weights_for(self, _):
        return self.file

    def settings_for(self, _, settings):
        return settings

    def usual_share(self, _):
        return 0.0

    def network_for(self, _, network):
        return network


@pytest.mark.parametrize(("file", "noted"), [("usual.pt", False), ("other.pt", True)])
def test_a_map_by_other_weights_than_it_was_calibrated_for_is_noted(file, noted):
    _, found = mapped(Unsure(ball()), UNSHIFTED, GRID, choice=Chosen(file))
    assert (UNCALIBRATED in found.get("notes", "")) == noted


def test_the_map_is_the_same_each_time():
    maps = [mapped(Unsure(ball()), ONES, GRID)[1]["expected_error"] for _ in range(2)]
    assert torch.equal(*maps)


@pytest.mark.parametrize(
    "wrong", [{"offset": 1.0}, ONES | {"other": 1.0}, ONES | {"offset": -0.1}, ONES | {"offset": "a"}]
)
def test_a_calibration_that_is_none_is_refused_in_a_sentence(wrong):
    with pytest.raises(ValueError, match=r"calibration of the expected error|offset takes a number"):
        MapExpectedErrord(torch.nn.Identity(), RecursiveInferer(), wrong)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """One head, a noisier scan of it with a ball erased, and both registered with the bundle's own weights."""
    folder = tmp_path_factory.mktemp("expected")
    head, labels, affine = make_head(5, (48, 56, 48), 3.0)
    rng = np.random.default_rng(0)
    centre = np.argwhere(labels > 0).mean(0) + np.array([8, 0, 0])
    index = np.stack(np.meshgrid(*[np.arange(n) for n in head.shape], indexing="ij"), -1)
    erased = np.linalg.norm(index - centre, axis=-1) < 7
    spoiled = np.where(erased, head.max() * (0.5 + 0.15 * rng.standard_normal(head.shape)), head)
    for name, values in (("head", head), ("spoiled", spoiled)):
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), folder / f"{name}.nii.gz")
    options = {"affine": "none", "device": "cpu", "never_worse": False, "spacing_mm": 3.0, "report": False}
    head_path = str(folder / "head.nii.gz")
    summaries = {
        name: register(
            str(folder / f"{name}.nii.gz"), head_path, str(folder / f"to_{name}"), **options, expected_error=True
        )
        for name in ("head", "spoiled")
    }
    register(str(folder / "spoiled.nii.gz"), head_path, str(folder / "without"), **options)
    return folder, summaries, erased, labels > 0


@pytest.mark.slow
def test_an_erased_region_is_expected_to_be_worse_than_the_same_region_of_equal_images(registered):
    folder, summaries, erased, brain = registered
    maps = {name: nibabel.load(folder / f"to_{name}" / "expected_error.nii.gz") for name in summaries}
    fixed = nibabel.load(folder / "head.nii.gz")
    assert all(np.allclose(m.affine, fixed.affine) and m.shape == fixed.shape for m in maps.values())
    equal, spoiled = (m.get_fdata() for m in maps.values())
    assert spoiled[erased].mean() > 1.3 * equal[erased].mean()
    far = brain & ~(gaussian_filter(erased.astype(float), 5) > 0.01)
    assert spoiled[far].mean() < 1.3 * equal[far].mean()
    summary = summaries["spoiled"]
    assert summary["expected_error_mean_mm"] > summaries["head"]["expected_error_mean_mm"]
    assert json.loads((folder / "to_spoiled" / "registration.json").read_text())["settings"]["expected_error"] is True


def test_all_else_is_the_same_byte_for_byte_with_and_without_the_map(registered):
    folder, _, _, _ = registered
    for name in ("warped.nii.gz", "displacement.nii.gz", "overview.png"):
        assert (folder / "to_spoiled" / name).read_bytes() == (folder / "without" / name).read_bytes(), name
    grid = grid_of(read_volume(str(folder / "head.nii.gz"), "fixed", is_label=False))
    fields = [read_any(str(folder / name / "transform.h5"), grid, grid).ddf for name in ("to_spoiled", "without")]
    assert torch.equal(*fields)  # HDF5 notes the time in the file
    assert not (folder / "without" / "expected_error.nii.gz").exists()
