"""How modality values become 16-bit stored values: by slope and intercept as stored, clipped, never wrapped."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from panreg.dicom.elements import decimal
from pydicom import Dataset

__all__ = ["Quantisation", "quantisation_of"]

Values = npt.NDArray[np.float32]
WHOLE = 500  # a range from which steps of 1 are fine enough: between whole numbers the interpolation gives fractions
FLAT = 1e-3  # a range up to which it is of one value, but for rounding


@dataclass(frozen=True)
class Quantisation:
    """The line from stored values to modality values, and the stored values' range.

    Args:
        slope: modality units for one step, as the Decimal String that is stored.
        intercept: modality value of stored 0, as the Decimal String that is stored.
        signed: stored values lie in [−2¹⁵, 2¹⁵), else in [0, 2¹⁶).
        rescale_type: of the Modality LUT (HU, US …), or None if the object has none.
    """

    slope: str
    intercept: str
    signed: bool
    rescale_type: str | None

    def stored(self, values: Values) -> npt.NDArray[np.int32]:
        """Round modality values to stored ones, clipped to the range."""
        low, high = (-(2**15), 2**15 - 1) if self.signed else (0, 2**16 - 1)
        exact = (values.astype(np.float64) - float(self.intercept)) / float(self.slope)
        return np.clip(np.rint(exact), low, high).astype(np.int32)

    def describe(self, target: Dataset) -> None:
        """Write the pixels' format and, if there is one, the Modality LUT."""
        target.SamplesPerPixel, target.PhotometricInterpretation = 1, "MONOCHROME2"
        target.BitsAllocated, target.BitsStored, target.HighBit = 16, 16, 15
        target.PixelRepresentation = int(self.signed)
        if self.rescale_type:
            target.RescaleSlope, target.RescaleIntercept = self.slope, self.intercept
            target.RescaleType = self.rescale_type

    def set_pixels(self, target: Dataset, stored: npt.NDArray[np.int32]) -> None:
        """Write a plane's stored values, (rows, columns), as Pixel Data."""
        target.Rows, target.Columns = stored.shape
        target.add_new("PixelData", "OW", stored.astype("<i2" if self.signed else "<u2").tobytes())


def quantisation_of(values: Values, modality: str, whole: bool, rescale_type: str = "") -> Quantisation:
    """Choose the quantisation of a series.

    Args:
        values: all modality values that are to be stored, padding too.
        modality: CT in Hounsfield units is always stored as such, signed; MR has no Modality LUT where it needs none.
        whole: the source has whole numbers alone: steps of 1 change no value by more than a thousandth of a range of
            500 or more. A smaller one is stored in steps of a tenth, a hundredth …, in which whole numbers stay exact.
        rescale_type: the source's; of CT it says whether the values are Hounsfield units, as they are where it is
            empty, or something else (iodine in mg/ml, effective atomic numbers …).
    """
    kind = None
    if modality == "CT":
        if rescale_type in ("", "HU"):
            return Quantisation("1", "0", True, "HU")
        kind = rescale_type if re.fullmatch(r"[^\\\x00-\x1f]{1,64}", rescale_type) else "US"
    low, high = float(values.min()), float(values.max())
    signed = low < 0
    first, last = (-(2**15), 2**15 - 1) if signed else (0, 2**16 - 1)
    if whole and np.rint(low) >= first and np.rint(high) <= last:
        step = _decimal_step(low, high, first, last) if FLAT < high - low < WHOLE else 1.0
        return (
            Quantisation("1", "0", signed, kind)
            if step == 1
            else Quantisation(decimal(step), "0", signed, kind or "US")
        )
    slope = decimal((high - low) / (2**16 - 1) or 1.0)
    return Quantisation(slope, decimal(low - first * float(slope)), signed, kind or "US")


def _decimal_step(low: float, high: float, first: int, last: int) -> float:
    """Find the smallest power of ten, 1 at most, in whose steps from 0 the values fit into the stored ones' range."""
    needed = max(high / last, low / first if first else 0.0)
    return float(10.0 ** min(np.ceil(np.log10(needed)), 0))
