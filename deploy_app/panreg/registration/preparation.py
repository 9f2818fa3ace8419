"""What is settled before the bundle registers: how to align first, and what counts as nothing imaged."""

import numpy as np
from panreg.ingest.decode import Volume
from panreg.ingest.stack import Stack
from panreg.registration.result import Array
from panreg.settings import Settings

__all__ = ["from_air", "prealignment", "without_padding"]


def prealignment(setting: str, fixed: Stack, moving: Stack) -> str:
    """Decide how to align before the network: one frame of reference means that the headers agree already."""
    if setting != "auto":
        return setting
    return "none" if fixed.frame_of_reference_uid == moving.frame_of_reference_uid else "affine"


def from_air(values: Array, stack: Stack, settings: Settings) -> Array:
    """Count values from what nothing imaged has: what the bundle draws outside an image, 0, is then air in CT, too."""
    padding = settings.padding[stack.modality]
    return values - np.float32(padding) if padding else values


def without_padding(volume: Volume, value: float) -> Array:
    """Give the source's padding the value that the output has where nothing was imaged."""
    if volume.padding is None:
        return volume.values
    return np.where(volume.padding, np.float32(value), volume.values)
