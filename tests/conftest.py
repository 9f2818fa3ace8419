import os
from pathlib import Path

import pytest
import torch
from bundle.networks import PAN
from bundle.phantom import write_phantoms

os.environ.setdefault("OMP_NUM_THREADS", "2")  # for what the tests start
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run on the CPU; read once, when they are imported


HERE = Path(__file__).parent
WARNED = {"deploy_app", "map", "pacs", "zoo"}  # by pydicom of DICOM that is wrong on purpose, by the tools of the zoo
NO_WARNINGS = (
    "error::UserWarning",
    "error::RuntimeWarning",
    "ignore:monai.networks.blocks.Warp:UserWarning",
    "ignore:No hash value provided:UserWarning",
    "ignore:Initializing zero-element tensors:UserWarning",
    "ignore:TF32 acceleration on top of oneDNN:UserWarning",
    "ignore:Detected pickle protocol:UserWarning",
)


def pytest_collection_modifyitems(items):
    """Hold the bundle's own tests to no warnings."""
    for item in items:
        if not (item.path.is_relative_to(HERE) and item.path.relative_to(HERE).parts[0] in WARNED):
            item.add_marker(pytest.mark.filterwarnings(*NO_WARNINGS))


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


@pytest.fixture(scope="session")
def shifting_weights(tmp_path_factory):
    """Weights that move something: each level shifts, and its attention adds a little of its own."""
    torch.manual_seed(0)
    network = PAN()
    with torch.no_grad():
        for attention in network.attention:
            attention.merge.bias.copy_(torch.tensor([0.12, -0.08, 0.06]))
            attention.merge.weight.normal_(std=0.01)
            attention.position_bias.normal_()
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), path)
    return str(path)
