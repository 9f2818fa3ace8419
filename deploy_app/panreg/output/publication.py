"""All or nothing: objects are staged, checked, made durable, and appear in ``dicom/`` by one rename.

    with Publication(output, work) as publication:      # refuses an unusable output before anything is computed
        manifest = Manifest(output, …)
        with output_failures():
            …                                           # writers fill publication.staging
        objects = publication.publish(validators)
        manifest.succeed(objects)

Whatever fails inside the block, ``dicom/`` is gone when it is left: the last manifest belongs inside it too. A process
killed at any point leaves no ``dicom/`` or a complete one, and only a manifest that says ``ok`` declares it valid: the
objects are announced before they appear, so that the next run can tell that they are complete (``recovery``). An output
folder belongs to one run at a time, which holds a lock on it.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from types import TracebackType

from panreg.dicom.attributes import pydicom_silenced
from panreg.dicom.elements import invalid, strict
from panreg.failures import Code, Failure, causes
from panreg.output.folder_lock import lock
from panreg.output.page import PAGE, PublishedPage, hidden, hide_page, remove_page, show_page
from pydicom import Dataset, dcmread

__all__ = ["RESULTS", "Publication", "PublishedObject", "Validator", "output_failures", "sync"]

RESULTS = "dicom"
ATTEMPTS, QUIET = 50, 10  # to take back what writers are at work in, and looks in a row that find nothing new
LISTED = 5  # faults that a message names
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}

Validator = Callable[[Dataset], Iterable[str]]
"""Takes an object as it was read back from its file; names what is wrong by keyword, without values."""
Announcement = Callable[[list["PublishedObject"]], None]
"""Takes what is about to appear."""


@dataclass(frozen=True)
class PublishedObject:
    """A DICOM object of the output, for the manifest.

    Args:
        path: relative to the output folder, with slashes.
        sop_class_uid: SOP Class UID.
        sop_instance_uid: SOP Instance UID.
        sha256: of the file.
    """

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    sha256: str


@contextmanager
def output_failures() -> Iterator[None]:
    """Turn the errors of the operating system into E_OUTPUT; without paths, which may name a patient."""
    try:
        yield
    except OSError as error:
        numbers = (cause.errno for cause in causes(error) if isinstance(cause, OSError))
        number = next(filter(None, numbers), 0)  # pydicom wraps what writing raises: its own has none
        name = errno.errorcode.get(number, type(error).__name__)
        if number in NO_SPACE:
            message = f"The output has no space left ({name}): free some, or give another folder."
        elif number in NO_ACCESS:
            message = f"The output folder can't be written by user {os.geteuid()} ({name}): give it to that user."
        else:
            message = f"The output could not be written ({name})."
        raise Failure(Code.E_OUTPUT, message) from None


class Publication:
    """The way of a run's DICOM objects into its output folder.

    An output folder that already holds ``dicom/`` is refused and left as it is: whose files these are, nobody here can
    know, and old beside new would be a mixture. A file ``report.html`` of the staging folder comes to lie beside
    ``dicom/``: hidden until that is there, so that none is ever seen alone.

    Args:
        output: the run's output folder; made if it isn't there.
        work: folder to stage in, used if a rename leads from there to the output (one file system); else a hidden
            folder of the output is.
        results: name of the folder that appears in the output.
    """

    def __init__(self, output: Path, work: Path | None = None, results: str = RESULTS) -> None:
        name = hashlib.sha256(os.path.abspath(output).encode()).hexdigest()[:16]
        self.results = output / results
        self._places = (
            [output / ".panreg.part"] if work is None else [work / f"panreg-{name}.part", output / ".panreg.part"]
        )
        self.page: PublishedPage | None = None
        self._published = False
        self._lock = -1
        self._turn = Lock()  # of who decides what becomes of the objects: the run, or who ends it

    def __enter__(self) -> "Publication":
        """Check the output before anything is computed for it, and keep other runs out.

        Raises:
            Failure: E_OUTPUT: not writable, or in use.
        """
        with output_failures():
            self.results.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.results.parent)
            try:
                self._refuse_results()
                self.staging = self._stage()
            except BaseException:
                os.close(self._lock)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove what was staged, and what was published if the run failed after all."""
        with self._turn:
            try:
                if error is not None or not self._published:
                    self.withdraw()
            finally:
                os.close(self._lock)

    @contextmanager
    def abandoned(self) -> Iterator[bool]:
        """Take back what was staged, for a run that another thread must end; within the context nothing appears.

        Yields:
            Whether it was taken back: what has been published already stays.
        """
        with self._turn:
            if not self._published:
                gone = 0
                for _ in range(ATTEMPTS):  # a writer may be at work in it, and make it anew before it fails
                    self.withdraw()
                    gone = 0 if self.staging.exists() else gone + 1
                    if gone == QUIET:
                        break
                    time.sleep(0.02)
            yield not self._published

    def _refuse_results(self) -> None:
        """Refuse a folder that holds results; a page that is still hidden is a killed run's."""
        taken = {self.results: f"{self.results.name}/"}
        if self.results.name == RESULTS:  # nothing else comes with a page
            taken[self.results.with_name(PAGE)] = PAGE
            hidden(self.results.parent).unlink(missing_ok=True)
        for place, name in taken.items():
            if os.path.lexists(place):
                raise Failure(Code.E_OUTPUT, f"The output folder holds results already ({name}): give an empty one.")

    def require_space(self, size: int) -> None:
        """Refuse to begin what the file system has no space for.

        Raises:
            Failure: E_OUTPUT.
        """
        with output_failures():
            free = shutil.disk_usage(self.staging).free
        if free < size:
            raise Failure(Code.E_OUTPUT, f"The output needs {size >> 20} MB and has {free >> 20} MB: free some.")

    def publish(
        self, validators: Sequence[Validator] = (), announce: Announcement | None = None
    ) -> list[PublishedObject]:
        """Check every staged object as its file holds it, and let all appear at once.

        Args:
            validators: called with every object; the values' own rules (VR) are checked anyway.
            announce: called with what is about to appear, when all is durable.

        Raises:
            Failure: E_OUTPUT; then nothing was published.
        """
        with output_failures():
            self.page = hide_page(self.staging, self.results.parent)
            paths = sorted(path for path in self.staging.rglob("*") if not path.is_dir())
            objects = [self._inspect(path, validators) for path in paths]
            if not objects or len({found.sop_instance_uid for found in objects}) < len(objects):
                raise Failure(Code.E_OUTPUT, "There is no object to publish, or two with one SOP Instance UID.")
            for path in paths + [path for path in self.staging.rglob("*") if path.is_dir()]:
                sync(path)
            sync(self.staging)
            if self.page is not None:
                sync(hidden(self.results.parent))
            with self._turn:
                if announce is not None:
                    announce(objects)
                self._published = True  # before it is true: a failure from here on withdraws
                self.staging.rename(self.results)
                show_page(self.results.parent)
                sync(self.results.parent)
        return objects

    def withdraw(self) -> None:
        """Take back what was staged or published: gone from ``dicom/`` in one step, then removed."""
        with output_failures():
            if self._published and not self.staging.exists() and self.results.exists():
                self.results.rename(self.staging)
            if self.page is not None:
                remove_page(self.results.parent, shown=self._published)
        self._published, self.page = False, None
        shutil.rmtree(self.staging, ignore_errors=True)

    def _stage(self) -> Path:
        """Make the staging folder in the first place from which a rename leads to the output."""
        for place in self._places:
            if os.path.lexists(place):
                shutil.rmtree(place, ignore_errors=place is not self._places[-1])  # of a run that was killed
        for place in self._places[:-1]:
            try:
                return self._probed(place)
            except OSError:  # another file system (EXDEV), or not writable: the output itself remains
                shutil.rmtree(place, ignore_errors=True)
        return self._probed(self._places[-1])

    def _probed(self, place: Path) -> Path:
        probe = self.results.with_name(".panreg.probe")
        if probe.exists():
            probe.rmdir()
        place.mkdir()
        place.rename(probe)
        probe.rmdir()
        place.mkdir()
        return place

    def _inspect(self, path: Path, validators: Sequence[Validator]) -> PublishedObject:
        name = path.relative_to(self.staging).as_posix()
        content = path.read_bytes()
        try:
            dataset = dcmread(path)
            check_bytes(dataset, content)
            faults = [fault for validator in validators for fault in validator(dataset)]
            uids = str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)
        except (OSError, Failure):
            raise
        except Exception as error:  # whatever a damaged object or a validator raises; its text may hold values
            raise Failure(Code.E_OUTPUT, f"{name} failed its check ({type(error).__name__}).") from None
        if faults:
            listed = ", ".join(faults[:LISTED]) + (" …" if len(faults) > LISTED else "")
            raise Failure(Code.E_OUTPUT, f"{name} failed its check: {listed}.")
        return PublishedObject(f"{self.results.name}/{name}", *uids, hashlib.sha256(content).hexdigest())


def check_bytes(dataset: Dataset, content: bytes) -> None:
    """Check that every value obeys its VR, and that a file holds what was read from it, to the last byte.

    Reading alone is lenient, even a strict one: malformed dates pass, and a truncated file ends where it ends.

    Raises:
        ValueError: if not.
    """
    with pydicom_silenced():
        if any(invalid(dataset)):
            raise ValueError("a value breaks the rules of its VR")
    written = BytesIO()
    with strict():
        dataset.save_as(written, enforce_file_format=True)
    if written.getbuffer() != content:
        raise ValueError("the file doesn't end where its last element does")


def sync(path: Path) -> None:
    """Make a file's or folder's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
