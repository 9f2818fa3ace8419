"""How far a registration is likely to be off at each voxel: by how much the network varies when it runs again."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from bundle.fields import warp
from bundle.inferers import RecursiveInferer
from bundle.intensity import foreground
from bundle.options import check_flags, check_numbers
from bundle.shapes import DDF
from bundle.smoothing import smooth
from bundle.spatial import Grid, sample
from bundle.transforms import grid_of
from monai.networks.utils import eval_mode
from monai.transforms import Transform
from torch import nn

__all__ = ["SIGNS", "MapExpectedErrord", "disagreement"]

Item = dict[Hashable, Any]
Field = Callable[[torch.Tensor], DDF]

SIGNS = ("inconsistency", "mirrored", "shifted")
SHIFT = 2.0, -2.0, 2.0  # voxels, of the moving image alone: whole ones, which nothing has to interpolate
NOISE = 0.03  # standard deviation, of both images, in [0, 1]
SMOOTHING = 3.0  # voxels: at a single one, fields that are wrong may agree by chance
UNCALIBRATED = (
    "expected error: made for other weights or another voxel size: it tells where the error is larger, not its mm "
    "(python -m bundle benchmark expected_error calibrates it)"
)
LARGE_MM = 2.0  # errors above this are counted


class MapExpectedErrord(Transform):
    """Estimate at every voxel how far the registration is off: adds ``expected_error``, (1, H, W, L), mm.

    The network runs three times more: the other way round, on mirrored images, and with the moving image shifted and
    both noisier. How far the results are apart, in mm, is brought to a mean error by a linear calibration on pairs
    whose true deformation is known (``python -m bundle benchmark expected_error``). Errors that all four results
    share, as where one anatomy has a fold that the other lacks, show in none of them.

    The map lies on the fixed image's grid; beyond the network's grid its outermost values go on. Also adds
    ``disagreement``, (3, H, W, L), mm, on the network's grid; and to ``quality``, over what the fixed image shows,
    ``expected_error_mean_mm``, ``…_median_mm``, ``…_p95_mm`` and ``expected_error_above_2mm_percent``.

    Args:
        network: the evaluator's.
        inferer: the evaluator's; it says how the network runs.
        calibration: ``offset``, mm, and a factor for each of ``SIGNS``, none below 0.
        calibrated: whether it was made for these weights at this voxel size; if not, a note says so.
        amp: let convolutions run in half precision on a GPU, as the evaluator does.

    Raises:
        ValueError: a calibration without one of its numbers, or with one below 0.
    """

    def __init__(
        self,
        network: nn.Module,
        inferer: RecursiveInferer,
        calibration: Mapping[str, float],
        calibrated: bool = True,
        amp: bool = False,
    ) -> None:
        check_flags(amp=amp, calibrated=calibrated)
        names = ("offset", *SIGNS)
        if set(calibration) != set(names):
            raise ValueError(f"The calibration of the expected error has {', '.join(names)}; got {dict(calibration)}.")
        check_numbers(**calibration)
        if min(calibration.values()) < 0:
            raise ValueError(f"The calibration of the expected error has a number below 0: {dict(calibration)}.")
        self.network, self.inferer, self.amp, self.calibrated = network, inferer, amp, calibrated
        self.calibration = {name: float(calibration[name]) for name in names}

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Run the network again, and map."""
        item, start = dict(data), time.perf_counter()
        grid = grid_of(item["image"])
        signs = self._signs(item, grid).cpu()
        offset, *factors = self.calibration.values()
        on_network_grid = offset + sum(factor * sign for factor, sign in zip(factors, signs))
        item["disagreement"] = signs
        choice = self.inferer.weights_choice
        usual = choice is None or choice.weights_for(item["quality"]) == choice.usual
        if not (self.calibrated and usual):
            item["notes"] = "\n".join(filter(None, [item.get("notes", ""), UNCALIBRATED]))
        item["expected_error"] = _on_grid(on_network_grid[None], grid, grid_of(item["fixed"]))
        shown = foreground(item["fixed"].as_tensor()[0].cpu())
        item["quality"] = item["quality"] | _summary(item["expected_error"][0][shown])
        item["seconds"] = {**item.get("seconds", {}), "expected_error": time.perf_counter() - start}
        return item

    @torch.no_grad()
    def _signs(self, item: Item, grid: Grid) -> torch.Tensor:
        pred = item["pred"].as_subclass(torch.Tensor)
        image = item["image"].as_subclass(torch.Tensor).to(pred.device)[None]
        one_way, network = self.inferer.for_pair(image, self.network, item["quality"])  # which chose before
        one_way.symmetric = False  # meeting halfway, both directions agree by construction

        def field(inputs: torch.Tensor) -> DDF:
            with torch.autocast(pred.device.type, enabled=self.amp and pred.is_cuda):
                found = one_way(inputs, network)[:, 1:]
            return found.float().clone()  # a compiled network writes every result to the same place

        with eval_mode(self.network):
            halfway = self.inferer.symmetric and not item["quality"].get("field_dropped")
            found = field(image) if halfway else pred[None, 1:]
            return disagreement(image, found, field, grid)


def disagreement(image: torch.Tensor, ddf: DDF, field: Field, grid: Grid) -> torch.Tensor:
    """Measure how far the field of a pair is from what the network finds when it runs in another way.

    Args:
        image: (1, 2, H, W, L), moving and fixed, in [0, 1].
        ddf: the field of the pair, (1, 3, H, W, L), voxels.
        field: finds a field for two images; it is called three times.
        grid: of all of them.

    Returns:
        (3, H, W, L), mm, smoothed: |f(x) + b(x + f(x))| for the field b of the swapped images; |f − f′| for the field
        of the mirrored images, mirrored back; and likewise for the moving image shifted and both noisier.
    """
    backward = field(image.flip(1))
    apart = [ddf + warp(backward, ddf, padding="border")]
    apart.append(_mirrored(field(image.flip(2))) - ddf)
    shift = image.new_tensor(SHIFT).view(1, 3, 1, 1, 1)
    apart.append(field(_shifted_and_noisy(image, shift.expand_as(ddf))) + shift - ddf)
    matrix = torch.from_numpy(grid.affine[:3, :3]).to(ddf)
    lengths = [torch.einsum("ij,bjhwl->bihwl", matrix, one).norm(dim=1, keepdim=True) for one in apart]
    return torch.cat([smooth(length, SMOOTHING) for length in lengths], 1)[0]


def _mirrored(ddf: DDF) -> DDF:
    """Mirror a field along its first axis, left to right on the network's grid."""
    return ddf.flip(2) * ddf.new_tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1, 1)


def _shifted_and_noisy(image: torch.Tensor, shift: DDF) -> torch.Tensor:
    """Shift the moving image, and add the same noise every time to what both images show."""
    moved = torch.cat([warp(image[:, :1], shift, padding="border"), image[:, 1:]], 1)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image.device)
    return (moved + NOISE * noise * (moved > 0)).clamp(0, 1)


def _on_grid(image: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """Sample an image, (1, H, W, L), at another grid's voxels; its outermost values go on: float32."""
    sampled = torch.empty(1, *target.shape)
    for rows, points in target.slabs():
        sampled[:, rows] = sample(image, grid, points, fill=None).float()
    return sampled


def _summary(values: torch.Tensor) -> dict[str, float]:
    """Sum up the expected error, (n,), mm."""
    names = ("mean_mm", "median_mm", "p95_mm", "above_2mm_percent")
    if not len(values):
        return {f"expected_error_{name}": float("nan") for name in names}
    ordered = values.double().sort().values
    numbers = [float(ordered.mean())]
    numbers += [float(ordered[round(share * (len(ordered) - 1))]) for share in (0.5, 0.95)]
    numbers.append(100 * float((values > LARGE_MM).double().mean()))
    return {f"expected_error_{name}": value for name, value in zip(names, numbers)}
