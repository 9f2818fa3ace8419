"""What is decided before the bundle registers: the pre-alignment, the grid of the results, the padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from panreg.dicom.functional_groups import rescale_type_of
from panreg.ingest.decode import Volume
from panreg.ingest.stack import Stack
from panreg.registration.bundle_model import as_text
from panreg.registration.quality import gate_of, page_bounds
from panreg.registration.result import Array
from panreg.registration.straight import grid_of_result, resample_onto
from panreg.settings import Settings

__all__ = [
    *("Prepared", "outside_value", "page_options", "prealignment", "prepare", "registration_options"),
    "without_padding",
]

AIR_IS_LOW = ("", "HU", "HU_MOD", "US")
"""Rescale Types of CT images in Hounsfield units, or in what is likely to be these."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A pair as the bundle registers it.

    Args:
        fixed: the fixed stack, or its straight version: the grid of the results.
        fixed_values: modality values on it, ``[k, j, i]``.
        moving: the moving stack.
        moving_values: modality values of it.
        notes: what a person must know of the grid.
        is_straightened: ``fixed`` is a straight grid.
    """

    fixed: Stack
    fixed_values: Array
    moving: Stack
    moving_values: Array
    notes: tuple[str, ...]
    is_straightened: bool


def prepare(fixed: Stack, fixed_volume: Volume, moving: Stack, moving_volume: Volume, settings: Settings) -> Prepared:
    """Choose the grid of the results, and write the output's padding where the sources have theirs."""
    outside = outside_value(settings, fixed)
    fixed_values = without_padding(fixed_volume, outside)
    moving_values = without_padding(moving_volume, outside_value(settings, moving))
    grid, notes = grid_of_result(fixed, settings.grid)
    is_straightened = grid is not fixed
    if is_straightened:
        fixed_values = resample_onto(grid, fixed, fixed_values, outside)
    return Prepared(grid, fixed_values, moving, moving_values, notes, is_straightened)


def outside_value(settings: Settings, stack: Stack) -> int:
    """Choose what stands where a stack shows nothing: by modality; CT maps in other units than Hounsfield are as MR."""
    modality = stack.modality
    if modality == "CT" and rescale_type_of(stack.frames[0]) not in AIR_IS_LOW:
        modality = "MR"
    return settings.padding[modality]


def prealignment(setting: str, fixed: Stack, moving: Stack) -> str:
    """Decide how to align before the network: one frame of reference means that the headers agree already."""
    if setting != "auto":
        return setting
    return "none" if fixed.frame_of_reference_uid == moving.frame_of_reference_uid else "affine"


def registration_options(settings: Settings, fixed: Stack, moving: Stack) -> dict[str, Any]:
    """Choose what the bundle registers a pair by, as keys of ``configs/inference.json``."""
    return {
        "affine": prealignment(settings.affine, fixed, moving),
        "field_spacing_mm": settings.deformable.spacing_mm,  # no finer than its object holds it: all outputs agree
        "same_person": True,  # pairing lets no others through
        "bfloat16": False,  # objects differ by rounding alone from CPU to CPU
    }


def page_options(settings: Settings, fixed: Stack, moving: Stack, notes: Sequence[str]) -> dict[str, Any]:
    """Choose the page of a registration, likewise; its verdict goes by the limits of the quality gate.

    Args:
        settings: of the run.
        fixed: the fixed stack.
        moving: the moving stack.
        notes: what the page is to say, without patient data.
    """
    if not settings.page:
        return {}
    gate = gate_of(settings.quality, fixed, moving)
    return {
        "page": True,
        "page_notes": [as_text(note) for note in (f"Every object says: {settings.label}.", *notes)],
        "thresholds#failed": page_bounds(gate),
    }


def without_padding(volume: Volume, value: float) -> Array:
    """Give the source's padding the value that the output has where nothing was imaged."""
    if volume.padding is None:
        return volume.values
    return np.where(volume.padding, np.float32(value), volume.values)
