"""Pixels of a stack as modality values: decoded by pydicom, else by ITK, else refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from panreg.dicom.attributes import integer, macro, numbers, pydicom_silenced, series_name, text
from panreg.dicom.frame import Frame
from panreg.failures import Code, Failure
from panreg.ingest.itk_decode import ITK_SYNTAXES, STORAGE, ItkDecoder, Stored
from panreg.ingest.stack import Stack
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

__all__ = ["Volume", "read_stack", "rescale_of"]

# with STORAGE all that decoding needs; a header may be far larger
OPTIONAL = (
    *("SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels of a stack, ``[k, j, i]``.

    Args:
        values: modality values, float32.
        padding: where the source says "no image here" (Pixel Padding Value and Range), or None where nowhere.
    """

    values: npt.NDArray[np.float32]
    padding: npt.NDArray[np.bool_] | None = None


@pydicom_silenced()
def read_stack(stack: Stack) -> Volume:
    """Decode a stack's pixels and rescale each slice by its own slope and intercept.

    MONOCHROME1 is not inverted: it says how to show the values, not what they are.

    Raises:
        Failure: E_DECODE.
    """
    values = np.empty(stack.shape, dtype=np.float32)
    padding = np.zeros(stack.shape, dtype=np.bool_)
    for k, (frame, stored) in enumerate(_stored_frames(stack)):
        slope, intercept = rescale_of(frame)
        with np.errstate(over="ignore"):
            values[k] = stored.astype(np.float64) * slope + intercept
        padding[k] = _is_padding(frame.header, stored)
    if not np.isfinite(values).all():
        message = "its values leave 32-bit floating point: Rescale Slope is damaged; send the original images."
        raise Failure(Code.E_DECODE, f"{series_name(stack.header)}: {message}")
    return Volume(values, padding if padding.any() else None)


def rescale_of(frame: Frame) -> tuple[float, float]:
    """Read the slope and intercept from stored to modality values; 1 and 0 where a frame has none.

    MR has none, too, where both are empty, as a de-identification leaves them: its values have no unit that they could
    lose. Those of CT do.

    Raises:
        Failure: E_DECODE where they are damaged, or a table stands in their place.
    """
    group = macro(frame, "PixelValueTransformationSequence")
    if "RescaleSlope" not in group and "RescaleIntercept" not in group:
        group = frame.header  # where some writers put them for all frames of a multi-frame image
    given = [keyword for keyword in ("RescaleSlope", "RescaleIntercept") if keyword in group]
    if text(frame.header, "Modality") == "MR" and all(_is_empty(group, keyword) for keyword in given):
        given = []
    slope = numbers(group, "RescaleSlope", 1) if "RescaleSlope" in given else (1.0,)
    intercept = numbers(group, "RescaleIntercept", 1) if "RescaleIntercept" in given else (0.0,)
    if not slope or not intercept or not slope[0] or "ModalityLUTSequence" in frame.header:
        message = "Rescale Slope or Intercept is no usable number, or a Modality LUT; send the original images."
        raise Failure(Code.E_DECODE, f"{series_name(frame.header)}: {message}")
    return slope[0], intercept[0]


def _is_empty(group: Dataset, keyword: str) -> bool:
    """Tell an attribute without a value from one whose value is damaged."""
    try:
        return bool(group[keyword].is_empty)
    except Exception:  # pydicom raises whatever its converters meet in damaged bytes
        return False


def _stored_frames(stack: Stack) -> Iterator[tuple[Frame, Stored]]:
    """Decode one instance after the other, a multi-frame one once: each frame with its stored values."""
    decoded: dict[str, Stored] = {}
    with ItkDecoder() as itk_decoder:
        for frame in stack.frames:
            if frame.sop_instance_uid not in decoded:
                decoded = {frame.sop_instance_uid: _decode(frame, itk_decoder)}
            yield frame, decoded[frame.sop_instance_uid][(frame.number or 1) - 1]


def _decode(frame: Frame, itk_decoder: ItkDecoder) -> Stored:
    """Decode an instance: stored values (frames, rows, columns)."""
    header, syntax = frame.header, UID("")
    try:
        instance = dcmread(frame.path, force=True, specific_tags=[*STORAGE, *OPTIONAL])
        syntax = _transfer_syntax(instance)
        stored = _decode_with(instance, syntax, itk_decoder)
    except Exception as error:  # decoders raise whatever damaged streams lead them to
        name = syntax.name or "unknown transfer syntax"
        message = (
            f"an image's pixels ({name}) are damaged, truncated or of a kind not supported; send the series again."
        )
        raise Failure(Code.E_DECODE, f"{series_name(header)}: {message}") from error
    stored = stored if stored.ndim == 3 else stored[None]
    count = 1 if frame.number is None else integer(header, "NumberOfFrames") or 1
    if stored.shape != (count, header.Rows, header.Columns) or not _is_right_justified(header):
        message = "an image's pixels don't have the shape or bits that its header tells; send the original images."
        raise Failure(Code.E_DECODE, f"{series_name(header)}: {message}")
    return stored


def _is_right_justified(header: Dataset) -> bool:
    bits, high = integer(header, "BitsStored"), integer(header, "HighBit")
    return bits is not None and high == bits - 1


def _transfer_syntax(instance: Any) -> UID:
    """Find an instance's transfer syntax; without file meta information, as its data set was parsed."""
    meta = getattr(instance, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:
        is_implicit, is_little = instance.original_encoding
        native = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        instance.file_meta = FileMetaDataset()
        instance.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else native
    return UID(instance.file_meta.TransferSyntaxUID)


def _decode_with(instance: Dataset, syntax: UID, itk_decoder: ItkDecoder) -> Stored:
    """Take the first decoder that knows the syntax; no exception decides, since damaged streams raise the same ones."""
    decoder = get_decoder(syntax)
    if decoder.is_available:
        return np.asarray(decoder.as_array(instance, raw=True)[0])
    if syntax in ITK_SYNTAXES:
        return itk_decoder.decode(instance, syntax)
    raise NotImplementedError


def _is_padding(header: Dataset, stored: Stored) -> npt.NDArray[np.bool_]:
    """Find the voxels whose stored value says that there is no image."""
    value = integer(header, "PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = integer(header, "PixelPaddingRangeLimit")
    # read as unsigned where a writer chose the wrong VR: the cast brings the sign back
    low, high = np.sort(np.array([value, value if limit is None else limit]).astype(stored.dtype))
    return np.asarray((stored >= low) & (stored <= high))
