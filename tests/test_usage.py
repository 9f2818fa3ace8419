"""The help of the command line: commands with a line each, options as they are typed."""

import inspect
import sys
from collections.abc import Sequence

import bundle
import pytest
from bundle.__main__ import COMMANDS, load, main, overview
from bundle.usage import first_line, help_text


def run(monkeypatch, capsys, *arguments):
    """Run the command line in this process: its exit code, 0 if it just returns, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["bundle", *arguments])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_list_of_commands_says_of_each_what_its_docstring_says_first():
    for name, text in COMMANDS.items():
        command = load(name)
        if isinstance(command, dict):
            assert all(first_line(function).endswith(".") for function in command.values())
        else:
            assert text == first_line(command)
    assert " ".join(COMMANDS["convert"].split()) in " ".join(overview().split())


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["-h"], 0), (["help"], 0), ([], 2)])
def test_the_commands_are_listed_where_none_is_given_and_where_help_is_asked_for(monkeypatch, capsys, arguments, code):
    found, out, err = run(monkeypatch, capsys, *arguments)
    assert found == code
    assert (err if code else out) == overview() + "\n"
    assert (out if code else err) == ""


def test_the_version_is_told(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version") == (0, f"pan-registration {bundle.__version__}\n", "")


def test_common_options_may_stand_before_the_command_and_others_are_told_where_they_belong(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--quiet", "root") == (0, "", "")
    code, out, _ = run(monkeypatch, capsys, "--quiet", "--json", "root")
    assert (code, out.startswith('"')) == (0, True)
    code, _, err = run(monkeypatch, capsys, "--moving", "m.nii", "register")
    assert (code, err.count("\n")) == (2, 1)
    assert "(--moving: options stand after the command)" in err


@pytest.mark.parametrize("arguments", [[], ["--repeats", "2"]])
def test_a_command_of_several_lists_them_and_starts_none_of_its_own(monkeypatch, capsys, arguments):
    code, out, err = run(monkeypatch, capsys, "benchmark", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: benchmark needs the name of one of its commands")
    for name, function in load("benchmark").items():
        assert f"\n  {name} " in err
        assert first_line(function) in " ".join(err.split())
    assert run(monkeypatch, capsys, "help", "benchmark")[1].endswith(err.split("\n\n", 1)[1])


@pytest.mark.parametrize("arguments", [["help", "apply_points"], ["apply_points", "--help"]])
def test_options_are_shown_as_they_are_typed(monkeypatch, capsys, arguments):
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert out.startswith("usage: python -m bundle apply_points --transform TEXT --points TEXT --output TEXT [options]")
    assert "\n  --from TEXT  (default: moving)\n      --from moving (the default) or" in out
    assert "from_" not in out


def test_help_says_of_every_option_of_every_command_what_it_means():
    for name in COMMANDS:
        command = load(name)
        for function in command.values() if isinstance(command, dict) else [command]:
            lines = help_text(function, name).splitlines()
            for key in inspect.signature(function).parameters:
                at = next(n for n, line in enumerate(lines) if line.startswith(f"  --{key.rstrip('_')} "))
                assert lines[at + 1].startswith("      "), f"{name} {key}"


def test_a_help_text_says_what_is_needed_what_each_option_takes_and_its_default():
    def command(moving: str, size: Sequence[int] = (1, 2), passes: int | None = None, never_worse: bool = True) -> int:
        """Do it.

        In one ``step``.

        Args:
            moving: what
                moves.
            size: of it.
            passes: how many.
            never_worse: or not.

        Returns:
            A number.
        """

    assert help_text(command, "it").splitlines() == [
        *("usage: it --moving TEXT [options]", "", "Do it.", "", "In one step.", ""),
        *("needed:", "  --moving TEXT", "      what moves.", "", "options:"),
        *("  --size WHOLE_NUMBER,...  (default: 1,2)", "      of it.", "  --passes WHOLE_NUMBER", "      how many."),
        *("  --never_worse true|false  (default: true)", "      or not.", "", "returns (--json prints it):"),
        "  A number.",
    ]
