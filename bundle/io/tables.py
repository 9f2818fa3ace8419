"""Tables of numbers."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.io.files import in_place

__all__ = ["markdown_table", "read_csv", "write_csv"]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, floats with six decimals; the columns are those of all rows, in the order they turn up in.

    A cell that a row lacks stays empty. The file is there whole or as it was, whenever the process ends. It is in
    UTF-8, in which bytes of file names that are not are spelt out.

    Args:
        path: of the file.
        rows: at least one.
    """
    columns = dict.fromkeys(key for row in rows for key in row)
    with in_place(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file, by the names in its first line, as ``write_csv`` leaves it.

    Args:
        path: of the file.
    """
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay cells out as a Markdown table, a line each row and one below the head.

    Example:
        >>> print(markdown_table(["pair", "overlap"], [["a", "0.7"]]), end="")
        | pair | overlap |
        | --- | --- |
        | a | 0.7 |
    """
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))
