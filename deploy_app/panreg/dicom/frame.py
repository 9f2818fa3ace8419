"""A frame: one image, by the file that holds it and its header."""

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

__all__ = ["Frame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a stack: a single-frame instance, or one frame of a multi-frame one.

    Args:
        path: file.
        header: data set of the instance without pixels; frames of one instance share it.
        number: frame number from 1 of a multi-frame instance, else None.
        copies: other files of the input that hold the same instance.
    """

    path: Path
    header: Dataset
    number: int | None = None
    copies: tuple[Path, ...] = ()

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID of the instance that holds the frame."""
        return str(self.header.SOPInstanceUID)
