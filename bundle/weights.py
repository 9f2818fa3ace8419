"""Files of weights: what suits them, whether they fit a network, and which ones to take for a pair."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bundle.failures import OutcomeError
from bundle.io.files import check_file, fingerprint
from bundle.networks.cascade import Cascade
from bundle.root import ROOT
from bundle.shapes import DDF
from bundle.similarity import ALIKE_FROM
from torch import nn

__all__ = [
    "WeightsChoice",
    "check_finite",
    "check_there",
    "check_weights",
    "content",
    "load_frozen",
    "one_person_from",
    "recommended",
    "start_from",
    "suited",
]

SUITED: Mapping[str, Any] = {"passes": 1, "gamma": 1.0, "sharpening": 0.0}
"""Settings that weights may have of their own, and their values for weights without."""


def recommended(weights: str, setting: str, default: Any = None) -> Any:
    """Look up a setting that suits some weights, such as the ``spacing_mm`` they were trained at.

    Args:
        weights: path of the weights; ``NAME.json`` beside ``NAME.pt`` describes them.
        setting: key of the description.
        default: for weights without a description, or one that lacks the setting.
    """
    description = Path(weights).with_suffix(".json")
    return json.loads(description.read_text()).get(setting, default) if description.is_file() else default


def _within(weights: str, setting: str, default: float, low: float, high: float) -> float:
    """Look up a number that weights are described by; a ValueError says if it is none from ``low`` to ``high``."""
    value = recommended(weights, setting, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        description = Path(weights).with_suffix(".json")
        raise ValueError(f"{setting} in {description} is a number from {low:g} to {high:g}, not {json.dumps(value)}.")
    return float(value)


def one_person_from(weights: str) -> float:
    """Look up the ``contrast_correlation`` from which weights take two scans of one person to look alike.

    Args:
        weights: path of the weights.

    Raises:
        ValueError: their description says what is no correlation.
    """
    return _within(weights, "one_person_from", ALIKE_FROM, -1.0, 1.0)


def check_there(path: str | Path) -> None:
    """Refuse weights that are not there; of those in ``models`` of no bundle, as configs name them, say where it is.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        PermissionError: it may not be read.
    """
    if str(path).startswith("./models/") and not Path("models").is_dir():
        raise FileNotFoundError(f"The weights ({path}) do not exist, as this is no bundle: add --bundle_root {ROOT}")
    check_file(path, "weights", "do")


def check_weights(network: nn.Module, path: str) -> None:
    """Compare the names and shapes of a weights file with a network's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file, or one of another network.
    """
    check_there(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if "trainer" not in state}
    except Exception as error:  # pickle, zip and torch each raise their own
        raise ValueError(f"The weights ({path}) cannot be read as a PyTorch state dict.") from error
    if "trainer" in state:
        raise ValueError(f"{path} is what a training goes on from, no weights: take model.pt beside it, its best ones.")
    network = network.module if hasattr(network, "module") else network  # type: ignore[assignment]
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if shapes != expected:
        differing = sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
        raise ValueError(
            f"The weights ({path}) belong to another network: {len(differing)} parameters differ, first "
            f"'{differing[0]}' ({shapes.get(differing[0])} in the file, {expected.get(differing[0])} in the network). "
            f"Which network they belong to stands in {Path(path).with_suffix('.json').name} (docs/peers.md)."
        )


def check_finite(ddf: DDF, weights: str | None = None) -> None:
    """Refuse what a network finds where it is no field: nothing that is done with it would say why.

    Args:
        ddf: any shape.
        weights: path of the network's weights, empty if it is not known; None for those in training.

    Raises:
        OutcomeError: a displacement is NaN or infinite.
    """
    if all(math.isfinite(bound) for bound in ddf.aminmax()):
        return
    advice = "Take others, or compute in float32."
    if weights is None:
        advice = "Train anew with a lower --learning_rate, or with --amp False."
    raise OutcomeError(
        f"The network found displacements that are no numbers (NaN or infinite): its weights "
        f"{f'({weights}) ' if weights else ''}have diverged, or numbers overflow in half precision. {advice}"
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


def start_from(network: nn.Module, weights: str) -> None:
    """Load the weights that a training starts from; those of one network alone start each of a cascade.

    Args:
        network: to be trained.
        weights: path of a state dict, written on any device; empty leaves the network as it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file, or one of another network.
    """
    if not weights:
        return
    try:
        check_weights(network, weights)
    except ValueError:
        if not isinstance(network, Cascade):
            raise
        check_weights(network.networks[0], weights)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))


def content(weights: str) -> str:
    """Name weights by what the file holds, wherever it lies; empty for no file.

    Raises:
        FileNotFoundError: no such file.
    """
    if not weights:
        return ""
    check_there(weights)
    return f"weights with the SHA-256 {fingerprint(weights)['sha256'][:16]}…"


def suited(weights: str, **asked: Any) -> dict[str, Any]:
    """Settle the settings of ``SUITED``: what was asked for, or what suits some weights where it is None."""
    found = {name: recommended(weights, name, default) for name, default in SUITED.items()}
    return found | {name: value for name, value in asked.items() if value is not None}


class WeightsChoice:
    """Which weights register a pair, by how its aligned images correlate (``bundle.similarity.likeness``).

    ``NAME.json`` beside ``NAME.pt`` may name two other files there: ``across_contrasts``, for pairs whose
    ``tissue_correlation`` is below ``one_contrast``, and ``one_person``, for those of one person whose
    ``contrast_correlation`` is ``one_person_from`` at least: two scans in which little has changed. Those of one person
    that correlate less, though their anatomy lies over each other, show two contrasts, more likely than not: they are
    registered across contrasts, too. Each file is loaded when it is needed first.

    Where too little is shown to tell contrasts, the usual weights are taken. Where ``usual_share`` is named, both
    networks register two people's images of two contrasts, and the field is the mean in which the usual one counts
    that much.

    Args:
        network: of the architecture of all files.
        weights: path of the usual weights.
        device: to run on.
        enabled: False takes the usual weights for every pair.
        same_person: whether the pairs are of one person.
        asked: settings of ``SUITED`` that hold for all weights; None, or none, for what suits those that are taken.

    Raises:
        ValueError: a description that says what cannot be.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: str,
        device: torch.device | str = "cpu",
        enabled: bool = True,
        same_person: bool = False,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        def named(key: str) -> str | None:
            name = recommended(weights, key) if enabled else None
            return str(Path(weights).with_name(name)) if name else None

        self.usual, self.across_contrasts = weights, named("across_contrasts")
        self.same_person = same_person
        self.one_person = named("one_person") if same_person else None
        self.asked = {name: value for name, value in (asked or {}).items() if value is not None}
        self.network, self.device, self.loaded = network, device, dict[str, nn.Module]()
        self.one_contrast = _within(weights, "one_contrast", -1.0, -1.0, 1.0)
        self.one_person_from = one_person_from(weights)
        self.share = 0.0 if self.one_person else _within(weights, "usual_share", 0.0, 0.0, 1.0)

    def network_for(self, alike: Mapping[str, float], usual: Callable[..., Any]) -> Callable[..., Any]:
        """Choose the network for a pair; ``usual`` is the one with the usual weights."""
        file = self.weights_for(alike)
        if file == self.usual:
            return usual
        if file not in self.loaded:
            self.loaded[file] = load_frozen(copy.deepcopy(self.network), file, self.device)
        return self.loaded[file]

    def weights_for(self, alike: Mapping[str, float]) -> str:
        """Name the file of that network's weights; ``alike`` holds what ``likeness`` says of the pair, maybe more."""
        if self.one_person and alike["contrast_correlation"] >= self.one_person_from:
            return self.one_person
        tissues = alike["tissue_correlation"]  # 0 where too little is shown to tell
        differ = bool(self.one_person) or (tissues != 0 and tissues < self.one_contrast)
        return self.across_contrasts if self.across_contrasts and differ else self.usual

    def usual_share(self, alike: Mapping[str, float]) -> float:
        """How much the usual weights' field counts beside that of ``weights_for``, from 0 to 1."""
        return self.share if self.weights_for(alike) == self.across_contrasts else 0.0

    def settings_for(self, alike: Mapping[str, float], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Bring settings to what suits the file for such a pair; those that were asked for stay.

        Where two networks register it, ``averaged_with`` names the usual one.
        """
        found, chosen = dict(settings), self.weights_for(alike)
        found |= {name: value for name, value in suited(chosen).items() if name in found and name not in self.asked}
        share = self.usual_share(alike)
        return found | {"averaged_with": {**self._usual_file, "share": share}} if share else found

    @cached_property
    def _usual_file(self) -> dict[str, str]:
        path = Path(self.usual)
        return {"weights": path.name, "weights_sha256": fingerprint(path)["sha256"]}
