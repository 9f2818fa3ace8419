import pytest
import torch
import torch.nn.functional as F
from bundle import correlation
from bundle.correlation import local_ncc, window_sum
from bundle.fields import identity_grid
from bundle.losses import RegistrationLoss, ncc_loss, orthogonality_loss, smoothness_loss
from monai.data import MetaTensor

SHAPE = (14, 19, 11)


def noise(seed, shape=SHAPE, channels=1, dtype=torch.float64):
    return torch.rand(2, channels, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth(seed):
    return F.interpolate(noise(seed, (4, 5, 3)), SHAPE, mode="trilinear", align_corners=True)


def flat(seed):
    """Bright, and even but for the noise of a scanner."""
    return 0.3 + 0.4 * (seed % 2) + 1e-4 * noise(seed)


IMAGES = pytest.mark.parametrize("images", [noise, smooth, flat])


def convolved_ncc(i, j, window=9):
    """Follow VoxelMorph: sums by convolution with ones, zero padding, the variances expanded about the mean."""
    ones = torch.ones(1, 1, window, window, window, dtype=i.dtype)
    sum_i, sum_j, sum_ii, sum_jj, sum_ij = (F.conv3d(x, ones, padding=window // 2) for x in (i, j, i * i, j * j, i * j))
    n = window**3
    u_i, u_j = sum_i / n, sum_j / n
    cross = sum_ij - u_j * sum_i - u_i * sum_j + u_i * u_j * n
    var_i = sum_ii - 2 * u_i * sum_i + u_i * u_i * n
    var_j = sum_jj - 2 * u_j * sum_j + u_j * u_j * n
    return cross * cross / (var_i * var_j + 1e-5)


@IMAGES
@pytest.mark.parametrize("window", [3, 5, 9])
def test_local_ncc_equals_voxelmorphs_formula(images, window):
    a, b = images(0), images(1)
    torch.testing.assert_close(local_ncc(a, b, window), convolved_ncc(a, b, window), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("elements", "planes"), [(1, 1), (2000, 4), (2**20, 16)], ids=["few", "some", "all"])
@pytest.mark.parametrize("shape", [(13, 9, 10), (5, 31, 6), (3, 7, 12), (1, 1, 1)])
def test_local_ncc_without_a_graph_is_the_same_part_by_part(monkeypatch, elements, planes, shape):
    monkeypatch.setattr(correlation, "ELEMENTS_PER_SLAB", elements)
    monkeypatch.setattr(correlation, "PLANES_PER_SLAB", planes)
    a, b = torch.rand(2, 2, 1, *shape, generator=torch.Generator().manual_seed(0))
    for window in (3, 9):
        with_graph = local_ncc(a.clone().requires_grad_(), b, window)
        assert with_graph.requires_grad
        assert torch.equal(local_ncc(a, b, window), with_graph)


@pytest.mark.parametrize("images", [noise, smooth])
def test_local_ncc_in_float32_equals_its_float64_twin(images):
    a, b = images(0), images(1)
    found = local_ncc(a.float(), b.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), convolved_ncc(a, b), atol=1e-3, rtol=0)


@IMAGES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_local_ncc_lies_between_zero_and_one(images, dtype):
    cc = local_ncc(images(0).to(dtype), images(1).to(dtype))
    assert cc.min() >= 0
    assert cc.max() <= 1


def even(seed):
    return torch.full((2, 1, *SHAPE), 0.9, dtype=torch.float64)


def faint(seed):
    return 0.5 + 0.02 * noise(seed)


def regions(seed):
    """Even regions of different brightness, as of painted shapes."""
    return 0.9 - 0.25 * (3 * smooth(seed)).floor()


@pytest.mark.parametrize("window", [5, 9])
@pytest.mark.parametrize(
    ("one", "other"), [(even, faint), (even, even), (flat, faint), (flat, noise), (regions, regions), (regions, noise)]
)
def test_where_images_are_even_float32_keeps_to_the_float64_twin_in_values_and_gradients(one, other, window):
    images = [image(seed).float() for seed, image in ((1, one), (2, other))]
    found, expected = [], []
    for results, dtype in ((found, torch.float32), (expected, torch.float64)):
        pair = [image.to(dtype).requires_grad_() for image in images]
        cc = local_ncc(*pair, window)
        results += [cc, *torch.autograd.grad(cc.sum(), pair)]
        if dtype == torch.float32:
            assert torch.equal(local_ncc(*images, window), cc)
    assert found[0].min() >= 0
    assert found[0].max() <= 1
    torch.testing.assert_close(found[0].double(), expected[0], atol=2e-4, rtol=0)
    for gradient, right in zip(found[1:], expected[1:]):
        assert (gradient - right).abs().max() <= 5e-3 * right.abs().max() + 1e-4


@IMAGES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_correlated_in_float32(images, dtype):
    a, b = images(0).to(dtype), images(1).to(dtype)
    with torch.autocast("cpu", dtype):
        cc = local_ncc(a, b)
    assert cc.dtype == torch.float32
    assert torch.equal(cc, local_ncc(a.float(), b.float()))
    assert cc.min() >= 0
    assert cc.max() <= 1


def test_local_ncc_does_not_see_gain_offset_or_sign():
    a = noise(0)
    inside = (
        ...,
        slice(4, -4),
        slice(4, -4),
        slice(4, -4),
    )  # no window over the border, where zeros break the relation
    for other in (a, 0.3 * a + 0.5, 1 - a):
        torch.testing.assert_close(local_ncc(a, other)[inside], torch.ones_like(a[inside]), atol=1e-4, rtol=0)
    assert local_ncc(a, noise(1))[inside].max() < 0.1


def test_ncc_loss_of_an_image_with_itself_is_minus_one():
    a, b = noise(0), noise(1)
    assert ncc_loss(a, a).item() == pytest.approx(-1, abs=1e-4)
    assert ncc_loss(a, b).item() == pytest.approx(-convolved_ncc(a, b).mean().item(), abs=1e-9)


@IMAGES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_ncc_loss_has_a_finite_gradient(images, dtype):
    warped = images(0).to(dtype).requires_grad_()
    scaled = 2**10 * ncc_loss(warped, images(1).to(dtype))  # as a gradient scaler does, or half precision underflows
    (gradient,) = torch.autograd.grad(scaled, warped)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_local_ncc_has_the_right_gradient():
    a, b = noise(0, (4, 3, 5))[:1], noise(1, (4, 3, 5))[:1]
    assert torch.autograd.gradcheck(lambda x, y: local_ncc(x, y, 3), (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize(
    ("shape", "window", "named"), [((2, 1, 14, 19, 12), 9, "14, 19, 12"), ((2, 1, *SHAPE), 8, "8")]
)
def test_local_ncc_refuses_other_shapes_and_even_windows(shape, window, named):
    with pytest.raises(ValueError, match=named):
        local_ncc(torch.zeros(shape), noise(0), window)


@pytest.mark.parametrize("window", range(1, 10))
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_window_sum_equals_a_convolution_with_ones(axis, window):
    x = noise(0)
    sides = [1, 1, 1]
    sides[axis] = window
    expected = F.conv3d(x, torch.ones(1, 1, *sides, dtype=x.dtype))
    torch.testing.assert_close(window_sum(x, axis + 2, window), expected, atol=1e-12, rtol=0)


def test_smoothness_of_a_linear_field_is_its_mean_squared_slope():
    slopes = torch.tensor([[1.0, 2.0, -3.0], [0.5, 0.0, 4.0], [-1.0, 1.5, 0.25]], dtype=torch.float64)  # ∂uᵢ/∂xⱼ
    ddf = torch.einsum("ij,bjhwl->bihwl", slopes, identity_grid(noise(0)))
    expected = slopes.square().mean().item()  # over components, then over axes
    assert smoothness_loss(ddf).item() == pytest.approx(expected, rel=1e-12)


def test_smoothness_weighs_the_axes_equally_whatever_their_length():
    grid = identity_grid(noise(0))
    for axis in range(3):
        ddf = grid[:, axis : axis + 1].expand(2, 3, *SHAPE)
        assert smoothness_loss(ddf).item() == pytest.approx(1 / 3, rel=1e-12)


def test_smoothness_of_a_checkerboard_is_four():
    checkerboard = 1 - 2 * (identity_grid(noise(0)).sum(1, keepdim=True) % 2)  # every neighbour differs by 2
    assert smoothness_loss(checkerboard.expand(1, 3, *SHAPE)).item() == 4.0


def test_smoothness_has_the_right_gradient():
    assert torch.autograd.gradcheck(smoothness_loss, noise(0, (3, 4, 2), channels=3).requires_grad_())


def test_smoothness_of_a_translation_is_zero():
    assert smoothness_loss(torch.full((2, 3, *SHAPE), 2.5)).item() == 0.0


def test_smoothness_is_computed_in_float32():
    ddf = 40 * noise(0, channels=3)
    loss = smoothness_loss(ddf.half())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(smoothness_loss(ddf).item(), rel=1e-3)


def test_orthogonal_heads_cost_nothing():
    grams = [torch.eye(s).expand(2, 3, s, s) for s in (8, 4, 2)]
    assert orthogonality_loss(grams).item() == 0.0
    assert orthogonality_loss([]).item() == 0.0


@pytest.mark.parametrize("heads", [2, 4, 8])
def test_identical_heads_cost_the_share_of_the_off_diagonal(heads):
    assert orthogonality_loss([torch.ones(2, 3, heads, heads)]).item() == pytest.approx(1 - 1 / heads)


def test_levels_count_equally_whatever_their_heads():
    grams = [torch.ones(2, 3, 8, 8), torch.eye(2).expand(2, 3, 2, 2)]
    assert orthogonality_loss(grams).item() == pytest.approx((1 - 1 / 8) / 2)


def test_registration_loss_is_the_weighted_sum_of_its_terms():
    pred, fixed = torch.cat([noise(0), 3 * noise(1, channels=3)], 1), noise(2)
    gram = [0.1 * torch.ones(2, 2, 4, 4)]
    terms = [
        -convolved_ncc(pred[:, :1], fixed, 5).mean(),
        sum(pred[:, 1:].diff(dim=d).square().mean() for d in (2, 3, 4)) / 3,
        (4 * 0.9**2 + 12 * 0.1**2) / 16,
    ]
    loss = RegistrationLoss(alpha=0.5, beta=2.0, window=5)
    whole, plain = terms[0] + 0.5 * terms[1] + 2 * terms[2], terms[0] + 0.5 * terms[1]
    assert loss({"pred": pred, "gram": gram}, fixed).item() == pytest.approx(whole.item(), rel=1e-6)
    assert loss({"pred": pred, "gram": []}, fixed).item() == pytest.approx(plain.item(), rel=1e-9)
    assert loss(pred, fixed).item() == pytest.approx(plain.item(), rel=1e-9)


def test_registration_loss_defaults_to_the_papers_weights_for_brains():
    loss = RegistrationLoss()
    assert (loss.alpha, loss.beta, loss.window) == (1.0, 1.0, 9)


def test_every_term_of_the_registration_loss_has_a_finite_gradient():
    pred = torch.cat([noise(0), noise(1, channels=3)], 1).float().requires_grad_()
    gram = torch.full((2, 2, 4, 4), 0.5, requires_grad=True)
    RegistrationLoss()({"pred": pred, "gram": [gram]}, noise(2).float()).backward()
    for gradient in (pred.grad[:, :1], pred.grad[:, 1:], gram.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_what_monai_tracks_is_summed_as_plain_numbers():
    """Each step on a MetaTensor takes as long as its sum, so that the whole took four times as long."""
    i, j = torch.rand(2, 1, 1, 12, 13, 14)
    with torch.no_grad():
        found = local_ncc(MetaTensor(i), MetaTensor(j))
        assert type(found) is torch.Tensor
        assert torch.equal(found, local_ncc(i, j))
