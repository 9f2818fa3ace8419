"""The table of who reads what: one row a tool and file, written by ``make test-interop TABLE=--table``."""

import subprocess
from dataclasses import dataclass
from importlib.metadata import version

START, END = "<!-- made by make test-interop TABLE=--table -->", "<!-- end -->"
WHOLE = 70  # tests of a whole run, at least
STEPS = (1e-3, 1e-2, 0.1, 1.0)
TITLES = {
    "read by them": ("## Our files in other tools", "tool", "our file"),
    "read by us": ("## Other tools' files in ours", "tool", "its file"),
}


@dataclass(frozen=True, order=True)
class Cell:
    """What was found of one file in one tool."""

    direction: str
    tool: str
    file: str
    result: str
    remark: str = ""


def at_most(mm):
    """Round a distance up, so that another machine's last digits leave the table as it is."""
    return f"≤ {next((step for step in STEPS if mm <= step), mm):g} mm"


def write(cells):
    """Make the tables of all cells."""
    lines = [START]
    for direction, (title, *columns) in TITLES.items():
        lines += ["", title, f"| {columns[0]} | {columns[1]} | result |", "|---|---|---|"]
        for cell in sorted(set(cells), key=lambda cell: (cell.tool.lower(), cell.file)):
            if cell.direction == direction:
                result = cell.remark if cell.result == "differs" else f"right, {cell.result}"
                more = f"; {cell.remark}" if cell.remark and cell.result != "differs" else ""
                lines.append(f"| {cell.tool} | {cell.file} | {result}{more} |")
    return "\n".join([*lines, "", END])


def put(document, made):
    """Put the tables in the place of those before."""
    before, _, rest = document.partition(START)
    return before + made + rest.partition(END)[2]


def named(package):
    """Name a Python package and its version."""
    return f"{package} {version(package)}"


def program(package):
    """Name a Debian package and the version of what it holds."""
    asked = ["dpkg-query", "-W", "-f=${Version}", package]
    whole = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    return f"{package} {whole.split(':')[-1].split('-')[0].split('+')[0]}"
