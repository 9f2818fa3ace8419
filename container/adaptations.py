"""The changes to what the packager writes; each must match as often as it did in the pinned version."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["BASE_PYTHON", "DEBIAN", "ENTRY_POINT", "EVERYWHERE", "Edit", "apply", "labels"]

BASE_PYTHON = (3, 11)  # of Debian 12


class Edit(NamedTuple):
    """One textual change: a regular expression (multi-line), what stands in its place, how often it matches."""

    why: str
    pattern: str
    replacement: str
    matches: int = 1


_PYTHON = "python{}.{}".format(*BASE_PYTHON)

DEBIAN = (
    Edit("nothing comes from NVIDIA's package archive", r"^# Update NV GPG repo key\n(#.*\n)*RUN (.*\\\n)+.*\n", ""),
    Edit("no versions of Ubuntu's Python", r"^ENV PYTHON_(PIP_)?VERSION=.*\n", "", 2),
    Edit("no versions of Ubuntu's packages", r"=\$\{PYTHON_(PIP_)?VERSION\}", "", 5),
    Edit("the base's Python", r"python3\.12", _PYTHON, 2),
    Edit(
        "no empty entry, which is the working folder, on the loader's path", r"(?<=LIBRARY_PATH=)\$LD_LIBRARY_PATH:", ""
    ),
    Edit(
        "packages from one folder, no index",
        r"^COPY \./pip/requirements\.txt",
        r"ARG PIP_NO_INDEX=1\nARG PIP_FIND_LINKS=/wheels\n\g<0>",
    ),
)
EVERYWHERE = (
    Edit(
        "libcudart.so.13, without which the SDK cannot be imported",
        r"^ENV LD_LIBRARY_PATH=\S*?(/home/\S+/site-packages)/holoscan/lib$",
        r"\g<0>:\g<1>/nvidia/cu13/lib",
    ),
    Edit(
        "Holoscan's wheel finishes its installation at Python's next start, with the system's pip: not while ours runs",
        r"^RUN pip install .*-r /tmp/requirements\.txt$",
        r"\g<0>\nRUN python3 -c pass",
    ),
    Edit("the application's user is no administrator", r"-G sudo ", ""),
)
ENTRY_POINT = (
    Edit(
        "the application's exit code is the container's",
        r'^( +)fi\n( +else\n +fatal "Failed to launch application)',
        r"\1fi\n\1exit $exit_code\n\2",
    ),
)


def labels(values: Mapping[str, str]) -> Edit:
    """Make the edit that adds OCI labels to the packager's own title and version."""
    lines = "".join(f'LABEL org.opencontainers.image.{key}="{value}"\n' for key, value in values.items() if value)
    return Edit("OCI labels", r"^ENTRYPOINT ", lines + r"\g<0>")


def apply(text: str, edits: Sequence[Edit]) -> str:
    """Apply edits in turn.

    Raises:
        ValueError: if one matches otherwise than it should: the packager is not the pinned one.
    """
    for edit in edits:
        text, matches = re.subn(edit.pattern, edit.replacement, text, flags=re.MULTILINE)
        if matches != edit.matches:
            raise ValueError(f"{edit.why}: {matches} matches instead of {edit.matches}; is the packager another one?")
    return text
