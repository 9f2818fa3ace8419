"""The methods that are compared: each finds a field between two images that one pre-alignment brought onto one grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.benchmark.equal_terms import NETWORKS
from bundle.benchmark.method import Method, Register
from bundle.benchmark.peers import SYN_ITERATIONS, ConvexAdam, Elastix, Greedy, Syn
from bundle.io.files import fingerprint
from bundle.options import as_text
from bundle.root import ROOT
from bundle.shapes import DDF
from bundle.smoothing import smooth
from bundle.spatial import Grid
from bundle.weights import SUITED, check_weights, recommended
from monai.bundle import ConfigParser

__all__ = ["METHODS", "PEERS", "Linear", "Network", "Options", "make_methods"]


@dataclass(frozen=True)
class Linear(Method):
    """No field at all: the headers, or the pre-alignment.

    Args:
        aligned: whether the pre-alignment counts.
    """

    aligned: bool = True

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        return {"aligned": self.aligned}

    def load(self) -> None:
        """See ``Method``."""


@dataclass(frozen=True)
class Network(Method):
    """A trained network, built and run as ``configs/inference.json`` and what overrides it say.

    Args:
        weights: path of its state dict; ``NAME.json`` beside ``NAME.pt`` says which settings suit it.
        overrides: names of configs after ``inference``: one with another ``network_def``, say.
        optimise: most steps of pairwise optimisation from the network's field on.
        similarity: that it goes by: auto, ncc or mind.
        smoothing: of its field by a Gaussian of this standard deviation, in voxels; 0 for none.
        symmetric: find the field both ways, meeting halfway; the pre-alignment stays that of all methods.
        device: that torch runs it on.
        remove_folds: smooth its field where it folds, as registration does.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the weights belong to another network.
    """

    weights: str
    overrides: tuple[str, ...] = ()
    optimise: int = 0
    similarity: str = "ncc"
    smoothing: float = 0.0
    symmetric: bool = False
    device: str = "cpu"
    remove_folds: bool = True
    aligned: bool = True

    @property
    def spacing_mm(self) -> float | None:
        """See ``Method``."""
        found: float | None = recommended(self.weights, "spacing_mm")
        return found

    def __post_init__(self) -> None:
        check_weights(self._config().get_parsed_content("cascade_def"), self.weights)

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        config = self._config()
        return {
            "network": config["network_def"],
            **config.get_parsed_content("network_settings"),
            "spacing_mm": self.spacing_mm,
            **self._digests(config),
            "optimise": self.optimise,
            "similarity": self.similarity,
            "device": self.device,
            "bfloat16": config.get_parsed_content("settings::bfloat16"),  # of PAN, where the CPU computes in it
            **({"smoothing": self.smoothing} if self.smoothing else {}),
            **({"symmetric": True} if self.symmetric else {}),
            **({} if self.remove_folds else {"remove_folds": False}),
            **({"cascades": cascades} if (cascades := config.get_parsed_content("cascades")) > 1 else {}),
        }

    def load(self) -> Register:
        """See ``Method``."""
        config = self._config()
        network, inferer = config.get_parsed_content("network"), config.get_parsed_content("inferer")
        network.load_state_dict(torch.load(self.weights, map_location=self.device, weights_only=True))
        network.eval()

        def register(image: torch.Tensor, grid: Grid) -> DDF:
            with torch.no_grad():
                pred: torch.Tensor = inferer(image.to(self.device), network)
                ddf = smooth(pred[:, 1:], self.smoothing) if self.smoothing else pred[:, 1:]
            return ddf[0].cpu()

        register(torch.rand(1, 2, 32, 32, 32), Grid((32, 32, 32), np.eye(4)))  # kernels chosen, caches warm
        return register

    def _digests(self, config: ConfigParser) -> dict[str, Any]:
        """SHA-256 of the weights, and of others that a pair may be registered with; what suits them, when both do."""
        choice = config.get_parsed_content("weights_choice")
        files = {"weights": self.weights, "across_contrasts": choice.across_contrasts, "one_person": choice.one_person}
        suited = {
            f"{k}_suited": {name: recommended(file, name, default) for name, default in SUITED.items()}
            for k, file in files.items()
            if file and k != "weights"
        }
        digest = {k: fingerprint(file)["sha256"] for k, file in files.items() if file}
        shared = {"usual_share": choice.share} if choice.share else {}
        shared |= {"one_contrast": choice.one_contrast} if choice.across_contrasts else {}
        return {f"{k}_sha256": value for k, value in digest.items()} | suited | shared

    def _config(self) -> ConfigParser:
        config = ConfigParser()
        config.read_config([str(ROOT / "configs" / f"{name}.json") for name in ("inference", *self.overrides)])
        config["ckpt"], config["optimise"] = as_text(self.weights), self.optimise
        config["similarity"], config["symmetric"] = self.similarity, self.symmetric
        config["remove_folds"] = self.remove_folds
        config["device"] = f"$torch.device('{self.device}')"
        return config


@dataclass(frozen=True)
class Options:
    """What a user chooses of the methods.

    Args:
        weights: of PAN.
        voxelmorph_weights: of VoxelMorph.
        peer_weights: folder that ``benchmark networks`` has put them into, NAME.pt for each network.
        optimise: most steps of the pairwise optimisation.
        syn_iterations: of SyN, at a quarter, half and the whole of the resolution.
        device: that torch runs the networks on.
        remove_folds: of the networks: see ``Network``.
    """

    weights: str
    voxelmorph_weights: str | None = None
    peer_weights: str | None = None
    optimise: int = 5
    syn_iterations: tuple[int, ...] = SYN_ITERATIONS
    device: str = "cpu"
    remove_folds: bool = True


def _pan(**settings: Any) -> Callable[[Options], Network]:
    """Make what builds PAN with some settings."""
    return lambda o: Network(o.weights, device=o.device, remove_folds=o.remove_folds, **settings)


def _peer_network(name: str) -> Callable[[Options], Network]:
    """Make what builds a peer by its weights."""

    def build(options: Options) -> Network:
        weights = options.voxelmorph_weights if name == "voxelmorph" else None
        if not weights and options.peer_weights:
            weights = str(Path(options.peer_weights) / f"{name}.pt")
        if not weights:
            own = "--voxelmorph_weights or " if name == "voxelmorph" else ""
            raise ValueError(
                f"The method {name} needs {own}--peer_weights: train them with 'python -m bundle benchmark networks' "
                f"or --config_file \"['configs/train.json','configs/{NETWORKS[name][0]}.json']\"."
            )
        return Network(weights, NETWORKS[name], device=options.device, remove_folds=options.remove_folds)

    return build


PEERS: Mapping[str, Callable[[Options], Syn | Elastix | Greedy | ConvexAdam]] = {
    "syn-mi": lambda o: Syn("mattes", 32, o.syn_iterations),
    "syn-cc": lambda o: Syn("CC", 2, o.syn_iterations),
    "elastix": lambda _: Elastix(),
    "greedy": lambda o: Greedy(iterations=o.syn_iterations),
    "greedy-nmi": lambda o: Greedy("NMI", iterations=o.syn_iterations),
    "convexadam": lambda o: ConvexAdam(o.device),
}
METHODS: Mapping[str, Callable[[Options], Method]] = {
    "identity": lambda _: Linear(aligned=False),
    "affine": lambda _: Linear(),
    "pan": _pan(),
    "pan-mind": _pan(optimise=25, similarity="mind"),
    "pan-optimised": lambda o: _pan(optimise=o.optimise)(o),
    "pan-symmetric": _pan(symmetric=True),
    **{name: _peer_network(name) for name in NETWORKS if name != "pan"},
    **PEERS,
}


def make_methods(names: Sequence[str], options: Options) -> dict[str, Method]:
    """Build the methods of some names, checked: what they need is there.

    Args:
        names: of ``METHODS``, each once.
        options: what the user chose.

    Returns:
        Methods by name, in the order of ``names``.

    Raises:
        ValueError: an unknown name, one given twice, or what a method needs is missing.
        FileNotFoundError: no such weights.
    """
    if not names or len(set(names)) < len(names) or not set(names) <= set(METHODS):
        raise ValueError(f"--methods takes some of {','.join(METHODS)}, each once, not '{','.join(names)}'.")
    return {name: METHODS[name](options) for name in names}
