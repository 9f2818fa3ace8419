"""A stack: parallel images of one acquisition, ordered in space. The unit that pairing, registration and writers see.

World is LPS mm, DICOM's patient axes. Index (i, j, k) = (column, row, slice); arrays of a stack are ``[k, j, i]``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from panreg.dicom.attributes import text
from panreg.dicom.frame import Frame
from panreg.failures import Failure
from pydicom import Dataset

__all__ = ["AnyStack", "FrameGroup", "Matrix", "RefusedStack", "Stack", "accepted"]

Matrix = npt.NDArray[np.float64]


class FrameGroup:
    """Frames that belong together, placed in space or not: what ``Stack`` and ``RefusedStack`` have in common."""

    frames: tuple[Frame, ...]
    warnings: tuple[str, ...]

    @property
    def header(self) -> Dataset:
        """Header of the first frame: what all frames share is read here."""
        return self.frames[0].header

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns: the shape of the stack's array ``[k, j, i]``."""
        return len(self.frames), int(self.header.Rows), int(self.header.Columns)

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return str(self.header.SeriesInstanceUID)

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.header.StudyInstanceUID)

    @property
    def frame_of_reference_uid(self) -> str:
        """Frame of Reference UID."""
        return str(self.header.FrameOfReferenceUID)

    @property
    def modality(self) -> str:
        """CT or MR."""
        return str(self.header.Modality).strip()

    @cached_property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """SOP Instance UIDs, in slice order, each once."""
        return tuple(dict.fromkeys(frame.sop_instance_uid for frame in self.frames))

    @property
    def has_burned_in_text(self) -> bool:
        """Whether any image says that its pixels show text, which may name the patient."""
        return any((text(header, "BurnedInAnnotation") or "").upper() == "YES" for header in self.instances())

    def instances(self) -> Iterator[Dataset]:
        """Headers of the instances, in slice order, each once."""
        yield from {frame.sop_instance_uid: frame.header for frame in self.frames}.values()


@dataclass(frozen=True, eq=False)
class Stack(FrameGroup):
    """Frames in ascending order along the normal (row × column), with the affine that places them.

    Args:
        frames: in slice order k.
        affine: (i, j, k, 1) to LPS mm, 4×4; exact under gantry tilt (then sheared).
        warnings: what a person should look at, without patient data.
    """

    frames: tuple[Frame, ...]
    affine: Matrix
    warnings: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between columns, rows and planes (i, j, k), the last along the normal also when tilted."""
        i, j, step = self.affine[:3, :3].T
        normal = np.cross(i, j)
        between_planes = abs(normal @ step) / np.linalg.norm(normal)
        return float(np.linalg.norm(i)), float(np.linalg.norm(j)), float(between_planes)

    @property
    def tilt_degrees(self) -> float:
        """Angle between the normal and the step from slice to slice: the gantry's tilt."""
        ratio = self.spacing_mm[2] / float(np.linalg.norm(self.affine[:3, 2]))
        return float(np.degrees(np.arccos(min(ratio, 1.0))))

    def points(self) -> Matrix:
        """Positions of all voxel centres, LPS mm: (slices, rows, columns, 3), float64."""
        k, j, i = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in self.shape], indexing="ij", sparse=True)
        a = self.affine
        return np.stack([a[r, 0] * i + a[r, 1] * j + a[r, 2] * k + a[r, 3] for r in range(3)], -1)


@dataclass(frozen=True, eq=False)
class RefusedStack(FrameGroup):
    """Frames that failed a check and can't be registered.

    They stay candidates, so that a damaged series can't silently change which pair is chosen; the run fails with the
    refusal if they are selected.

    Args:
        frames: in the order of their SOP Instance UIDs.
        refusal: why.
        warnings: what a person should look at, without patient data.
    """

    frames: tuple[Frame, ...]
    refusal: Failure
    warnings: tuple[str, ...] = ()


AnyStack = Stack | RefusedStack


def accepted(stack: AnyStack) -> Stack:
    """Take a stack that may be registered.

    Raises:
        Failure: the refusal of one that may not.
    """
    if isinstance(stack, RefusedStack):
        raise stack.refusal
    return stack
