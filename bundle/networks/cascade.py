"""Several networks in a row: each registers what those before it have aligned so far."""

from copy import deepcopy
from typing import Any

import torch
from bundle.fields import compose, warp
from bundle.shapes import Volume
from torch import nn

__all__ = ["Cascade", "cascaded"]


class Cascade(nn.Module):
    """Register by several networks of one architecture, each with weights of its own, trained together.

    The fields are composed, so that the moving image is interpolated once, and the loss judges the last warped image.
    Weights of one network alone start all of them.

    Args:
        network: of this bundle's interface (``PAN``, or one of ``bundle.networks.peers``); the others start as copies.
        cascades: how many.

    Raises:
        ValueError: not a whole number from 1 up.

    Source:
        Zhao et al., Recursive cascaded networks for unsupervised medical image registration, ICCV 2019.

    Departs from paper:
        The similarity is that of the last warped image, as there; the smoothness is that of the composed field, instead
        of a sum over the fields of the cascades.
    """

    def __init__(self, network: nn.Module, cascades: int) -> None:
        super().__init__()
        if isinstance(cascades, bool) or not isinstance(cascades, int) or cascades < 1:
            raise ValueError(f"cascades takes a whole number from 1 up, not '{cascades}'.")
        self.networks = nn.ModuleList([network, *(deepcopy(network) for _ in range(cascades - 1))])
        self.register_load_state_dict_pre_hook(_start_all)

    def forward(self, moving: Volume, fixed: Volume | None = None) -> torch.Tensor:
        """Register; arguments and result as ``PAN.forward``, the Gram matrices of all networks in one list."""
        pair = (moving if fixed is None else torch.cat([moving, fixed], 1)).as_subclass(torch.Tensor)
        pred, gram = _parts(self.networks[0](pair))
        for network in list(self.networks)[1:]:
            residual, more = _parts(network(torch.cat([pred[:, :1], pair[:, 1:]], 1)))
            ddf = compose(pred[:, 1:].contiguous(), residual[:, 1:])
            pred, gram = torch.cat([warp(pair[:, :1], ddf), ddf], 1), [*gram, *more]
        return {"pred": pred, "gram": gram} if gram else pred  # type: ignore[return-value]


def cascaded(network: nn.Module, cascades: int = 1) -> nn.Module:
    """Put a network into a cascade; of 1 it stays what it is, and its weights keep their names.

    Raises:
        ValueError: see ``Cascade``.
    """
    found = Cascade(network, cascades)
    return found if cascades > 1 else network


def _parts(found: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Take the prediction and the Gram matrices, none but in training, out of what a network returns."""
    return (found, []) if isinstance(found, torch.Tensor) else (found["pred"], found["gram"])


def _start_all(cascade: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Hand weights of one network to each of a cascade."""
    if any(name.startswith(f"{prefix}networks.") for name in state):
        return
    single = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    for i in range(len(cascade.networks)):  # type: ignore[arg-type]
        state.update({f"{prefix}networks.{i}.{name.removeprefix(prefix)}": value for name, value in single.items()})
