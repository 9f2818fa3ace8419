"""Files of weights: what suits them, whether they fit a network, and the ones to take for different contrasts."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bundle.io.files import check_file
from torch import nn

__all__ = ["AcrossContrasts", "check_weights", "load_frozen", "recommended"]


def recommended(weights: str, setting: str, default: Any = None) -> Any:
    """Look up a setting that suits some weights, such as the ``spacing_mm`` they were trained at.

    Args:
        weights: path of the weights; ``NAME.json`` beside ``NAME.pt`` describes them.
        setting: key of the description.
        default: for weights without a description, or one that lacks the setting.
    """
    description = Path(weights).with_suffix(".json")
    return json.loads(description.read_text()).get(setting, default) if description.is_file() else default


def check_weights(network: nn.Module, path: str) -> None:
    """Compare the names and shapes of a weights file with a network's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file, or one of another network.
    """
    check_file(path, "weights", "do")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # pickle, zip and torch each raise their own
        raise ValueError(f"The weights ({path}) cannot be read as a PyTorch state dict.") from error
    network = network.module if hasattr(network, "module") else network  # type: ignore[assignment]
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if shapes != expected:
        differing = sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
        raise ValueError(
            f"The weights ({path}) belong to another network: {len(differing)} parameters differ, first "
            f"'{differing[0]}' ({shapes.get(differing[0])} in the file, {expected.get(differing[0])} in the network). "
            f"Which network they belong to stands in {Path(path).with_suffix('.json').name} (docs/peers.md)."
        )


def load_frozen(network: nn.Module, weights: str, device: torch.device | str = "cpu") -> nn.Module:
    """Load weights into a network that is not to be trained.

    Args:
        network: of the weights' architecture.
        weights: path of a state dict.
        device: to move the network to.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file, or one of another network.
    """
    check_weights(network, weights)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.to(device).eval().requires_grad_(False)


class AcrossContrasts:
    """The network to run where the contrasts of a pair differ, if the weights' description names one.

    ``across_contrasts`` in ``NAME.json`` beside ``NAME.pt`` is the name of another file there, ``one_contrast`` the
    least ``contrast_correlation`` of images of one contrast. The file is loaded when it is needed first.

    Args:
        network: of the architecture of both files.
        weights: path of the usual weights.
        device: to run on.
        enabled: False takes the usual weights for every pair.
    """

    def __init__(
        self, network: nn.Module, weights: str, device: torch.device | str = "cpu", enabled: bool = True
    ) -> None:
        name = recommended(weights, "across_contrasts") if enabled else None
        self.usual = weights
        self.weights = str(Path(weights).with_name(name)) if name else None
        self.network, self.device = network, device
        self.one_contrast = float(recommended(weights, "one_contrast", -1.0))

    @cached_property
    def loaded(self) -> nn.Module:
        """The network with its weights."""
        return load_frozen(self.network, str(self.weights), self.device)

    def network_for(self, correlation: float, usual: Callable[..., Any]) -> Callable[..., Any]:
        """Choose the network for a pair whose aligned intensities correlate so (``contrast_correlation``)."""
        return self.loaded if self.weights and correlation < self.one_contrast else usual

    def weights_for(self, correlation: float) -> str:
        """Name the file of that network's weights."""
        return self.weights if self.weights and correlation < self.one_contrast else self.usual
