import os
from pathlib import Path

import pytest
import torch

from bundle.networks import PAN
from bundle.phantom import write_phantoms

os.environ.setdefault("OMP_NUM_THREADS", "2")  # for what the tests start


@pytest.fixture(scope="session")
def bundle_root():
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """Synthetic heads so small that training takes seconds."""
    folder = tmp_path_factory.mktemp("phantoms") / "heads"
    write_phantoms(folder, training=3, validation=2, test=2, shape=(32, 40, 32), spacing_mm=5.0)
    return folder


@pytest.fixture(scope="session")
def fresh_weights(tmp_path_factory):
    """Weights of an untrained network, which returns the identity."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(PAN().state_dict(), path)
    return path
