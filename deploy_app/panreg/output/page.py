"""The page of the registration, for a browser: hidden beside ``dicom/`` until that is there, never seen alone."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE", "PublishedPage", "hidden", "hide_page", "remove_page", "show_page"]

PAGE = "report.html"


@dataclass(frozen=True)
class PublishedPage:
    """The page beside the objects, for the manifest.

    Args:
        path: relative to the output folder.
        sha256: of the file.
    """

    path: str
    sha256: str


def hidden(output: Path) -> Path:
    """Where the page of an output folder lies until the objects are there."""
    return output / f".{PAGE}.part"


def hide_page(staging: Path, output: Path) -> PublishedPage | None:
    """Take a staged page to where it will appear, hidden yet; None if there is none."""
    staged = staging / PAGE
    if not staged.is_file():
        return None
    digest = hashlib.sha256(staged.read_bytes()).hexdigest()
    staged.rename(hidden(output))
    return PublishedPage(PAGE, digest)


def show_page(output: Path) -> None:
    """Let a hidden page appear, if there is one."""
    if hidden(output).is_file():
        hidden(output).rename(output / PAGE)


def remove_page(output: Path, shown: bool) -> None:
    """Remove the page of a run that failed; ``shown``: also if it had appeared."""
    hidden(output).unlink(missing_ok=True)
    if shown:
        (output / PAGE).unlink(missing_ok=True)
