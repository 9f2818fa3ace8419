import numpy as np
import pytest
import torch
from bundle.failures import OutcomeError
from bundle.fields import warp
from bundle.inferers import AutocastInferer, RecursiveInferer
from bundle.metrics import folding_percent
from bundle.networks import PAN
from bundle.phantom import centred_affine, random_anatomy, sample
from monai.bundle import ConfigParser
from scipy.ndimage import correlate1d
from tests.devices import PretendedDevices, placed


def shift_one_voxel(image):
    """Stand for a network that always moves by one voxel along the second axis."""
    ddf = torch.zeros(image.shape[0], 3, *image.shape[2:])
    ddf[:, 1] = 1
    return torch.cat([warp(image[:, :1], ddf), ddf], 1)


def test_three_passes_find_three_times_the_displacement_of_one():
    image = torch.rand(1, 2, 5, 9, 6)
    assert torch.equal(RecursiveInferer(1)(image, shift_one_voxel), shift_one_voxel(image))
    pred = RecursiveInferer(3)(image, shift_one_voxel)
    assert torch.allclose(pred[:, 2], torch.full((1, 5, 9, 6), 3.0))
    assert torch.allclose(pred[:, 0, :, :-3], image[:, 0, :, 3:], atol=1e-5)


def test_a_network_may_write_every_result_to_the_same_place():
    """As a network in CUDA graphs does."""
    image, place = torch.rand(1, 2, 5, 9, 6), torch.empty(1, 4, 5, 9, 6)
    found = RecursiveInferer(3)(image, lambda given: place.copy_(shift_one_voxel(given) * (1 + given[:, :1].mean())))
    expected = RecursiveInferer(3)(image, lambda given: shift_one_voxel(given) * (1 + given[:, :1].mean()))
    assert torch.equal(found, expected)


def test_the_network_sees_sharper_images_than_those_that_are_warped():
    image, seen = torch.rand(1, 2, 9, 9, 9), []

    def network(given):
        seen.append(given)
        return shift_one_voxel(given)

    pred = RecursiveInferer(2, gamma=0.7, sharpening=0.6)(image, network)
    lifted = image**0.7
    kernel = np.array([np.exp(-(i**2) / (2 * 0.7**2)) for i in (-2, -1, 0, 1, 2)])
    blurred = lifted.numpy()
    for axis in (2, 3, 4):
        blurred = correlate1d(blurred, kernel / kernel.sum(), axis, mode="nearest")
    expected = (lifted + 0.6 * (lifted - torch.from_numpy(blurred))).clamp(0, 1)
    assert torch.allclose(seen[0], expected, atol=0.02)
    assert torch.equal(seen[1][:, 1:], seen[0][:, 1:])
    assert torch.allclose(seen[1][:, :1, :, :-1], seen[0][:, :1, :, 1:], atol=1e-6)
    assert torch.allclose(pred[:, 0, :, :-2], image[:, 0, :, 2:], atol=1e-5)
    RecursiveInferer()(image, network)
    assert torch.equal(seen[2], image)


@pytest.mark.parametrize("settings", [{"gamma": 0.0}, {"sharpening": -0.1}])
def test_a_sharpening_that_is_none_is_refused(settings):
    with pytest.raises(ValueError, match="gamma is above 0 and sharpening not below"):
        RecursiveInferer(**settings)


def test_an_optimiser_refines_what_the_network_found_and_the_image_is_warped_by_it():
    image = torch.rand(1, 2, 5, 9, 6)
    pred = RecursiveInferer(2, optimiser=lambda given, ddf: ddf + given[:, :1])(image, shift_one_voxel)
    expected = torch.zeros(1, 3, 5, 9, 6) + image[:, :1]
    expected[:, 1] += 2
    assert torch.allclose(pred[:, 1:], expected)
    assert torch.allclose(pred[:, :1], warp(image[:, :1], expected))


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU cannot convolve in bfloat16")
@pytest.mark.parametrize("streamed", [False, True], ids=["autocast", "streamed"])
def test_mixed_precision_changes_the_field_of_the_brain_weights_by_hundredths_of_a_voxel(bundle_root, streamed):
    shape, spacing_mm = (48, 56, 48), 3.4
    affine = centred_affine(shape, (spacing_mm,) * 3)
    heads = [torch.from_numpy(sample(random_anatomy(seed), shape, affine)[0]).float() for seed in (0, 1)]
    image = torch.stack([head / head.max() for head in heads])[None]
    network = PAN().eval()
    network.load_state_dict(torch.load(bundle_root / "models/model.pt", weights_only=True))
    with torch.no_grad():
        full = RecursiveInferer(remove_folds=True)(image, network)
        with torch.autocast("cpu", torch.bfloat16, enabled=not streamed):
            mixed = RecursiveInferer(remove_folds=True, bfloat16=streamed)(image, network)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed[:, :1], warp(image[:, :1], mixed[:, 1:]))  # the grid is not rounded
    difference = (mixed - full)[:, 1:].norm(dim=1)
    assert full[:, 1:].norm(dim=1).mean() > 2
    assert 0 < difference.mean() < 0.05
    assert difference.max() < 0.5


def test_folds_of_the_network_are_smoothed_away_where_asked_for():
    image, folded = torch.rand(1, 2, 12, 14, 10), torch.zeros(1, 4, 12, 14, 10)
    folded[:, 1, 5:7] = 3.0  # two planes pulled beyond the next ones
    assert folding_percent(RecursiveInferer()(image, lambda _: folded)[:, 1:]) > 0
    pred = RecursiveInferer(remove_folds=True)(image, lambda _: folded)
    assert folding_percent(pred[:, 1:]) == 0
    assert torch.equal(pred[:, :1], warp(image[:, :1], pred[:, 1:]))


def test_folds_are_removed_after_a_weighting_which_measures_the_field_as_it_was_found():
    image, folded, seen = torch.rand(1, 2, 12, 14, 10), torch.zeros(1, 4, 12, 14, 10), []
    folded[:, 1, 5:7] = 3.0

    def weighting(_, ddf):
        seen.append(ddf.clone())
        return ddf

    pred = RecursiveInferer(remove_folds=True, gain_weighting=weighting)(image, lambda _: folded)
    assert torch.equal(seen[0], folded[:, 1:])
    assert folding_percent(pred[:, 1:]) == 0


def test_no_pass_is_refused():
    with pytest.raises(ValueError, match="at least once, not 0"):
        RecursiveInferer(0)


@pytest.mark.parametrize("passes", [1, 2])
def test_asking_for_the_field_alone_changes_no_digit(passes, monkeypatch):
    torch.manual_seed(0)
    network = PAN(channels=(16, 16), heads=(2, 1)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    pair, settings = torch.rand(1, 2, 16, 18, 20), {"passes": passes, "gamma": 1.4}
    with torch.no_grad():
        expected = RecursiveInferer(**settings)(pair, network)
        monkeypatch.setattr(network, "forward", None)  # it warps an image that nobody asks for
        found = RecursiveInferer(**settings, field_alone=True)(pair, network)
    assert torch.equal(found, expected)
    assert float(found[:, 1:].abs().mean()) > 1e-3


def test_other_networks_are_run_as_they_are_where_the_field_alone_is_asked_for():
    image = torch.rand(1, 2, 5, 9, 6)
    assert torch.equal(RecursiveInferer(field_alone=True)(image, shift_one_voxel), shift_one_voxel(image))


def test_training_in_bfloat16_keeps_its_results_and_gradients_float32_and_close():
    torch.manual_seed(0)
    network = PAN(channels=(16, 16), heads=(2, 1)).train()
    for parameter in network.parameters():  # a fresh network's fields are zero
        torch.nn.init.normal_(parameter, std=0.05)
    pair, gradients, fields = torch.rand(1, 2, 16, 16, 16), [], []
    for bfloat16 in (False, True):
        network.zero_grad()
        found = AutocastInferer(bfloat16)(pair, network)
        assert {value.dtype for value in (found["pred"], *found["gram"])} == {torch.float32}
        found["pred"][:, 1:].square().mean().backward()
        fields.append(found["pred"][:, 1:].detach())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        assert gradients[-1].dtype == torch.float32
    assert not torch.equal(*fields)  # it is another arithmetic
    assert float((fields[0] - fields[1]).norm() / fields[0].norm()) < 0.02
    assert float(torch.nn.functional.cosine_similarity(*gradients, dim=0)) > 0.99


def test_on_a_gpu_bfloat16_is_refused():
    with PretendedDevices(), pytest.raises(ValueError, match="--bfloat16 is for CPUs, and the network runs on cuda"):
        RecursiveInferer(bfloat16=True)(placed(torch.rand(1, 2, 5, 9, 6)), shift_one_voxel)


@pytest.mark.parametrize("settings", [{}, {"passes": 2}, {"symmetric": True}, {"remove_folds": True}])
@pytest.mark.parametrize(("wrong", "streamed"), [(torch.nan, True), (torch.inf, True), (torch.nan, False)])
def test_weights_that_diverged_are_named_in_a_sentence(wrong, streamed, settings):
    torch.manual_seed(0)
    network = PAN(channels=(16, 16), heads=(2, 1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(wrong)
    pairs = torch.rand(1 if streamed else 2, 2, 16, 16, 16)
    inferer = RecursiveInferer(**settings, field_alone=True, weights="run/model.pt")
    with torch.no_grad(), pytest.raises(OutcomeError, match=r"its weights \(run/model.pt\) have diverged"):
        inferer(pairs, network)


def test_of_all_networks_pan_alone_is_noted_to_run_in_bfloat16(bundle_root):
    parser = ConfigParser(ConfigParser.load_config_file(bundle_root / "configs" / "inference.json"))
    parser["bundle_root"], parser["bfloat16"] = str(bundle_root), True
    assert parser.get_parsed_content("settings::bfloat16") is True
    for network_def, bfloat16 in (({"_target_": "torch.nn.Identity"}, True), (parser["network_def"], False)):
        parser = ConfigParser(ConfigParser.load_config_file(bundle_root / "configs" / "inference.json"))
        parser["network_def"], parser["bfloat16"] = network_def, bfloat16
        assert parser.get_parsed_content("settings::bfloat16") is False
