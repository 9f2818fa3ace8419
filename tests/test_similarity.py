import pytest
import torch
from bundle.similarity import similarity


def test_similarity_does_not_depend_on_the_intensity_scale():
    torch.manual_seed(0)
    fixed = torch.rand(1, 12, 14, 16)
    assert similarity(fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(300 * fixed, fixed) == pytest.approx(1, abs=1e-2)
    assert similarity(torch.rand(1, 40, 42, 44), torch.rand(1, 40, 42, 44)) < 0.5
