"""The methods of other packages, from the pre-aligned image on: ANTs, elastix, greedy, ConvexAdam."""

import tempfile
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.benchmark.method import Method, Register
from bundle.io.itk import ddf_from_itk, orthonormal
from bundle.shapes import DDF
from bundle.spatial import Grid, Matrix

__all__ = ["SYN_ITERATIONS", "ConvexAdam", "Elastix", "Greedy", "Syn"]

SYN_ITERATIONS = (100, 70, 20)
"""Of SyN, at a quarter, half and the whole of the resolution; the package's own 40, 20, 0 ends at half."""
GREEDY_GRADIENT_SIGMA = 1.7321
"""Of greedy, voxels: how far the gradient of the metric is smoothed, its own setting."""


@dataclass(frozen=True)
class Syn(Method):
    """Symmetric diffeomorphic normalisation by ANTs, from the pre-aligned image on, without a linear stage of its own.

    Args:
        metric: ``"mattes"`` (mutual information) or ``"CC"`` (local cross-correlation).
        sampling: bins of the histogram, or radius of the correlation's window in voxels.
        iterations: at a quarter, half and the whole of the resolution.
        flow_sigma: how far the velocities are smoothed, in voxels of each resolution; the package's own by default.

    Raises:
        ValueError: the package is not installed.
    """

    metric: str
    sampling: int
    iterations: tuple[int, ...] = SYN_ITERATIONS
    flow_sigma: float = 3
    aligned: bool = True

    def __post_init__(self) -> None:
        require("ants", f"SyN ({self.metric})")

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        own = asdict(self)
        if self.flow_sigma == 3:
            del own["flow_sigma"]  # results of the package's own setting keep their names
        return own | {"antspyx": version("antspyx")}

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
                    flow_sigma=self.flow_sigma,
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


@dataclass(frozen=True)
class Greedy(Method):
    """Greedy diffeomorphic registration by PICSL greedy, its deformable stage alone.

    The images are handed over in memory, by SimpleITK: beside another toolkit of ITK it finds no readers of files. The
    field comes back whole (``-wp 0``): by default greedy rounds it to a tenth of a voxel.

    Args:
        metric: ``"NCC 2x2x2"`` (local correlation, the radius in voxels), ``"WNCC 2x2x2"`` or ``"NMI"``.
        iterations: from a quarter of the resolution on, as SyN's.
        warp_sigma: how far the field is smoothed in every step, in voxels of each resolution; its own by default.

    Raises:
        ValueError: the package is not installed.
    """

    metric: str = "NCC 2x2x2"
    iterations: tuple[int, ...] = SYN_ITERATIONS
    warp_sigma: float = 0.7071
    aligned: bool = True

    def __post_init__(self) -> None:
        require("picsl_greedy", f"greedy ({self.metric})")

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        return asdict(self) | {"picsl_greedy": version("picsl_greedy")}

    def load(self) -> Register:
        """See ``Method``."""
        from picsl_greedy import Greedy3D

        steps = "x".join(map(str, self.iterations))

        def register(image: torch.Tensor, grid: Grid) -> DDF:
            moving, fixed = (_to_simpleitk(channel, grid) for channel in image[0])
            tool = Greedy3D()
            tool.execute(
                f"-V 0 -threads {torch.get_num_threads()} -i the_fixed the_moving -m {self.metric} -n {steps} "
                f"-s {GREEDY_GRADIENT_SIGMA}vox {self.warp_sigma}vox -wp 0 -o the_warp",
                the_fixed=fixed,
                the_moving=moving,
                the_warp=None,
            )
            return ddf_from_itk(tool["the_warp"])[0].float()

        return register


@dataclass(frozen=True)
class ConvexAdam(Method):
    """Coupled convex optimisation of MIND-SSC descriptors, refined by Adam, with the package's own settings.

    Args:
        device: that torch runs it on.

    Raises:
        ValueError: the package is not installed.
    """

    device: str = "cpu"
    aligned: bool = True

    def __post_init__(self) -> None:
        require("convexAdam", "convexadam")

    def settings(self) -> dict[str, Any]:
        """See ``Method``."""
        return asdict(self) | {"convexAdam": version("convexAdam")}

    def load(self) -> Register:
        """See ``Method``."""
        with warnings.catch_warnings():  # the package silences all warnings of the process when it is imported
            from convexAdam.convex_adam_MIND import convex_adam_pt

        precision = torch.float32 if self.device == "cpu" else torch.float16

        def register(image: torch.Tensor, grid: Grid) -> DDF:
            moving, fixed = image[0]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, as the package has it
                found = convex_adam_pt(fixed, moving, device=torch.device(self.device), dtype=precision)
            return torch.from_numpy(found).movedim(-1, 0).float()

        return register


def _to_simpleitk(channel: torch.Tensor, grid: Grid) -> sitk.Image:
    """Make an image of SimpleITK, (H, W, L) on ``grid``."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(channel.numpy().transpose(2, 1, 0)))
    origin, spacing, direction = _geometry(grid)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.flatten().tolist())
    return image


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


PACKAGES = {
    "ants": "antspyx",
    "itk.ElastixPython": "itk-elastix",
    "picsl_greedy": "picsl-greedy",
    "convexAdam": "convexAdam",
}


def require(module: str, method: str) -> None:
    """Check that a peer's package is there.

    Args:
        module: of ``PACKAGES``.
        method: what a message calls the peer.

    Raises:
        ValueError: it is not.
    """
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError(
            f"The method {method} needs the package {PACKAGES[module]}, which is not installed: install it in an "
            "environment for comparisons (docs/benchmark.md of the repository, How to run it)."
        )
