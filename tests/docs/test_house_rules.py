"""Production code: short functions and files, and no ``assert`` for what types or errors have to say."""

import ast

import pytest

FOLDERS = ("bundle", "container", "deploy_app", "release.py")
FILE_LINES, BODY_LINES = 300, 40


def production(bundle_root):
    for name in FOLDERS:
        path = bundle_root / name
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def broken_rules(text):
    """Name what a file's text breaks; a function's body is counted without its signature and docstring."""
    broken = ["file"] if len(text.splitlines()) > FILE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assert):
            broken.append(f"assert, line {node.lineno}")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body and body[-1].end_lineno - body[0].lineno >= BODY_LINES:
                broken.append(f"{node.name}, line {node.lineno}")
    return broken


def test_production_code_is_short_and_asserts_nothing(bundle_root):
    files = list(production(bundle_root))
    assert len(files) > 150
    assert {path.relative_to(bundle_root).as_posix(): broken_rules(path.read_text()) for path in files} == {
        path.relative_to(bundle_root).as_posix(): [] for path in files
    }


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("x = 1\n" * 300, []),
        ("x = 1\n" * 301, ["file"]),
        ("def f():\n" + "    x = 1\n" * 40, []),
        ("def f():\n" + "    x = 1\n" * 41, ["f, line 1"]),
        ('def f():\n    """Say.\n' + "\n" * 40 + '    """\n' + "    x = 1\n" * 40, []),
        ("x = 1\nassert x\n", ["assert, line 2"]),
    ],
)
def test_the_rules_are_seen_to_be_broken(text, broken):
    assert broken_rules(text) == broken
