"""Files as such: which one was read, told apart by its content; and writing one whole or not at all."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    *("beside", "check_file", "check_outputs", "check_room", "fingerprint", "in_place", "is_unchanged", "named"),
    *("shortened", "utf8", "write_text"),
]

LONGEST = 225  # bytes of a name that file systems take (255), with room for an ending

DETACHED = {".mhd": r"(?im)^\s*ElementDataFile\s*=\s*(.+?)\s*$", ".nhdr": r"(?im)^\s*data ?file\s*:\s*(.+?)\s*$"}


def fingerprint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Note a file's ``path``, ``bytes``, ``mtime_ns`` (of its last change) and the ``sha256`` of its content.

    A header whose voxels lie in another file (``.mhd``, ``.nhdr``, ``.hdr`` and ``.img``) counts together with it.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    for part in _parts(Path(path)):
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return _stat(Path(path)) | {"sha256": digest.hexdigest()}


def is_unchanged(noted: Mapping[str, Any], path: str | os.PathLike[str]) -> bool:
    """Tell whether a file still holds what ``fingerprint`` noted: by size and time, else by its content."""
    try:
        now = _stat(Path(path))
        if now["bytes"] != noted.get("bytes"):
            return False
        return now == {key: noted.get(key) for key in now} or fingerprint(path)["sha256"] == noted.get("sha256")
    except OSError:
        return False


def check_file(path: str | os.PathLike[str], name: str, verb: str = "does") -> None:
    """Refuse a path where there is no file, a folder, or a file that may not be read.

    Args:
        path: of a file.
        name: what messages call it.
        verb: "do" for a name in the plural.

    Raises:
        FileNotFoundError: there is none.
        IsADirectoryError: it is a folder.
        PermissionError: it may not be read.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(f"The {name} ({path}) {'is' if verb == 'does' else 'are'} a folder: name a file in it.")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The {name} ({path}) {verb} not exist.")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def check_outputs(
    outputs: Iterable[str | os.PathLike[str]], inputs: Iterable[tuple[str, str | os.PathLike[str] | None]]
) -> None:
    """Refuse places to write where a folder is, and those of files that are read, whatever link leads there.

    Args:
        outputs: paths of files to write; with a ``.mhd`` goes the file of its voxels.
        inputs: what messages call a file that is read, and its path; None for one that is not given.

    Raises:
        IsADirectoryError: there is a folder.
        ValueError: a file that is read would be overwritten.
    """
    read = [(name, path) for name, path in inputs if path is not None and os.path.isfile(path)]
    for output in map(Path, outputs):
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(output))
        voxels = [output.with_suffix(ending) for ending in (".raw", ".zraw")] if output.suffix == ".mhd" else []
        written = [place for place in (output, *voxels) if place.exists()]
        for name, path in read if written else []:
            if any(place.samefile(part) for place in written for part in _parts(Path(path))):
                raise ValueError(
                    f"The {name} ({path}) would be overwritten by the output ({output}): name another place for it."
                )


def check_room(path: str | os.PathLike[str], size: int) -> None:
    """Find out whether a file of a size can be written, where what writes it would not survive that it cannot.

    Args:
        path: of the file, which stays as it is.
        size: bytes.

    Raises:
        OSError: the disk, or the user's share of it, is full; or no file may grow so large.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=Path(path).parent) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of a file system that cannot tell
                raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def beside(target: Path, prefix: str) -> Iterator[Path]:
    """Make a temporary folder beside a place that is to be written, which errors name, and remove it at the end.

    In a folder that is there already it lies within: what is beside that may be another disk.

    Raises:
        OSError: none can be made there.
    """
    place = target if target.is_dir() else target.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        if error.errno == errno.ENOENT:  # of a file system that makes its own files alone
            raise OSError(f"The output ({target}) cannot be written there: name another place.") from error
        if not Path(str(error.filename)).name.startswith(prefix):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def named(target: Path, partial: Path) -> Iterator[None]:
    """Let a failure to write into a temporary folder name the place that it was for.

    Raises:
        OSError: with the target's path, for one that names a file below ``partial`` or none, and for ITK's own kind.
    """
    try:
        yield
    except OSError as error:
        elsewhere = error.filename is not None and not Path(error.filename).is_relative_to(partial)
        if error.errno is None or elsewhere:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    except RuntimeError as error:
        if "ITK ERROR" not in str(error):
            raise
        raise OSError(f"The output ({target}) could not be written by ITK: is its disk full?") from error


@contextmanager
def in_place(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, beside a file's place; what was written is moved there when it is whole.

    Of an image in two files (``.mhd``) the header comes last.
    """
    file = Path(path)
    check_outputs([file], [])
    with beside(file, ".writing_") as folder, named(file, folder):
        yield folder / file.name
        whole = sorted(folder.iterdir(), key=lambda other: other.name == file.name)
        check_outputs([file.with_name(written.name) for written in whole], [])
        for written in whole:
            os.replace(written, file.with_name(written.name))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, in UTF-8: it is there whole or as it was.

    Args:
        path: of the file; its folder is made if need be.
        text: its content.

    Raises:
        OSError: there is no room or no right to.
    """
    with in_place(path) as partial:
        partial.write_text(text, encoding="utf-8")


def shortened(name: str) -> str:
    """Cut a name that no file could have: its end becomes a digest of the whole. Others stay as they are."""
    whole = os.fsencode(name)
    if len(whole) <= LONGEST:
        return name
    end = f"_{hashlib.sha256(whole).hexdigest()[:16]}"
    return whole[: LONGEST - len(end)].decode("utf-8", "ignore") + end


def utf8(path: str | os.PathLike[str]) -> str:
    """Hand over a path as text that ITK and VTK take: any byte but UTF-8's in it would end the process.

    Raises:
        ValueError: it holds one.
    """
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode("utf-8", "backslashreplace").decode()
        raise ValueError(
            f"The path ({shown}) is not in UTF-8, in which ITK and VTK take names: rename it, or link to it by another "
            "name."
        ) from error
    return text


def _stat(path: Path) -> dict[str, Any]:
    stats = [part.stat() for part in _parts(path)]
    return {
        "path": str(path),
        "bytes": sum(stat.st_size for stat in stats),
        "mtime_ns": max(stat.st_mtime_ns for stat in stats),
    }


def _parts(path: Path) -> list[Path]:
    """List the files that make an image: one, or a header and the voxels that lie apart from it."""
    suffix = path.suffix.lower()
    if suffix in DETACHED:
        named = re.search(DETACHED[suffix], path.read_bytes()[:65536].decode("latin-1"))
        other = path.parent / named[1] if named else path
    else:
        other = path.with_suffix({".hdr": ".img", ".img": ".hdr"}.get(suffix, path.suffix))
    return [path, other] if other != path and other.is_file() else [path]
