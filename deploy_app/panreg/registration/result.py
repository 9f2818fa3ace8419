"""The result of a registration, and the part of the bundle's transform that the writers use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from panreg.ingest.stack import Stack

__all__ = ["Limits", "Registration", "Transform"]

Array = npt.NDArray[np.float32]
Limits = Mapping[str, Sequence[float | None]]


class Transform(Protocol):
    """The bundle's ``SpatialTransform``, as far as the application needs it: fixed to moving, LPS mm ("pull")."""

    @property
    def field_grid(self) -> Any:
        """Where the field is known; the writers ask for its ``spacing_mm``."""

    def displacement_at(self, points_mm: Any, extend: bool = False) -> torch.Tensor:
        """D(x) = T(x) − x for points (…, 3), mm, LPS, in fixed space: (…, 3), float64.

        With ``extend``, the field goes on with its outermost values beyond its grid instead of breaking off.
        """

    def resample(self, image: torch.Tensor, *, mode: str = "linear") -> torch.Tensor:
        """Pull (C, columns, rows, slices) on the moving stack's grid to the fixed stack's; zero outside."""


@dataclass(frozen=True, eq=False)
class Registration:
    """A finished registration.

    Args:
        fixed: stack that the result lies on.
        moving: stack that was aligned.
        moving_values: modality values of the moving stack, float32 ``[k, j, i]``.
        transform: what the bundle found.
        quality: numbers of the report (similarity_before, similarity_after, folding_percent, max_displacement_mm …).
        overview: the bundle's picture, (height, width, 3), bytes.
        warnings: what the report and the manifest must flag, without patient data.
        body: where the fixed image shows the body, ``[k, j, i]``; None where that is not known.
        page: the bundle's page of the registration, HTML without patient data; None where none was asked for.
        is_straightened: ``fixed`` is a straight grid on the planes of a sheared fixed series, whose frames it names.
        moving_padding: where the source of the moving values said "no image here", ``[k, j, i]``; None where nowhere.
        limits: of the numbers, least and greatest value: those that the weights have of their own.
    """

    fixed: Stack
    moving: Stack
    moving_values: Array
    transform: Transform
    quality: Mapping[str, float]
    overview: npt.NDArray[np.uint8]
    warnings: tuple[str, ...] = field(default=())
    body: npt.NDArray[np.bool_] | None = None
    page: str | None = None
    is_straightened: bool = False
    moving_padding: npt.NDArray[np.bool_] | None = None
    limits: Limits = field(default_factory=dict)

    def pull(self, values: Array, mode: str = "linear") -> Array:
        """Pull an array ``[k, j, i]`` of the moving stack to the fixed stack's ``[k, j, i]``; zero outside."""
        image = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 1, 0)))[None]
        pulled = self.transform.resample(image, mode=mode)[0].numpy()
        return np.ascontiguousarray(pulled.transpose(2, 1, 0))
