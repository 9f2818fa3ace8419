import numpy as np
import pytest
import torch
from bundle.similarity import contrast_correlation, contrasts_differ, similarity


def test_similarity_does_not_depend_on_the_intensity_scale():
    torch.manual_seed(0)
    fixed = torch.rand(1, 12, 14, 16)
    assert similarity(fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(300 * fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(torch.rand(1, 40, 42, 44), torch.rand(1, 40, 42, 44)) < 0.5


def test_the_contrast_correlation_is_pearsons_of_averaged_voxels_where_both_images_show_something():
    fixed = torch.rand(1, 12, 15, 9, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1
    moving = (0.5 * fixed + 0.3 * torch.rand(fixed.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    moving[:, :3] = 0  # shown by one alone
    averaged = [image.reshape(4, 3, 5, 3, 3, 3).mean((1, 3, 5)).numpy() for image in (moving, fixed)]
    shown = averaged[0] > 0.05
    expected = np.corrcoef(averaged[0][shown], averaged[1][shown])[0, 1]
    assert contrast_correlation(moving, fixed) == pytest.approx(expected, abs=1e-6)
    assert contrast_correlation(1 - fixed, fixed) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1, 2, 2), (1, 2, 40, 30)])
def test_images_that_share_nothing_or_are_thin_have_a_correlation_all_the_same(size):
    assert contrast_correlation(torch.zeros(size), torch.ones(size)) == 0
    assert contrast_correlation(torch.full(size, 0.5), torch.full(size, 0.5)) == 0
    image = torch.rand(size, generator=torch.Generator().manual_seed(0)) + 0.1
    assert -1 <= contrast_correlation(image, image.flip(2)) <= 1
    assert contrasts_differ(torch.zeros(size), image)
