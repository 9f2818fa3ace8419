"""Whether a surface file is as long as it says.

VTK 9.7 ends the process over a PLY file that is cut off, takes what is left of an STL file for the whole, and fills up
the points of its own text files with what was in memory.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["is_complete"]

SIZES = {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "float": 4, "double": 8}
SIZES |= {f"{kind}{bits}": bits // 8 for kind in ("int", "uint") for bits in (8, 16, 32)} | {"float32": 4, "float64": 8}
COUNTS = {1: "B", 2: "H", 4: "I"}  # of the numbers in a list, by their bytes
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
STL_HEADER, STL_TRIANGLE = 84, 50  # bytes


def is_complete(path: Path) -> bool:
    """Tell whether a ``.ply``, ``.stl`` or ``.vtk`` file holds as much as its header announces; others pass."""
    check = CHECKS.get(path.suffix.lower())
    return check is None or check(path.read_bytes())


@dataclass
class _Element:
    """A kind of thing in a PLY file: how many, and the bytes of each of its properties, (of the count, of a number)."""

    count: int
    properties: list[tuple[int, int]] = field(default_factory=list)


def _ply(content: bytes) -> bool:
    header = re.match(rb"(?s)ply\r?\n.*?\nend_header\r?\n", content)
    if not header:
        return not content.startswith(b"ply")  # VTK says that it is none
    lines = [line.split() for line in header[0].decode("latin-1").splitlines()]
    form = next((words[1] for words in lines if words[:1] == ["format"]), "")
    try:
        elements = list(_elements(lines))
    except (KeyError, IndexError, ValueError):
        return False
    rest = content[header.end() :]
    if form not in ORDERS:
        return sum(bool(line.strip()) for line in rest.splitlines()) >= sum(e.count for e in elements)
    return _end(rest, elements, ORDERS[form]) <= len(rest)


def _elements(lines: list[list[str]]) -> Iterator[_Element]:
    element = None
    for words in lines:
        if words[:1] == ["element"]:
            if element:
                yield element
            element = _Element(int(words[2]))
        elif words[:2] == ["property", "list"] and element:
            element.properties.append((SIZES[words[2]], SIZES[words[3]]))
        elif words[:1] == ["property"] and element:
            element.properties.append((0, SIZES[words[1]]))
    if element:
        yield element


def _end(rest: bytes, elements: list[_Element], order: str) -> int:
    """Find the byte at which the last element ends, or one beyond what there is."""
    at = 0
    for element in elements:
        if not any(count for count, _ in element.properties):
            at += element.count * sum(size for _, size in element.properties)
            continue
        for _ in range(element.count):
            for count, size in element.properties:
                if at + count > len(rest):
                    return len(rest) + 1
                numbers = struct.unpack_from(order + COUNTS[count], rest, at)[0] if count else 1
                at += count + numbers * size
    return at


def _stl(content: bytes) -> bool:
    if content[:5].lower() == b"solid" and b"facet" in content[:1024]:
        return b"endsolid" in content[-1024:]
    if len(content) < STL_HEADER:
        return False
    return len(content) >= STL_HEADER + STL_TRIANGLE * int(struct.unpack_from("<I", content, STL_HEADER - 4)[0])


def _vtk(content: bytes) -> bool:
    """Count the coordinates of a text file; of a binary one VTK says that they are too few."""
    found = re.search(rb"(?m)^POINTS\s+(\d+)\s+\w+\s", content)
    if not found or b"\nBINARY" in content[: found.start()]:
        return True
    words = content[found.end() :].split(maxsplit=3 * int(found[1]))[: 3 * int(found[1])]
    return len(words) == 3 * int(found[1]) and all(
        re.fullmatch(rb"[-+.\dEe]+|[-+]?(?i:nan|inf)", word) for word in words
    )


CHECKS: dict[str, Callable[[bytes], bool]] = {".ply": _ply, ".stl": _stl, ".vtk": _vtk}
