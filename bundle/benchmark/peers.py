"""The methods of other packages: ANTs and elastix, from the pre-aligned image on."""

import tempfile
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

__all__ = ["SYN_ITERATIONS", "Elastix", "Syn"]

SYN_ITERATIONS = (100, 70, 20)
"""Of SyN, at a quarter, half and the whole of the resolution; the package's own 40, 20, 0 ends at half."""


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
