"""Each method's field means what the bundle's convention says; what a method lacks is said in one sentence."""

import json
import shutil
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.benchmark.methods import METHODS, PEERS, Network, Options, make_methods
from bundle.benchmark.peers import ConvexAdam, Elastix, Greedy, Syn
from bundle.fields import warp
from bundle.metrics import folding_percent, log_jacobian_sd
from bundle.networks import PAN
from bundle.networks.peers import VoxelMorph
from bundle.ops import computes_bfloat16
from bundle.optimisation import PairwiseOptimiser
from bundle.phantom import centred_affine, random_anatomy, sample
from bundle.spatial import Grid
from monai.networks import nets

GRID = Grid.from_ras((32, 40, 36), centred_affine((32, 40, 36), (5.0, 4.5, 5.2), degrees=(9, -5, 7)))


def smooth_field():
    """A plausible field: up to 1.5 voxels, another one along each axis."""
    i, j, k = torch.meshgrid(*[torch.linspace(0, np.pi, n) for n in GRID.shape], indexing="ij")
    bump = torch.sin(i) * torch.sin(j) * torch.sin(k)
    return torch.stack([1.5 * bump, -1.2 * bump * torch.cos(i), 0.8 * bump])


@pytest.fixture(scope="module")
def pair():
    """A head and the same head deformed, on an oblique, anisotropic grid of unequal sides: (1, 2, H, W, L)."""
    image, _ = sample(random_anatomy(3), GRID.shape, np.diag([-1, -1, 1, 1.0]) @ GRID.affine)
    moving = torch.from_numpy(np.asarray(image, np.float32))[None, None]
    moving = ((moving - moving.min()) / (moving.max() - moving.min())).contiguous()
    return torch.cat([moving, warp(moving, smooth_field()[None])], 1)


def ncc(first, second):
    return np.corrcoef(first.flatten(), second.flatten())[0, 1]


def assert_aligns(pair, ddf):
    assert ddf.shape == (3, *GRID.shape)
    warped = warp(pair[:, :1], ddf[None].float())
    before, after = (ncc(image, pair[:, 1:]) for image in (pair[:, :1], warped))
    assert after > 0.98, (before, after)
    inside = pair[0, 1] > 0.1
    assert (ddf - smooth_field()).norm(dim=0)[inside].mean() < 0.6 * smooth_field().norm(dim=0)[inside].mean()
    return warped


def test_syn_finds_a_field_in_voxels_of_the_grid_and_its_own_image_equals_ours(pair, monkeypatch):
    ants = pytest.importorskip("ants", reason="antspyx is not installed: make test-peers")
    own = {}
    plain = ants.registration

    def keep(*args, **kwargs):
        found = plain(*args, **kwargs)
        own["warped"] = torch.from_numpy(found["warpedmovout"].numpy())
        return found

    monkeypatch.setattr(ants, "registration", keep)
    warped = assert_aligns(pair, Syn("mattes", 32, (40, 20, 10)).load()(pair, GRID))
    assert ncc(warped[0, 0], own["warped"]) > 0.999


def test_syn_with_cross_correlation_finds_it_too(pair):
    pytest.importorskip("ants", reason="antspyx is not installed: make test-peers")
    assert_aligns(pair, Syn("CC", 4, (20, 10, 5)).load()(pair, GRID))


def test_elastix_finds_a_field_in_voxels_of_the_grid_and_its_own_image_equals_ours(pair, monkeypatch, tmp_path):
    if find_spec("itk.ElastixPython") is None:  # importing it by itself breaks the toolkit's lazy loading
        pytest.skip("itk-elastix is not installed: make test-peers")
    import itk

    own = {}
    plain = itk.elastix_registration_method

    def keep(*args, **kwargs):
        found = plain(*args, **kwargs)
        own["warped"] = torch.from_numpy(itk.array_from_image(found[0]).transpose(2, 1, 0).copy())
        return found

    monkeypatch.setattr(itk, "elastix_registration_method", keep)
    monkeypatch.chdir(tmp_path)
    warped = assert_aligns(pair, Elastix().load()(pair, GRID, MaximumNumberOfIterations="100"))
    assert ncc(warped[0, 0], own["warped"]) > 0.99  # cubic there, linear here
    assert not list(tmp_path.iterdir())  # the user's folder is left alone


@pytest.mark.parametrize("metric", ["NCC 2x2x2", "NMI"])
def test_greedy_finds_a_field_in_voxels_of_the_grid_and_its_own_image_equals_ours(pair, metric, monkeypatch):
    picsl_greedy = pytest.importorskip("picsl_greedy", reason="picsl-greedy is not installed: make test-peers")
    tools = []

    def kept():
        tools.append(plain())
        return tools[-1]

    plain = picsl_greedy.Greedy3D
    monkeypatch.setattr(picsl_greedy, "Greedy3D", kept)
    ddf = Greedy(metric, (40, 20, 10)).load()(pair, GRID)
    if metric != "NMI":
        assert_aligns(pair, ddf)
    (tool,) = tools
    tool.execute("-V 0 -rf the_fixed -rm the_moving own -r the_warp", own=None)
    own = torch.from_numpy(sitk.GetArrayFromImage(tool["own"]).transpose(2, 1, 0).copy())
    warped = warp(pair[:, :1], ddf[None])[0, 0]
    assert ncc(warped, own) > 0.999
    assert ncc(warped, pair[0, 1]) > ncc(pair[0, 0], pair[0, 1]) + 0.01


def test_greedy_smooths_its_field_as_asked(pair):
    pytest.importorskip("picsl_greedy", reason="picsl-greedy is not installed: make test-peers")
    rough, even = (Greedy(iterations=(20, 10, 0), warp_sigma=sigma).load()(pair, GRID) for sigma in (0.3536, 3.0))
    assert log_jacobian_sd(even[None]) < 0.7 * log_jacobian_sd(rough[None])
    assert len(even.unique()) > even.numel() / 2  # not rounded to tenths of a voxel


def test_convexadam_finds_a_field_in_voxels_of_the_grid_and_leaves_warnings_on(pair):
    pytest.importorskip("convexAdam", reason="convexAdam is not installed: make test-peers")
    before = list(warnings.filters)
    assert_aligns(pair, ConvexAdam().load()(pair, GRID))
    assert warnings.filters == before


def test_a_missing_peer_is_named_in_one_sentence(monkeypatch):
    monkeypatch.setattr("bundle.benchmark.peers.find_spec", lambda _: None)
    packages = dict.fromkeys(PEERS, "antspyx") | {"elastix": "itk-elastix", "convexadam": "convexAdam"}
    for name in PEERS:
        package = "picsl-greedy" if name.startswith("greedy") else packages[name]
        with pytest.raises(ValueError, match=rf"needs the package {package}, .*docs/benchmark\.md"):
            make_methods([name], Options("unused.pt"))


@pytest.mark.parametrize("names", [[], ["pan", "pan"], ["demons"]])
def test_names_that_are_no_methods_are_refused(names):
    with pytest.raises(ValueError, match=",".join(METHODS)):
        make_methods(names, Options("unused.pt"))


def test_a_network_without_weights_says_how_to_get_them():
    with pytest.raises(ValueError, match=r"--voxelmorph_weights or --peer_weights: .*peers/voxelmorph\.json"):
        make_methods(["voxelmorph"], Options("unused.pt"))
    for name, config in (("transmorph", "transmorph"), ("vit-v-net", "vit_vnet"), ("dual-prnet", "dual_prnet")):
        with pytest.raises(ValueError, match=rf"{name} needs --peer_weights: .*peers/{config}\.json"):
            make_methods([name], Options("unused.pt"))
    with pytest.raises(FileNotFoundError, match=r"nowhere/transmorph\.pt"):
        make_methods(["transmorph"], Options("unused.pt", peer_weights="nowhere"))


def test_weights_of_another_network_are_refused_before_any_work(fresh_weights):
    with pytest.raises(ValueError, match="belong to another network"):
        make_methods(["voxelmorph"], Options(str(fresh_weights), voxelmorph_weights=str(fresh_weights)))
    with pytest.raises(FileNotFoundError, match="do not exist"):
        make_methods(["pan"], Options("missing.pt"))


def test_the_methods_of_one_run_depend_on_weights_and_settings(fresh_weights):
    settings = [Network(str(fresh_weights), optimise=n).settings() for n in (0, 20)]
    assert settings[0] != settings[1]
    assert len(settings[0]["weights_sha256"]) == 64
    assert settings[0]["bfloat16"] == computes_bfloat16(torch.device("cpu"))
    assert list(METHODS)[:3] == ["identity", "affine", "pan"]


def test_a_network_is_measured_without_its_folds_unless_they_are_asked_for(fresh_weights, pair, tmp_path):
    network, generator = PAN(), torch.Generator().manual_seed(3)  # whose field folds, and can be smoothed
    network.load_state_dict(torch.load(fresh_weights, weights_only=True))
    with torch.no_grad():
        for attention in network.attention:
            attention.merge.weight.normal_(std=0.3, generator=generator)
            attention.position_bias.normal_(generator=generator)
    weights = str(tmp_path / "model.pt")
    torch.save(network.state_dict(), weights)
    methods = [make_methods(["pan"], Options(weights, remove_folds=remove))["pan"] for remove in (True, False)]
    smoothed, kept = (folding_percent(method.load()(pair, GRID)[None]) for method in methods)
    assert smoothed == 0
    assert kept > 1
    assert methods[1].settings() == methods[0].settings() | {"remove_folds": False}  # what is kept on disk stays valid


def test_a_network_depends_on_the_arithmetic_of_the_cpu(fresh_weights, monkeypatch):
    settings = []
    for instructions in ({"avx512_bf16": True}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=instructions: found)
        settings.append(Network(str(fresh_weights)).settings())
    assert [one.pop("bfloat16") for one in settings] == [True, False]
    assert settings[0] == settings[1]


def test_a_method_depends_on_what_its_weights_say_of_two_contrasts(fresh_weights, tmp_path):
    settings = []
    for name in ("model", "other"):
        shutil.copy(fresh_weights, tmp_path / f"{name}.pt")
    for one_contrast, gamma in ((0.2, 1.0), (0.5, 1.0), (0.5, 1.4)):
        description = {"across_contrasts": "other.pt", "one_contrast": one_contrast}
        (tmp_path / "model.json").write_text(json.dumps(description))
        (tmp_path / "other.json").write_text(json.dumps({"gamma": gamma}))
        settings.append(Network(str(tmp_path / "model.pt")).settings())
    assert all(settings.count(one) == 1 for one in settings)


def test_weights_are_found_in_a_folder_of_any_name(fresh_weights, tmp_path):
    weights = tmp_path / "run#1" / "@#2.pt"
    weights.parent.mkdir()
    shutil.copyfile(fresh_weights, weights)
    assert Network(str(weights)).settings() == Network(str(fresh_weights)).settings()


def test_the_optimised_network_goes_on_from_the_networks_field(fresh_weights):
    image, grid = torch.rand(1, 2, 32, 32, 32), Grid((32, 32, 32), np.eye(4))
    plain, optimised = (Network(str(fresh_weights), optimise=n).load()(image, grid) for n in (0, 3))
    assert torch.equal(optimised, PairwiseOptimiser(3)(image, plain[None])[0])
    assert not torch.equal(optimised, plain)


def test_voxelmorph_is_monais_behind_pans_interface():
    torch.manual_seed(0)
    network = VoxelMorph(channels=(4, 4, 4, 4), unet_out_channels=4, final_conv_channels=(4,)).eval()
    moving, fixed = torch.rand(1, 1, 8, 16, 12), torch.rand(1, 1, 8, 16, 12)
    with torch.no_grad():
        warped, ddf = network.network(moving, fixed)
        pred = network(torch.cat([moving, fixed], 1))
    assert isinstance(network.network, nets.VoxelMorph)
    torch.testing.assert_close(pred, torch.cat([warped, ddf], 1), atol=1e-5, rtol=0)
    assert torch.allclose(pred[:, :1], warp(moving, pred[:, 1:]), atol=1e-5)


def test_voxelmorph_takes_any_size_and_refuses_other_shapes():
    network = VoxelMorph(channels=(4, 4, 4, 4), unet_out_channels=4, final_conv_channels=(4,))
    assert network(torch.rand(2, 2, 9, 11, 14)).shape == (2, 4, 9, 11, 14)
    with pytest.raises(ValueError, match=r"\(B, 2, H, W, L\)"):
        network(torch.rand(1, 3, 8, 8, 8))
