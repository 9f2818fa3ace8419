"""The scan of the input folder: which files are images or segmentations, by content, from their headers alone."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from panreg.dicom.attributes import integer, pydicom_silenced, text
from panreg.dicom.frame import Frame
from panreg.failures import Code, Failure
from panreg.limits import Limits
from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage, UID_dictionary

__all__ = ["LABEL_MAP_CLASS", "MULTI_FRAME_CLASSES", "SEGMENTATION_CLASS", "UNREADABLE", "Scan", "scan"]

SINGLE_FRAME_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"})  # CT, MR
# enhanced and legacy converted enhanced CT and MR
MULTI_FRAME_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{leaf}" for leaf in ("2.1", "2.2", "4.1", "4.4"))
SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURE_SET_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
DRAWN_CLASSES = frozenset({SEGMENTATION_CLASS, LABEL_MAP_CLASS, STRUCTURE_SET_CLASS})
UNREADABLE = ("malformed", "no_uids", "no_image", "deflated")
BLOCK = 1 << 20  # bytes that are compared at a time
LARGE_ELEMENT = 65536  # bytes; scanners put private blocks of 100 kB into every slice, which stay in the file


@dataclass(frozen=True, eq=False)
class Scan:
    """What lies in the input folder.

    Args:
        folder: the input.
        limits: that it was scanned under.
        instances: CT and MR images, each once, in the order of their SOP Instance UIDs; ``number`` is None.
        segmentations: what was drawn on images, likewise: segmentations, label maps and structure sets.
        skipped: how many other things there are, by reason: ``not_dicom``, ``duplicate_file``, a SOP class's name …
        collisions: Series Instance UIDs of images whose SOP Instance UID another file has, too, with other contents.
    """

    folder: Path
    limits: Limits
    instances: tuple[Frame, ...] = ()
    segmentations: tuple[Frame, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    collisions: frozenset[str] = frozenset()


@pydicom_silenced()
def scan(folder: Path, limits: Limits) -> Scan:
    """Find the images of a folder and its sub-folders; links are never followed, and no pixels are read.

    Raises:
        Failure: E_LIMIT, or E_NO_INPUT where the folder or a file can't be read.
    """
    skipped: Counter[str] = Counter()
    found: dict[str, Frame] = {}
    collided: dict[str, list[Frame]] = {}
    try:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "isn't there"
            raise Failure(Code.E_NO_INPUT, f"The folder to read {what}: name the one that the images lie in.")
        for path in _files(folder, limits, skipped):
            header = _header(path, limits)
            if isinstance(header, str):
                skipped[header] += 1
                continue
            frame = Frame(path, header)
            known = found.setdefault(frame.sop_instance_uid, frame)
            if known is not frame and _hold_the_same(known.path, path):
                found[frame.sop_instance_uid] = replace(known, copies=(*known.copies, path))
                skipped["duplicate_file"] += 1
            elif known is not frame:
                collided.setdefault(frame.sop_instance_uid, [known]).append(frame)
    except OSError as error:
        message = f"The input can't be read ({error.strerror}): let the application's user read every file of it."
        raise Failure(Code.E_NO_INPUT, message) from error
    for uid, frames in collided.items():
        if any(map(_is_drawn, frames)):  # which of them is meant, nobody can know
            skipped["segmentation_uid_collision"] += 1
            del found[uid]
    frames = [frame for _, frame in sorted(found.items())]
    images, segmentations = [f for f in frames if not _is_drawn(f)], [f for f in frames if _is_drawn(f)]
    collisions = {str(frame.header.SeriesInstanceUID) for frames in collided.values() for frame in frames}
    return Scan(folder, limits, tuple(images), tuple(segmentations), skipped, frozenset(collisions))


def _is_drawn(frame: Frame) -> bool:
    return frame.header.SOPClassUID in DRAWN_CLASSES


def _files(folder: Path, limits: Limits, skipped: Counter[str]) -> Iterator[Path]:
    """Walk to the regular files, sorted; everything is counted before anything is opened."""
    files: list[str] = []
    pending = [(os.fspath(folder), 0)]
    entries_seen = 0
    while pending:
        here, depth = pending.pop()
        if depth > limits.depth:
            message = f"The input's folders are nested deeper than {limits.depth} (PANREG_LIMITS_DEPTH): flatten them."
            raise Failure(Code.E_LIMIT, message)
        with os.scandir(here) as entries:
            for entry in entries:
                entries_seen += 1
                if entries_seen > limits.files:
                    most = f"{limits.files} files and folders (PANREG_LIMITS_FILES)"
                    raise Failure(Code.E_LIMIT, f"The input holds more than {most}: send fewer series at once.")
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, depth + 1))
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.path)
                else:
                    skipped["link" if entry.is_symlink() else "not_regular"] += 1
    return map(Path, sorted(files))


def _header(path: Path, limits: Limits) -> Dataset | str:
    """Read an accepted instance's header, or say why the file is none."""
    try:
        with path.open("rb") as file:
            start = file.read(140)
            if start[128:132] != b"DICM" and not _begins_like_dicom(start):
                return "not_dicom"
            meta = _read_meta(file)
        if text(meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return "dicomdir"
        if text(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return "deflated"  # pydicom would inflate it whole, however large it grows
        header = dcmread(path, stop_before_pixels=True, force=True, defer_size=LARGE_ELEMENT)
        return _reason(header, limits) or header
    except (OSError, Failure):
        raise
    except Exception:  # pydicom raises whatever its parser meets in damaged bytes
        return "malformed"


def _read_meta(file: BinaryIO) -> Dataset:
    """Read file meta information, if there is any; the file is left where the data set begins."""
    file.seek(128)
    file.seek(0 if file.read(4) != b"DICM" else 132)
    return read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag > 0x0002FFFF)


def _begins_like_dicom(start: bytes) -> bool:
    """Whether a file without preamble begins with an element that little-endian data sets begin with."""
    group, element = start[:2], int.from_bytes(start[2:4], "little")
    return len(start) >= 8 and group in (b"\x02\0", b"\x08\0") and element in (0x0, 0x1, 0x5, 0x8, 0x16)


def _reason(header: Dataset, limits: Limits) -> str | None:
    """Say why an instance is not accepted, or None."""
    uids = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    if any(text(header, keyword) is None for keyword in uids):
        return "no_uids"
    sop_class = str(text(header, "SOPClassUID"))
    if sop_class not in {*SINGLE_FRAME_CLASSES, *MULTI_FRAME_CLASSES, *DRAWN_CLASSES}:
        return UID_dictionary[sop_class][0] if sop_class in UID_dictionary else "private SOP class"
    if sop_class == STRUCTURE_SET_CLASS:
        header.pop("ROIContourSequence", None)  # read again if it is used
        return None
    if integer(header, "Rows") is None or integer(header, "Columns") is None or text(header, "Modality") is None:
        return "no_image"
    if sop_class in DRAWN_CLASSES:
        return None if _voxels(header) <= limits.voxels else "segmentation_too_large"
    return None


def _voxels(header: Dataset) -> int:
    rows, columns, frames = (integer(header, keyword) or 1 for keyword in ("Rows", "Columns", "NumberOfFrames"))
    return rows * columns * frames


def _hold_the_same(first: Path, second: Path) -> bool:
    """Tell whether two files hold one data set; senders differ in the file meta information before it."""
    with first.open("rb") as one, second.open("rb") as other:
        syntaxes = {text(_read_meta(file), "TransferSyntaxUID") for file in (one, other)} - {None}
        rests = [os.fstat(file.fileno()).st_size - file.tell() for file in (one, other)]
        if len(syntaxes) > 1 or rests[0] != rests[1]:
            return False
        while block := one.read(BLOCK):
            if block != other.read(BLOCK):
                return False
    return True
