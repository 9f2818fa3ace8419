"""Decode with ITK what pydicom can't, in a process of its own, since damaged streams can crash it."""

import os
import struct
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, SecondaryCaptureImageStorage

__all__ = ["ITK_SYNTAXES", "STORAGE", "ItkDecoder", "Stored"]

Stored = npt.NDArray[np.integer[Any]]

ITK_SYNTAXES = {JPEGLossless, JPEGLosslessSV1, JPEGLSLossless}  # what ITK decodes to the bit
FORMAT = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
STORAGE = (*FORMAT, "PixelData")
FRAME_MARKERS = {0xC3, 0xF7}  # start of a lossless JPEG frame, of a JPEG-LS frame


class ItkDecoder(ExitStack):
    """Decodes instances frame by frame; its process starts with the first and ends with the context."""

    _pool: ProcessPoolExecutor | None = None

    def decode(self, instance: Dataset, syntax: UID) -> Stored:
        """Decode bare copies: from the original header ITK would rescale by itself, and invert MONOCHROME1.

        Returns:
            Stored values (frames, rows, columns).

        Raises:
            ValueError: there are too few frames, or a stream's size is not the header's.
            BrokenProcessPool: ITK crashed.
            RuntimeError: ITK refused the stream.
        """
        count, offsets = int(instance.get("NumberOfFrames") or 1), None
        if instance.get("ExtendedOffsetTable"):
            offsets = instance.ExtendedOffsetTable, instance.ExtendedOffsetTableLengths
        if self._pool is None:
            self._pool = self.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        planes = []
        with TemporaryDirectory() as folder:
            path = Path(folder) / "image.dcm"
            for n in range(count):
                stream = get_frame(instance.PixelData, n, number_of_frames=count, extended_offsets=offsets)
                _check_frame_header(stream, instance)
                _bare(instance, syntax, stream).save_as(path, enforce_file_format=True)
                planes.append(self._pool.submit(_read, os.fspath(path)).result())
        return np.stack([plane.reshape(plane.shape[-2:]) for plane in planes])


def _bare(instance: Dataset, syntax: UID, stream: bytes) -> Dataset:
    """Copy nothing but the stored pixels of a frame and what describes them."""
    copy = Dataset()
    for keyword in FORMAT:
        copy[keyword] = instance[keyword]
    copy.add_new("PixelData", "OB", encapsulate([stream]))
    copy.SamplesPerPixel, copy.PhotometricInterpretation = 1, "MONOCHROME2"
    copy.SOPClassUID, copy.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = syntax
    return copy


def _read(path: str) -> Stored:
    import itk  # slow to import, and rarely needed

    return np.array(itk.array_from_image(itk.imread(path)))


def _check_frame_header(stream: bytes, instance: Dataset) -> None:
    """Compare the size in a JPEG or JPEG-LS stream with the header's: where they differ ITK writes past its memory."""
    at = 2
    while stream[at] == 0xFF:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack(">BHHB", stream[at + 4 : at + 10])
            is_wide = instance.BitsAllocated > 8
            if (rows, columns, components, precision > 8) == (instance.Rows, instance.Columns, 1, is_wide):
                return
            break
        at += 2 + length
    raise ValueError("the stream is not what its header says")
