"""How the network is run on a pair."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from bundle.fields import compose, warp
from bundle.gain import GainWeighting
from bundle.networks import PAN
from bundle.ops import check_bfloat16, streaming_in
from bundle.optimisation import PairwiseOptimiser, remove_folds
from bundle.options import check_flags, check_numbers
from bundle.shapes import DDF
from bundle.similarity import likeness
from bundle.smoothing import smooth
from bundle.symmetry import meet
from bundle.weights import WeightsChoice, check_finite
from monai.engines.utils import default_prepare_batch
from monai.inferers import SimpleInferer
from torch.utils._pytree import tree_map

__all__ = ["AutocastInferer", "RecursiveInferer", "prepare_pair", "runs_in_bfloat16"]

Alike = Mapping[str, float]
"""What ``likeness`` says of a pair, maybe more."""

UNSHARP_SIGMA = 0.7  # voxels


def prepare_pair(batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    """Split a batch for MONAI's evaluator into what the network sees and what ``RecursiveInferer`` is told of it.

    Args:
        batch: ``image``, and of ``MeasureLikenessd`` ``alike``; without, the inferer measures for itself.
        device: to move the tensors to.
        non_blocking: as for ``Tensor.to``.
        kwargs: of ``Tensor.to``.

    Returns:
        What MONAI's own function does, and the positional and named arguments of the inferer.
    """
    image, label = default_prepare_batch(batch, device, non_blocking, **kwargs)
    measured = batch.get("alike", {})
    if "tissue_correlation" not in measured:
        return image, label, (), {}
    alike = [{name: float(values[i]) for name, values in measured.items()} for i in range(len(image))]
    return image, label, (), {"alike": alike}


class AutocastInferer(SimpleInferer):
    """Train in bfloat16 on a CPU that computes it; MONAI's own mixed precision is for CUDA alone.

    Args:
        bfloat16: whether to; parameters, losses and their gradients stay float32 in any case.
    """

    def __init__(self, bfloat16: bool = False) -> None:
        super().__init__()
        check_flags(bfloat16=bfloat16)
        self.bfloat16 = bfloat16

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run ``network``; what it returns is float32."""
        if not self.bfloat16:
            return network(inputs, *args, **kwargs)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            found = network(inputs, *args, **kwargs)
        return tree_map(lambda value: value.float() if torch.is_tensor(value) else value, found)


class RecursiveInferer(SimpleInferer):
    """Run the network again on what it has aligned so far, and compose the fields: for large displacements.

    The image is interpolated once, by the composed field, however many passes there are.

    Args:
        passes: how often the network runs.
        remove_folds: smooth the field where it folds, and nowhere else.
        optimiser: refines the field for the pair afterwards, a symmetric one where the two images meet; None leaves it
            as it is.
        gamma: exponent of the intensities that the network sees; below 1 it lifts the darker tissues.
        sharpening: strength of an unsharp mask on what the network sees, 0 for none.
        gain_weighting: keeps the field where it makes the images more alike; None keeps it everywhere.
        symmetric: register both ways and meet halfway, so that with the images swapped the field is the inverse.
        weights_choice: which network to run for a pair, and with which settings; None runs one for all.
        bfloat16: let PAN convolve in bfloat16 on a CPU; fields, logits and all sums stay float32.
        field_alone: ask PAN for its field, and not for the image that it warps, which is the one of ``gamma`` and
            ``sharpening``. A compiled network is compiled for both.
        weights: path of the network's, to name them where they find no field.

    Raises:
        ValueError: less than one pass, an exponent that is not positive, or a negative strength; when called,
            bfloat16 on a GPU, or on a CPU that cannot convolve in it.
        OutcomeError: when called, displacements that are no numbers.
    """

    def __init__(
        self,
        passes: int = 1,
        remove_folds: bool = False,
        optimiser: PairwiseOptimiser | None = None,
        gamma: float = 1.0,
        sharpening: float = 0.0,
        gain_weighting: GainWeighting | None = None,
        symmetric: bool = False,
        weights_choice: WeightsChoice | None = None,
        bfloat16: bool = False,
        field_alone: bool = False,
        weights: str = "",
    ) -> None:
        super().__init__()
        check_flags(remove_folds=remove_folds, symmetric=symmetric, bfloat16=bfloat16, field_alone=field_alone)
        check_numbers(gamma=gamma, sharpening=sharpening)
        if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
            raise ValueError(f"The network runs a whole number of times, at least once, not {passes} times.")
        if gamma <= 0 or sharpening < 0:
            raise ValueError(f"gamma is above 0 and sharpening not below, got {gamma} and {sharpening}.")
        self.passes, self.remove_folds, self.optimiser = passes, remove_folds, optimiser
        self.gamma, self.sharpening, self.gain_weighting = gamma, sharpening, gain_weighting
        self.symmetric, self.weights_choice, self.weights = symmetric, weights_choice, weights
        # how much a second field counts, and what finds it: settled for a pair by ``for_pair``
        self.averaged_with: tuple[float, RecursiveInferer, Callable[..., torch.Tensor]] | None = None
        self.dtype, self.field_alone = torch.bfloat16 if bfloat16 else torch.float32, field_alone

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable[..., torch.Tensor],
        *args: Any,
        alike: Sequence[Alike | None] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Map ``image`` (B, 2, H, W, L) to ``pred`` (B, 4, H, W, L); ``alike`` is what is known of each pair."""
        inputs = inputs.as_subclass(torch.Tensor)
        if self.weights_choice is not None:
            known = [None] * len(inputs) if alike is None else alike
            if len(inputs) > 1:  # each pair has contrasts of its own
                return torch.cat([self(pair, network, alike=[one]) for pair, one in zip(inputs.split(1), known)])
            inferer, network = self.for_pair(inputs, network, known[0])
            return inferer(inputs, network)
        ddf = self._both_ways(inputs, network) if self.symmetric else self._one_way(inputs, network)
        return torch.cat([warp(inputs[:, :1], ddf), ddf], 1)

    def for_pair(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], alike: Alike | None = None
    ) -> tuple["RecursiveInferer", Callable[..., torch.Tensor]]:
        """Settle which network a pair, (1, 2, H, W, L), is registered by, however its images are changed later on.

        Args:
            inputs: the pair.
            network: with the usual weights.
            alike: what ``likeness`` said of the pair when it was matched; None measures it.

        Returns:
            An inferer that takes the network it is given, and that network.
        """
        settled = copy.copy(self)
        settled.weights_choice = None
        if self.weights_choice is None:
            return settled, network
        alike = likeness(inputs[0, :1], inputs[0, 1:]) if alike is None else alike
        settled.weights = self.weights_choice.weights_for(alike)
        names = ("passes", "gamma", "sharpening")
        suited = self.weights_choice.settings_for(alike, {name: getattr(self, name) for name in names})
        settled.passes, settled.gamma, settled.sharpening = (suited[name] for name in names)
        if self.gain_weighting is not None:
            settled.gain_weighting = self.gain_weighting.for_pair(alike)
        if share := self.weights_choice.usual_share(alike):
            settled.averaged_with = share, self, network
        return settled, self.weights_choice.network_for(alike, network)

    def _both_ways(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor]) -> DDF:
        """Find the field as ``_one_way``, so that with the images swapped it is the inverse."""
        first = copy.copy(self)
        first.optimiser = None  # what both ways have in common is there to be refined
        ddf = meet(inputs, partial(first._one_way, network=network), partial(self._one_way, network=network))
        return remove_folds(ddf) if self.remove_folds else ddf

    def _one_way(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor]) -> DDF:
        """Find the field, (B, 3, H, W, L), that pulls the first of two images, (B, 2, H, W, L), to the second."""
        ddf = self._passes(inputs, network)
        if self.averaged_with is not None:
            share, inferer, other = self.averaged_with
            ddf = torch.lerp(ddf, inferer._passes(inputs, other), share)
        ddf = ddf.clone() if self.symmetric else ddf
        if self.remove_folds and self.gain_weighting is None:  # weights remove most, and are measured before the rest
            ddf = remove_folds(ddf)
        if self.optimiser is not None:
            ddf = self.optimiser(inputs, ddf)
        if self.gain_weighting is not None:
            ddf = self.gain_weighting(inputs, ddf)
            ddf = remove_folds(ddf) if self.remove_folds else ddf
        return ddf

    def _passes(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor]) -> DDF:
        """Run the network as often as asked, and compose what it finds."""
        check_bfloat16(self.dtype == torch.bfloat16, inputs.device)
        with streaming_in(self.dtype):
            ddf = self._field(network, inputs, self.sharpen)
            for _ in range(self.passes - 1):
                ddf = ddf.clone()  # a compiled network writes every result to the same place
                seen = self.sharpen(inputs)
                ddf = compose(ddf, self._field(network, torch.cat([warp(seen[:, :1], ddf), seen[:, 1:]], 1)))
        check_finite(ddf, self.weights)
        return ddf

    def _field(
        self,
        network: Callable[..., torch.Tensor],
        pair: torch.Tensor,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> DDF:
        if self.field_alone and isinstance(network, PAN):
            return network.find_field(pair, prepare)
        return network(pair if prepare is None else prepare(pair))[:, 1:]

    def sharpen(self, image: torch.Tensor) -> torch.Tensor:
        """Bring out weak edges of an image in [0, 1], (B, C, H, W, L): the exponent first, then the unsharp mask."""
        if self.gamma != 1:
            image = image.clamp(min=0).pow_(self.gamma)
        if self.sharpening > 0:
            image = (image + self.sharpening * (image - smooth(image, UNSHARP_SIGMA))).clamp(0, 1)
        return image


def runs_in_bfloat16(network: Callable[..., torch.Tensor], bfloat16: bool) -> bool:
    """Say whether ``RecursiveInferer`` runs a network in bfloat16 when asked to: PAN alone streams in it."""
    return bfloat16 and isinstance(network, PAN)
