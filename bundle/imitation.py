"""Train an encoder to see any contrast as another encoder sees the one it knows."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from bundle.failures import OutcomeError
from bundle.networks import PAN
from bundle.options import check_numbers
from bundle.shapes import Volume
from bundle.supervision import Supervision
from monai.inferers import SimpleInferer
from torch import nn

__all__ = ["EmbeddingInferer", "ImitationLoss"]

Embeddings = list[torch.Tensor]

SHOWN = 0.03  # intensity above which the clean image shows something
OUTSIDE = 0.05  # weight of a voxel that shows nothing


class EmbeddingInferer(SimpleInferer):
    """Encode the images of a pair, in place of registering them.

    Args:
        gamma: exponent of the intensities, the one that registration will use.
        inferer: how the encoder runs, ``bundle.inferers.AutocastInferer`` in bfloat16, say; None runs it as it is.
        network: the one to be trained, to check it before it is; None checks nothing.

    Raises:
        OutcomeError: a network without ``embeddings``.
        ValueError: an exponent that is not positive.
    """

    def __init__(
        self, gamma: float = 1.0, inferer: SimpleInferer | None = None, network: nn.Module | None = None
    ) -> None:
        super().__init__()
        if network is not None and not hasattr(network, "embeddings"):
            raise OutcomeError(
                "Imitation trains the encoder of one PAN in one process: leave out --cascades, "
                "configs/multi_gpu_train.json and the configs of other networks."
            )
        self.gamma, self.inferer = _positive(gamma), SimpleInferer() if inferer is None else inferer

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Map ``image`` (B, 2, H, W, L) to the embeddings of the moving image, and those of the fixed one."""

        def encode(pair: torch.Tensor) -> tuple[Embeddings, ...]:
            return tuple(network.embeddings(image) for image in pair.split(1, 1))  # type: ignore[attr-defined]

        return self.inferer(inputs.clamp(min=0) ** self.gamma, encode)


class ImitationLoss(nn.Module):
    """Compare the embeddings of images in any contrast with a teacher's of the clean images.

    For each level the mean squared difference, divided by the mean square of the teacher's embeddings: 0 where both
    are equal, about 2 where they have nothing in common. The levels are added up. Nothing of the field is asked for,
    so that a training step takes a fraction of one that registers, and each voxel says what is right for it.

    Args:
        teacher: the network whose encoder is imitated; it stays as it is.
        gamma: exponent of the intensities that the teacher sees.

    Raises:
        ValueError: an exponent that is not positive.

    Source:
        This project. The idea is that of hint training (Romero et al., FitNets, ICLR 2015).
    """

    def __init__(self, teacher: PAN, gamma: float = 1.0) -> None:
        super().__init__()
        self.teacher, self.gamma = teacher.eval().requires_grad_(False), _positive(gamma)

    def forward(self, embeddings: tuple[Embeddings, Embeddings], supervision: Supervision) -> torch.Tensor:
        """Average over both images of a pair.

        Args:
            embeddings: of the moving and of the fixed image, as ``EmbeddingInferer`` returns them.
            supervision: ``clean_moving`` and ``label``, the clean images: (B, 1, H, W, L) in [0, 1].
        """
        clean = supervision["clean_moving"], supervision["label"]
        return torch.stack([self._compare(seen, image) for seen, image in zip(embeddings, clean)]).mean()

    def _compare(self, seen: Embeddings, clean: Volume) -> torch.Tensor:
        clean = self.teacher.pad_to_pyramid(clean)
        with torch.no_grad():
            targets = self.teacher.embeddings(clean.clamp(0, 1) ** self.gamma)
        weight = torch.where(clean > SHOWN, 1.0, OUTSIDE)
        total = clean.new_zeros(())
        for level, (one, target) in enumerate(zip(seen, targets)):
            if level > 0:
                weight = F.avg_pool3d(weight, 2)
            each = weight.expand(-1, target.shape[1], *target.shape[2:])
            total = total + ((one - target).square() * each).sum() / (target.square() * each).sum()
        return total


def _positive(gamma: float) -> float:
    check_numbers(gamma=gamma)
    if gamma <= 0:
        raise ValueError(f"gamma is above 0, got {gamma}.")
    return gamma
