"""Whether a file is whole: the checksum of what is compressed, which readers skip, and the length of HDF5.

nibabel 5.4 stops at the last voxel of ``.nii.gz`` and ``.mgz``, before the checksum. ITK 5.4 does not look at that of
NRRD, and returns what it has where the compressed voxels of a MetaImage are damaged. The HDF5 library prints a lot
about a file that is cut off.
"""

import bz2
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from isal import igzip, isal_zlib

__all__ = ["DamagedFileError", "check_whole", "decompressed"]

BLOCK = 1 << 20  # bytes
HEADER = 1 << 16  # bytes, of which the text before the voxels has fewer
METAIMAGE, NRRD = (".mha", ".mhd"), (".nrrd", ".nhdr")
GZIPPED, GZIP = (".gz", ".mgz"), b"\x1f\x8b"
HDF5, SIGNATURE = (".h5", ".hdf5", ".x5"), b"\x89HDF\r\n\x1a\n"
END_OF_FILE = {0: 40, 1: 44, 2: 28, 3: 28}  # where each version of HDF5's first block states it
FAULTS: Any = (EOFError, zlib.error, isal_zlib.error, OSError, struct.error)


class DamagedFileError(ValueError):
    """A file that is cut off or whose content is not the one that was written; the message follows "it"."""


def check_whole(path: str | os.PathLike[str]) -> None:
    """Decompress a file to its end, where its checksum is, and compare the length of HDF5 with what it states.

    Args:
        path: of any file; looked at are those that end in ``.gz``, ``.mgz``, ``.mha``, ``.mhd``, ``.nrrd``, ``.nhdr``,
            ``.h5``, ``.hdf5`` and ``.x5``.

    Raises:
        DamagedFileError: it is cut off, or its checksum does not fit its content.
        OSError: it cannot be opened.
    """
    name = Path(path).name.lower()
    with open(path, "rb") as file, _told():
        if name.endswith(GZIPPED):
            if _is_gzip(file):
                _to_the_end(igzip.open(file))
        elif name.endswith(METAIMAGE):
            _check_metaimage(file, Path(path))
        elif name.endswith(NRRD):
            _check_nrrd(file, Path(path))
        elif name.endswith(HDF5):
            _check_hdf5(file)


def decompressed(path: str | os.PathLike[str]) -> bytes | None:
    """Decompress a ``.gz`` or ``.mgz`` file as a whole, as fast as checking it; None where it is not gzip's.

    Raises:
        DamagedFileError: it is cut off, or its checksum does not fit its content.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file, _told():
        return bytes(igzip.open(file).read()) if _is_gzip(file) else None


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except FAULTS as error:
        raise DamagedFileError(
            "it is cut off or damaged (its length or checksum does not fit its content): copy or make it again"
        ) from error


def _is_gzip(file: BinaryIO) -> bool:
    """Tell whether a file begins as gzip does; of others the readers say that they can't be read."""
    begins = file.read(len(GZIP))
    file.seek(0)
    return begins == GZIP


def _to_the_end(file: Any) -> None:
    while file.read(BLOCK):
        pass


def _check_metaimage(file: BinaryIO, path: Path) -> None:
    """Check the zlib stream of a MetaImage, behind its header or in a file that the header names."""
    header = re.match(rb"(?s).*?ElementDataFile\s*=\s*([^\r\n]+?)\s*?\r?\n", file.read(HEADER) + b"\n")
    if not header or not re.search(rb"(?im)^CompressedData\s*=\s*True", header[0]):
        return
    if header[1] == b"LOCAL":
        file.seek(header.end())
        _check_zlib(file)
    elif (other := path.with_name(os.fsdecode(header[1]))).is_file():  # not a list, nor a pattern of names
        with other.open("rb") as voxels:
            _check_zlib(voxels)


def _check_zlib(file: BinaryIO) -> None:
    stream = isal_zlib.decompressobj()
    for block in _blocks(file):
        stream.decompress(block)
        if stream.eof:
            return
    raise EOFError


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _check_hdf5(file: BinaryIO) -> None:
    start = file.read(64)
    if start.startswith(SIGNATURE) and start[8] in END_OF_FILE:
        (end,) = struct.unpack_from("<Q", start, END_OF_FILE[start[8]])
        if os.fstat(file.fileno()).st_size < end:
            raise EOFError


def _check_nrrd(file: BinaryIO, path: Path) -> None:
    """Check the compressed stream of an NRRD file, behind the empty line after its header or in a file it names."""
    start = file.read(HEADER)
    end = re.search(rb"\r?\n\r?\n", start)
    header = start[: end.end()] if end else start
    encoding = re.search(rb"(?im)^encoding:\s*(\w+)", header)
    opener = {b"gzip": igzip.open, b"gz": igzip.open, b"bzip2": bz2.open, b"bz2": bz2.open}.get(
        encoding[1].lower() if encoding else b""
    )
    if opener is None:
        return
    named = re.search(rb"(?im)^data ?file:\s*([^\r\n]+?)\s*$", header)
    if named is None:
        file.seek(len(header))
        _to_the_end(opener(file))
    elif (other := path.with_name(os.fsdecode(named[1]))).is_file():
        with opener(other) as voxels:
            _to_the_end(voxels)
