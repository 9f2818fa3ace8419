"""Weights files: what is no state dict is refused, and nothing in it is run."""

import pickle

import pytest
import torch
from bundle.handlers import check_weights
from bundle.networks import PAN


class Intruder:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
@pytest.mark.property(13)
def test_weights_are_read_without_running_what_is_pickled_in_them(tmp_path, save):
    intruder = Intruder(tmp_path / "intruded")
    save(PAN().state_dict() | {"intruder": intruder}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="cannot be read as a PyTorch state dict"):
        check_weights(PAN(), str(tmp_path / "weights.pt"))
    assert not intruder.path.exists()
