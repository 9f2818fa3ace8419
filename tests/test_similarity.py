import numpy as np
import pytest
import torch
from bundle.similarity import (
    contrast_correlation,
    foreground_overlap,
    is_misled,
    likeness,
    mutual_information,
    similarity,
    tissue_correlation,
)
from bundle.smoothing import smooth
from scipy.ndimage import distance_transform_edt, gaussian_filter, minimum_filter, uniform_filter
from scipy.stats import entropy, spearmanr


def test_similarity_does_not_depend_on_the_intensity_scale():
    torch.manual_seed(0)
    fixed = torch.rand(1, 12, 14, 16)
    assert similarity(fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(300 * fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(torch.rand(1, 40, 42, 44), torch.rand(1, 40, 42, 44)) < 0.5


def test_mutual_information_is_scipys_of_the_histogram_where_either_image_shows_something():
    generator = torch.Generator().manual_seed(0)
    fixed = torch.rand(1, 20, 22, 18, generator=generator)
    moving = (1 - fixed + 0.2 * torch.rand(fixed.shape, generator=generator)).clamp(0, 1)
    fixed[:, :5] = moving[:, :3] = 0
    ignored = torch.zeros(fixed.shape, dtype=torch.bool)
    ignored[:, :, :4] = True
    counts = ((moving > 0.05) | (fixed > 0.05)) & ~ignored
    edges = (np.arange(33) - 0.5) / 31
    joint = np.histogram2d(moving[counts].numpy(), fixed[counts].numpy(), [edges, edges])[0]
    expected = (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint.ravel())
    assert mutual_information(moving, fixed, ignored) == pytest.approx(expected, abs=1e-6)
    assert mutual_information(1 - fixed, fixed) == pytest.approx(2, abs=1e-3)
    assert mutual_information(torch.zeros_like(fixed), torch.zeros_like(fixed)) == 1
    assert mutual_information(torch.ones_like(fixed), fixed) == 1


def test_the_overlap_of_what_is_shown_is_dice_and_falls_where_mutual_information_does_not():
    fixed = smooth(torch.rand(1, 1, 60, 48, 52, generator=torch.Generator().manual_seed(0)), 2.0)[0]
    fixed = (fixed - fixed.min()) / (fixed.max() - fixed.min()) * 0.8 + 0.2
    inside = torch.zeros(fixed.shape, dtype=torch.bool)
    inside[:, 4:24, 10:40, 10:40] = True
    fixed, near, apart = fixed * inside, (fixed.flip(2) * inside).roll(2, 1), (fixed.flip(2) * inside).roll(30, 1)
    assert mutual_information(apart, fixed) > mutual_information(near, fixed)  # each tells where the other is not
    assert foreground_overlap(near, fixed) == pytest.approx(18 / 20)
    assert foreground_overlap(apart, fixed) == 0
    ignored = torch.zeros(fixed.shape, dtype=torch.bool)
    ignored[:, :14] = True
    assert foreground_overlap(near, fixed, ignored) == pytest.approx(2 * 10 / (10 + 12))
    assert foreground_overlap(torch.zeros_like(fixed), torch.zeros_like(fixed)) == 1


def test_windows_that_reach_into_what_does_not_count_do_not_count_either():
    fixed = torch.rand(1, 24, 26, 28, generator=torch.Generator().manual_seed(0))
    ignored = torch.zeros(fixed.shape, dtype=torch.bool)
    ignored[:, 8:14, 9:13, 10:17] = True
    warped = torch.where(ignored, 1 - fixed, fixed)
    assert similarity(warped, fixed) < similarity(fixed, fixed) - 0.01
    assert similarity(warped, fixed, ignored) == pytest.approx(similarity(fixed, fixed, ignored), abs=1e-4)


def test_an_alignment_is_misled_where_the_images_tell_less_of_each_other_or_are_pushed_apart():
    """Of a scan that is cut closer than the other, half of what either shows lies over each other at best."""
    texture = smooth(torch.rand(1, 1, 40, 36, 44, generator=torch.Generator().manual_seed(0)), 1.5)[0]
    moving = (texture - texture.min()) / (texture.max() - texture.min()) * 0.8 + 0.1
    fixed, turned = moving.clone(), moving.flip(2)
    fixed[:, 20:] = 0
    assert foreground_overlap(moving, fixed) == pytest.approx(2 / 3)
    assert not is_misled((turned, fixed), (moving, fixed))
    assert is_misled((moving, fixed), (turned, fixed))
    apart = torch.where(torch.arange(40).view(1, -1, 1, 1) < 12, moving, 0).roll(14, 1)
    assert mutual_information(apart, fixed) > mutual_information(turned, fixed)  # where each one shows nothing
    assert is_misled((turned, fixed), (apart, fixed))


def without_shading(image, shown, sigma):
    """Divide by the mean of what is shown around, as SciPy filters."""
    weight = gaussian_filter(shown.astype(float), sigma, mode="nearest", truncate=3.0)
    return image / (gaussian_filter(image * shown, sigma, mode="nearest", truncate=3.0) / np.maximum(weight, 1e-3))


def test_the_contrast_correlation_is_pearsons_of_averaged_voxels_without_shading_where_both_images_show_something():
    fixed = torch.rand(1, 24, 30, 18, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1
    moving = (0.5 * fixed + 0.3 * torch.rand(fixed.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    moving[:, :6] = 0  # shown by one alone
    averaged = [image.reshape(8, 3, 10, 3, 6, 3).mean((1, 3, 5)).double().numpy() for image in (moving, fixed)]
    shown = averaged[0] > 0.05
    expected = max(
        np.corrcoef(*(without_shading(image, shown, sigma)[shown] for image in averaged))[0, 1] for sigma in (3, 8)
    )
    assert contrast_correlation(moving, fixed) == pytest.approx(expected, abs=1e-3)
    assert contrast_correlation(1 - fixed, fixed) == pytest.approx(-1, abs=0.02)


def test_shading_makes_no_other_contrast():
    generator = torch.Generator().manual_seed(0)
    scan = smooth(torch.rand(1, 1, 96, 108, 84, generator=generator), 2.0)[0]
    scan = ((scan - scan.min()) / (scan.max() - scan.min())) * 0.6 + 0.2
    shading = torch.linspace(2.0, 0.2, 108).view(1, 1, -1, 1) * torch.linspace(0.4, 1.2, 96).view(1, -1, 1, 1)
    shaded = scan * shading / (scan * shading).max()
    assert np.corrcoef(shaded.flatten(), scan.flatten())[0, 1] < 0.5
    assert contrast_correlation(shaded, scan) > 0.6 > contrast_correlation(shaded, 1 - scan)


@pytest.mark.parametrize("size", [(1, 1, 2, 2), (1, 2, 40, 30)])
def test_images_that_share_nothing_or_are_thin_have_a_correlation_all_the_same(size):
    assert contrast_correlation(torch.zeros(size), torch.ones(size)) == 0
    assert contrast_correlation(torch.full(size, 0.5), torch.full(size, 0.5)) == 0
    image = torch.rand(size, generator=torch.Generator().manual_seed(0)) + 0.1
    assert -1 <= contrast_correlation(image, image.flip(2)) <= 1
    assert contrast_correlation(torch.zeros(size), image) == 0


WHITE, GRAY, FLUID, SKULL, FAT = range(1, 6)
T1 = {WHITE: 0.8, GRAY: 0.62, FLUID: 0.2, SKULL: 0.1, FAT: 0.95}
OTHER_T1 = {WHITE: 0.55, GRAY: 0.4, FLUID: 0.15, SKULL: 0.1, FAT: 1.0}
FLAIR = {WHITE: 0.42, GRAY: 0.5, FLUID: 0.08, SKULL: 0.08, FAT: 0.8}


@pytest.fixture(scope="module")
def tissues():
    """A head of folded gray and white matter in fluid, in a skull in fat, voxels of 1.5 mm or so; (1, H, W, L)."""
    sides = 120, 136, 112
    axes = np.meshgrid(*((np.arange(n) - n / 2) / (0.42 * n) for n in sides), indexing="ij")
    inside = distance_transform_edt(sum(axis**2 for axis in axes) < 1)
    folds = gaussian_filter(np.random.default_rng(0).normal(size=sides), 4)
    folds = folds / folds.std()
    head = np.select([folds > 0.1, folds > -0.9, folds <= -0.9], [WHITE, GRAY, FLUID])
    return np.select([inside == 0, inside < 5, inside < 9, inside < 11], [0, FAT, SKULL, FLUID], head)[None]


def scanned(tissues, contrast, seed):
    """Show tissues in a contrast, blurred, shaded and noisy, in [0, 1]."""
    random = np.random.default_rng(seed)
    shading = gaussian_filter(random.normal(size=tissues.shape[1:]), 40)
    image = np.vectorize(lambda tissue: contrast.get(tissue, 0.0))(tissues[0])
    image = gaussian_filter(image, 0.7) * (1 + 0.2 * shading / np.abs(shading).max())
    return torch.from_numpy((image + random.normal(scale=0.02, size=image.shape)).clip(0, 1)).float()[None]


def test_the_order_of_tissues_tells_contrasts_where_all_that_is_shown_does_not(tissues):
    fixed = scanned(tissues, T1, 1)
    same, differing = scanned(tissues, OTHER_T1, 2), scanned(tissues, FLAIR, 3)
    assert contrast_correlation(differing, fixed) > 0.5  # air, skull, fluid, fat
    assert tissue_correlation(differing, fixed) < -0.4
    assert tissue_correlation(same, fixed) > 0.4
    assert tissue_correlation(scanned(tissues, FLAIR, 4), differing) > 0.4
    assert tissue_correlation(same, fixed) == pytest.approx(tissue_correlation(fixed, same))


def test_the_tissue_correlation_is_spearmans_of_what_lies_deep_and_is_of_its_surroundings_brightness(tissues):
    pair = [scanned(tissues, contrast, seed) for contrast, seed in ((OTHER_T1, 2), (T1, 1))]
    halved = [image[0].reshape(60, 2, 68, 2, 56, 2).mean((1, 3, 5)).double().numpy() for image in pair]
    wide, narrow = spearmans(halved, 9, 15, 2), spearmans(halved, 4, 11, 1.3)
    assert tissue_correlation(*pair) == pytest.approx(max(wide, narrow), abs=0.03)


def test_what_lies_beyond_the_border_does_not_count_as_showing_nothing(tissues):
    """A part of a head is deep in it up to where it is cut."""
    pair = [scanned(tissues, contrast, seed)[:, 48:72, 52:84, 44:72] for contrast, seed in ((FLAIR, 3), (T1, 1))]
    assert tissue_correlation(*pair) < -0.4


def spearmans(halved, sigma, depth, brightest):
    shown = (halved[0] > 0.05) & (halved[1] > 0.05)
    deep = counts = uniform_filter(shown.astype(float), depth, mode="constant") > 0.9
    for _ in range(4):
        weight = np.maximum(gaussian_filter(counts.astype(float), sigma), 1e-3)
        around = [gaussian_filter(image * counts, sigma) / weight for image in halved]
        level = [image / np.maximum(mean, 1e-3) for image, mean in zip(halved, around)]
        counts = deep & (level[0] > 0.8) & (level[1] > 0.8)
    counts &= (level[0] < brightest) & (level[1] < brightest)
    counts = minimum_filter(counts, 3)
    assert counts.sum() > 1000
    return spearmanr(*(image[counts] for image in level)).statistic


def test_steep_shading_makes_no_other_contrast_of_one(tissues):
    """One image is brightest in the middle, the other at the rim: far around, that is all there is to see."""
    axes = [torch.linspace(-1, 1, n).square() for n in tissues.shape[1:]]
    squared = axes[0][:, None, None] + axes[1][:, None] + axes[2]  # distance from the middle
    middle, rim = torch.exp(-0.8 * squared), torch.exp(0.4 * (squared - 1)).clamp(max=1)
    fixed, same = scanned(tissues, T1, 1) * rim, scanned(tissues, OTHER_T1, 2) * middle
    halved = [image[0].reshape(60, 2, 68, 2, 56, 2).mean((1, 3, 5)).double().numpy() for image in (same, fixed)]
    assert spearmans(halved, 9, 15, 2) < -0.4
    assert tissue_correlation(same, fixed) > 0.5
    assert tissue_correlation(scanned(tissues, FLAIR, 3) * middle, fixed) < -0.5


@pytest.mark.parametrize("size", [(1, 1, 2, 2), (1, 2, 40, 30), (1, 30, 30, 30)])
def test_where_too_little_is_shown_no_order_of_tissues_is_told(size):
    blank, flat = torch.zeros(size), torch.full(size, 0.5)
    assert tissue_correlation(blank, flat) == tissue_correlation(flat, blank) == 0
    assert -1 <= tissue_correlation(torch.rand(size, generator=torch.Generator().manual_seed(0)), flat) <= 1
    assert likeness(blank, flat) == {"contrast_correlation": 0.0, "tissue_correlation": 0.0}
