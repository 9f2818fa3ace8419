"""The methods that are compared: each finds a field between two images that one pre-alignment brought onto one grid."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.handlers import check_weights
from bundle.inferers import recommended
from bundle.io.itk import ddf_from_itk, orthonormal
from bundle.root import ROOT
from bundle.shapes import DDF
from bundle.spatial import Grid, Matrix
from monai.bundle import ConfigParser

__all__ = [
    "METHODS",
    "SYN_ITERATIONS",
    "Elastix",
    "Linear",
    "Method",
    "Network",
    "Options",
    "Register",
    "Syn",
    "make_methods",
]

SYN_ITERATIONS = (100, 70, 20)
"""Of SyN, at a quarter, half and the whole of the resolution; the package's own 40, 20, 0 ends at half."""

Register: TypeAlias = Callable[[torch.Tensor, Grid], DDF]
"""Maps moving and fixed image, (1, 2, H, W, L) in [0, 1], and their grid to a field, (3, H, W, L), voxels."""


class Method(Protocol):
    """What is compared. Small, so that it can be sent to another process; ``load`` does what takes time and memory."""

    @property
    def aligned(self) -> bool:
        """Whether it starts from the pre-alignment; otherwise from the headers alone."""

    @property
    def spacing_mm(self) -> float | None:
        """Voxel size that it works at; None for the fixed image's own."""
        return None

    def settings(self) -> dict[str, Any]:
        """List all that its result depends on besides the images, for JSON."""

    def load(self) -> Register | None:
        """Get ready, first-use costs included; None for a method without a field."""


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
        device: that torch runs it on.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the weights belong to another network.
    """

    weights: str
    overrides: tuple[str, ...] = ()
    optimise: int = 0
    device: str = "cpu"
    aligned: bool = True

    @property
    def spacing_mm(self) -> float | None:
        """See ``Method``."""
        found: float | None = recommended(self.weights, "spacing_mm")
        return found

    def __post_init__(self) -> None:
        check_weights(self._config().get_parsed_content("network_def"), self.weights)

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        config = self._config()
        return {
            "network": config["network_def"],
            **{name: config.get_parsed_content(name) for name in ("passes", "gamma", "sharpening")},
            "spacing_mm": self.spacing_mm,
            "weights_sha256": hashlib.sha256(Path(self.weights).read_bytes()).hexdigest(),
            "optimise": self.optimise,
            "device": self.device,
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
            return pred[0, 1:].cpu()

        register(torch.rand(1, 2, 32, 32, 32), Grid((32, 32, 32), np.eye(4)))  # kernels chosen, caches warm
        return register

    def _config(self) -> ConfigParser:
        config = ConfigParser()
        config.read_config([str(ROOT / "configs" / f"{name}.json") for name in ("inference", *self.overrides)])
        config["ckpt"], config["optimise"] = self.weights, self.optimise
        config["device"] = f"$torch.device('{self.device}')"
        return config


@dataclass(frozen=True)
class Syn(Method):
    """Symmetric diffeomorphic normalisation by ANTs, from the pre-aligned image on, without a linear stage of its own.

    Args:
        metric: ``"mattes"`` (mutual information) or ``"CC"`` (local cross-correlation).
        sampling: bins of the histogram, or radius of the correlation's window in voxels.
        iterations: at a quarter, half and the whole of the resolution.

    Raises:
        ValueError: the package is not installed.
    """

    metric: str
    sampling: int
    iterations: tuple[int, ...] = SYN_ITERATIONS
    aligned: bool = True

    def __post_init__(self) -> None:
        require("ants", f"SyN ({self.metric})")

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        return asdict(self) | {"antspyx": version("antspyx")}

    def load(self) -> Register:
        """See ``Method``."""
        import ants

        def register(image: torch.Tensor, grid: Grid) -> DDF:
            geometry = dict(zip(("origin", "spacing", "direction"), _geometry(grid)))
            moving, fixed = (ants.from_numpy(channel.numpy(), **geometry) for channel in image[0])
            with tempfile.TemporaryDirectory() as folder:
                found = ants.registration(
                    fixed,
                    moving,
                    type_of_transform="SyNOnly",
                    initial_transform="Identity",
                    outprefix=f"{folder}/",
                    syn_metric=self.metric,
                    syn_sampling=self.sampling,
                    reg_iterations=self.iterations,
                )
                warps = [path for path in found["fwdtransforms"] if path.endswith("Warp.nii.gz")]
                return ddf_from_itk(sitk.ReadImage(warps[0]))[0]

        return register


@dataclass(frozen=True)
class Elastix(Method):
    """Cubic B-splines by elastix, with its default parameters, from the pre-aligned image on.

    Raises:
        ValueError: the package is not installed.
    """

    aligned: bool = True

    def __post_init__(self) -> None:
        require("itk.ElastixPython", "elastix")

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        return {"parameters": "bspline", "itk-elastix": version("itk-elastix")}

    def load(self) -> Register:
        """See ``Method``."""
        import itk

        def register(image: torch.Tensor, grid: Grid, **parameters: str) -> DDF:
            moving, fixed = (_to_itk(channel, grid) for channel in image[0])
            chosen = itk.ParameterObject.New()
            settings = chosen.GetDefaultParameterMap("bspline")
            for name, value in parameters.items():
                settings[name] = (value,)
            chosen.AddParameterMap(settings)
            _, found = itk.elastix_registration_method(fixed, moving, parameter_object=chosen, log_to_console=False)
            with tempfile.TemporaryDirectory() as folder:  # it writes the field to a file as well
                field = itk.transformix_deformation_field(moving, found, output_directory=folder)
            field_mm = itk.array_from_image(field)
            mm = torch.from_numpy(np.ascontiguousarray(field_mm.transpose(3, 2, 1, 0)))
            return torch.einsum("ij,jhwl->ihwl", torch.from_numpy(grid.inverse[:3, :3]).float(), mm.float())

        # the toolkit loads its modules at their first use, which takes seconds
        register(_blobs(), Grid((32, 32, 32), np.eye(4)), MaximumNumberOfIterations="1")
        return register


def _to_itk(channel: torch.Tensor, grid: Grid) -> Any:
    """Make an image of the itk package, (H, W, L) on ``grid``."""
    import itk

    image = itk.image_from_array(np.ascontiguousarray(channel.numpy().transpose(2, 1, 0)))
    origin, spacing, direction = _geometry(grid)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(itk.matrix_from_array(direction))
    return image


def _geometry(grid: Grid) -> tuple[list[float], list[float], Matrix]:
    """Describe a grid as ITK does, mm, LPS: origin, spacing, and the 3×3 direction."""
    return grid.origin_mm.tolist(), grid.spacing_mm.tolist(), orthonormal(grid.direction)


def _blobs() -> torch.Tensor:
    """Draw two balls a voxel apart, (1, 2, 32, 32, 32)."""
    axis = torch.arange(32.0) - 15.5
    squares = [(axis - shift) ** 2 for shift in (0.0, 1.0)]
    rest = axis[:, None] ** 2 + axis**2
    return torch.stack([torch.exp(-(s[:, None, None] + rest) / 50) for s in squares])[None]


def require(module: str, method: str) -> None:
    """Check that a peer's package is there.

    Raises:
        ValueError: it is not.
    """
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError(f"The method {method} needs a package that is not installed: pip install -e .[peers]")


@dataclass(frozen=True)
class Options:
    """What a user chooses of the methods.

    Args:
        weights: of PAN.
        voxelmorph_weights: of VoxelMorph.
        optimise: most steps of the pairwise optimisation.
        syn_iterations: of SyN, at a quarter, half and the whole of the resolution.
        device: that torch runs the networks on.
    """

    weights: str
    voxelmorph_weights: str | None = None
    optimise: int = 5
    syn_iterations: tuple[int, ...] = SYN_ITERATIONS
    device: str = "cpu"


def _voxelmorph(options: Options) -> Network:
    if not options.voxelmorph_weights:
        raise ValueError(
            "The method voxelmorph needs --voxelmorph_weights: train them with --config_file "
            "\"['configs/train.json','configs/voxelmorph.json']\"."
        )
    return Network(options.voxelmorph_weights, ("voxelmorph",), device=options.device)


METHODS: Mapping[str, Callable[[Options], Method]] = {
    "identity": lambda _: Linear(aligned=False),
    "affine": lambda _: Linear(),
    "pan": lambda o: Network(o.weights, device=o.device),
    "pan-optimised": lambda o: Network(o.weights, optimise=o.optimise, device=o.device),
    "voxelmorph": _voxelmorph,
    "syn-mi": lambda o: Syn("mattes", 32, o.syn_iterations),
    "syn-cc": lambda o: Syn("CC", 2, o.syn_iterations),
    "elastix": lambda _: Elastix(),
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
