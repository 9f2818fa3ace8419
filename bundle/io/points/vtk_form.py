"""The form of a surface file that VTK reads, kept where VTK would write a default of its own."""

import re
from pathlib import Path
from typing import Any

__all__ = ["keep_form", "keep_title"]

TEXT, BINARY = 1, 2  # VTK's file types
OLDER, NEWER = 42, 51  # the versions of .vtk that VTK writes
HEAD_BYTES = 4096
NOTE = re.compile(r"\s*SPACE=(LPS|RAS)", re.IGNORECASE)
TITLE = 200  # characters; VTK reads 256 of a line
BY_VTK = "VTK generated PLY File"  # a comment that its writer adds
COLOURS = "RGB"


def keep_form(reader: Any, writer: Any, surface: Any, path: Path) -> None:
    """Let VTK write a surface as its source is written.

    Args:
        reader: has read the source.
        writer: is to write the surface: in text or binary as the source, ``.vtk`` in its version (4.2 for older ones)
            and ``.ply`` in its order of bytes, with its colours.
        surface: vtkPolyData with the arrays of the source; those of colours are renamed.
        path: of the source.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    ending = path.suffix.lower()
    if ending == ".vtk":
        writer.SetFileType(reader.GetFileType())
        writer.SetFileVersion(NEWER if reader.GetFileMajorVersion() >= NEWER // 10 else OLDER)
    elif ending == ".stl":
        writer.SetFileType(TEXT if head[:5].lower() == b"solid" and b"facet" in head else BINARY)
    elif ending == ".ply":
        writer.SetFileType(TEXT if b"format ascii" in head else BINARY)
        if b"format binary_big_endian" in head:
            writer.SetDataByteOrderToBigEndian()
        _keep_colours(writer, surface)
    elif b'format="ascii"' in head:
        writer.SetDataModeToAscii()
    elif b'format="binary"' in head:
        writer.SetDataModeToBinary()


def _keep_colours(writer: Any, surface: Any) -> None:
    """Name the colours of the vertices and the faces, which VTK reads as RGB or RGBA, as its writer wants them."""
    found = [of.GetArray(name) for of in (surface.GetPointData(), surface.GetCellData()) for name in ("RGB", "RGBA")]
    for colours in filter(None, found):
        colours.SetName(COLOURS)
        writer.SetArrayName(COLOURS)
        if colours.GetNumberOfComponents() > len(COLOURS):
            writer.SetEnableAlpha(True)


def keep_title(reader: Any, writer: Any, note: str) -> bool:
    """Write the title of ``.vtk`` and ``.stl``, or the comments of ``.ply``, with a note on how the file counts.

    Returns:
        Whether the format has either.
    """
    if hasattr(writer, "SetHeader"):
        writer.SetHeader(f"{_title(reader)} {note}".strip())
        return True
    if not hasattr(writer, "AddComment"):
        return False
    comments = reader.GetComments()
    for number in range(comments.GetNumberOfValues()):
        comment = comments.GetValue(number)
        if comment != BY_VTK and not NOTE.search(comment):
            writer.AddComment(comment)
    writer.AddComment(note)
    return True


def _title(reader: Any) -> str:
    try:
        title = str(reader.GetHeader() or "")
    except UnicodeDecodeError:
        return ""
    lines = NOTE.sub("", title).removeprefix("solid").split("\n")  # a binary .stl must not begin as one of text
    return lines[0].strip()[:TITLE]
