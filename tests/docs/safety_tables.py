"""Fill in the tests of docs/safety.md: ``python tests/docs/safety_tables.py``, with ``--check`` to compare only.

The document holds the texts of hazards, requirements and properties. A test is marked with what it shows:
``@pytest.mark.hazard("…")`` with the hazard's words as in the table, ``@pytest.mark.property(…)`` with its number. The
last column of both tables is generated from these marks.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = "docs/safety.md"
KINDS = {"hazard": str, "property": int}
ROW = re.compile(r"^\| (?P<key>[^|]+?) \| (?P<text>[^|]+?) \|(?P<tests>[^|]*)\|$", re.M)
HEADINGS = {"hazard", "#", "---", "|"}


def marks(path: Path) -> Iterator[tuple[str, str, str]]:
    """Find the marked tests of a file without importing it: kind, key and the test's name."""
    for function in ast.parse(path.read_text()).body:
        for decorator in function.decorator_list if isinstance(function, ast.FunctionDef) else ():
            match = re.fullmatch(r"pytest\.mark\.(\w+)\((.*)\)", ast.unparse(decorator), re.S)
            if match is None or match[1] not in KINDS or not isinstance(decorator, ast.Call):
                continue
            for argument in decorator.args:
                value = ast.literal_eval(argument)
                if not isinstance(value, KINDS[match[1]]):
                    raise ValueError(f"{path}: {function.name}: {match[1]}({value!r})")
                yield match[1], str(value), function.name


def filled(document: str, found: dict[str, list[str]]) -> str:
    """Write the tests into the rows of the document's tables.

    Args:
        document: text of the document.
        found: names of tests by the first cell of their row.

    Raises:
        ValueError: a row that no test is marked with, or a mark that no row has.
    """
    keys = [row["key"] for row in ROW.finditer(document) if row["key"] not in HEADINGS]
    for problem, names in (
        ("no test is marked with", set(keys) - found.keys()),
        ("no row begins with", found.keys() - set(keys)),
        ("two rows begin with", {key for key in keys if keys.count(key) > 1}),
    ):
        if names:
            raise ValueError(f"{DOCUMENT}: {problem} {', '.join(map(repr, sorted(names)))}")

    def with_tests(row: re.Match[str]) -> str:
        if row["key"] in HEADINGS:
            return row[0]
        return f"| {row['key']} | {row['text']} | {', '.join(f'`{name}`' for name in found[row['key']])} |"

    return ROW.sub(with_tests, document)


def generated(root: Path) -> str:
    """Generate the document from itself and the tests."""
    found = defaultdict(list)
    for path in sorted(root.glob("tests/**/test_*.py")):
        for _, key, name in marks(path):
            found[key].append(name)
    return filled((root / DOCUMENT).read_text(), found)


def main(arguments: list[str]) -> int:
    """Write the document, or say that it is not what the tests' marks give."""
    path, text = ROOT / DOCUMENT, generated(ROOT)
    if "--check" in arguments:
        return 0 if path.read_text() == text else f"{DOCUMENT} is not current: python tests/docs/safety_tables.py"
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
