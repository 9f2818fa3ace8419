"""How a run ends: one code and one sentence, without patient data."""

from collections.abc import Iterator
from enum import Enum

__all__ = ["Code", "Failure", "as_failure", "causes"]


class Code(Enum):
    """Why a run was refused; ``exit_code`` groups them for platforms (docs/deploy.md)."""

    E_NO_INPUT = "E_NO_INPUT"
    E_PATIENT = "E_PATIENT"
    E_TWO_PATIENTS = "E_TWO_PATIENTS"
    E_AMBIGUOUS = "E_AMBIGUOUS"
    E_NO_MATCH = "E_NO_MATCH"
    E_SAME = "E_SAME"
    E_NO_GEOMETRY = "E_NO_GEOMETRY"
    E_ORIENTATION = "E_ORIENTATION"
    E_MIXED_ORIENTATION = "E_MIXED_ORIENTATION"
    E_MIXED_FRAMES = "E_MIXED_FRAMES"
    E_DUPLICATE_POSITION = "E_DUPLICATE_POSITION"
    E_MISSING_SLICES = "E_MISSING_SLICES"
    E_VARIABLE_SPACING = "E_VARIABLE_SPACING"
    E_NOT_A_LINE = "E_NOT_A_LINE"
    E_TOO_FEW = "E_TOO_FEW"
    E_COLOUR = "E_COLOUR"
    E_UID_COLLISION = "E_UID_COLLISION"
    E_LIMIT = "E_LIMIT"
    E_DECODE = "E_DECODE"
    E_QUALITY = "E_QUALITY"
    E_OUTPUT = "E_OUTPUT"
    E_WEIGHTS = "E_WEIGHTS"
    E_INTERNAL = "E_INTERNAL"
    E_TERMINATED = "E_TERMINATED"

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        return _EXIT_CODES.get(self, 40)


_EXIT_CODES = {
    Code.E_NO_INPUT: 10,
    Code.E_PATIENT: 20,
    Code.E_TWO_PATIENTS: 20,
    Code.E_AMBIGUOUS: 30,
    Code.E_NO_MATCH: 31,
    Code.E_SAME: 32,
    Code.E_DECODE: 41,
    Code.E_QUALITY: 50,
    Code.E_OUTPUT: 60,
    Code.E_WEIGHTS: 70,
    Code.E_INTERNAL: 70,
    Code.E_TERMINATED: 143,  # as a process ends that SIGTERM kills
}


class Failure(Exception):  # noqa: N818 - the word of the manifest
    """A run that must not go on.

    Args:
        code: why.
        message: what, where and what to do, in one sentence; never a value that identifies a patient.
    """

    def __init__(self, code: Code, message: str) -> None:  # noqa: B042 - str() gives the message alone
        super().__init__(message)
        self.code, self.message = code, message


def as_failure(error: BaseException) -> Failure:
    """Take a failure as it is, and of anything else its kind alone, since its text may hold anything."""
    if isinstance(error, Failure):
        return error
    return Failure(Code.E_INTERNAL, f"Something unforeseen went wrong ({type(error).__name__}).")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its cause, the cause of that, and so on; each once, since a chain may close upon itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
