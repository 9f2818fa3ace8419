"""Options of the command line: read by annotations, refused in one sentence before any work."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import fire
import numpy as np
import pytest
from bundle.__main__ import COMMANDS, load, main
from bundle.options import as_text, check_flags, check_numbers, nearest, normalise, parsers
from monai.bundle import ConfigParser


def example(
    moving: str,
    output_dir: str,
    weights: str | None = None,
    fill: float | None = None,
    passes: int | None = None,
    optimise: int = 0,
    never_worse: bool = True,
    mask: bool = False,
    bfloat16: bool | None = None,
    size: Sequence[int] | None = None,
    methods: str | Sequence[str] = ("affine",),
):
    """Return what it is given."""
    return dict(locals())


def read(*arguments):
    """Read arguments as the command line does."""
    line = normalise(example, arguments, "example")
    return fire.Fire(fire.decorators.SetParseFns(**parsers(example))(example), line, serialize=lambda _: None)


def given(*arguments):
    """What differs from the defaults, after the two that are needed."""
    result = read("m.nii", "out", *arguments)
    defaults = example("m.nii", "out")
    return {k: v for k, v in result.items() if v != defaults[k] or type(v) is not type(defaults[k])}


@pytest.mark.parametrize(
    "path",
    ["101_102", "2026_11_27", "1e3", "run,1", "run[1]", "None", "True", "{a}", "0x10", "~/x=y", "-5", "a b", "'q'"],
)
def test_a_path_is_text_whatever_it_looks_like(path):
    for arguments in (["--moving", "m", "--output_dir", path], ["--moving=m", f"--output-dir={path}"], ["m", path]):
        assert read(*arguments)["output_dir"] == path


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "no", "0", "off"])
def test_a_flag_means_what_it_says(text):
    assert given("--never_worse", text) == given(f"--never-worse={text}") == {"never_worse": False}
    assert given("--mask", text) == {}
    yes = {"false": "true", "no": "yes", "0": "1", "off": "on"}[text.lower()]
    assert given("--mask", yes) == given("--mask") == {"mask": True}


def test_a_flag_that_may_be_left_open_is_a_flag_as_others_are():
    assert given("--bfloat16") == given("--bfloat16", "true") == {"bfloat16": True}
    assert given("--nobfloat16") == given("--no-bfloat16") == given("--bfloat16=no") == {"bfloat16": False}
    assert given("--bfloat16", "--mask") == {"bfloat16": True, "mask": True}
    assert given("--bfloat16=none") == given("--bfloat16", "none") == {}


def test_what_follows_a_flag_is_its_value_only_if_it_can_be_one():
    for flag in ("--mask", "--bfloat16"):
        found = read(flag, "m.nii", "out")
        assert (found["moving"], found["output_dir"], found[flag[2:]]) == ("m.nii", "out", True)


def test_a_flag_is_negated_by_no_in_front():
    for negation in ("--nonever_worse", "--no-never-worse", "--no_never_worse"):
        assert given(negation, "--mask") == {"never_worse": False, "mask": True}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--fill", "-1000"], {"fill": -1000.0}),
        (["--fill", "-1e3", "--passes", "+2"], {"fill": -1000.0, "passes": 2}),
        (["--fill=-.5"], {"fill": -0.5}),
        (["--fill", "2"], {"fill": 2.0}),
        (["--passes", "none", "--fill", "None"], {}),
        (["--size", "96,112,96"], {"size": [96, 112, 96]}),
        (["--size", "[96, 112, 96]"], {"size": [96, 112, 96]}),
        (["--size", "(96,112,96,)"], {"size": [96, 112, 96]}),
        (["--methods", "pan,syn-cc"], {"methods": ["pan", "syn-cc"]}),
        (["--methods", "['pan', \"affine\"]"], {"methods": ["pan", "affine"]}),
        (["-w", "x.pt"], {"weights": "x.pt"}),
        (["-w=-x.pt"], {"weights": "-x.pt"}),
    ],
)
def test_values_are_read_as_the_annotation_says(arguments, expected):
    assert given(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--optimize", "5"], "example has no option --optimize: did you mean --optimise?"),
        (["--neverworse", "false"], "has no option --neverworse: did you mean --never_worse?"),
        (["--out", "x"], "has no option --out: did you mean --output_dir?"),
        (["--xyz", "x"], "has no option --xyz: see example --help"),
        (["-o", "x"], "-o may be any of --output_dir, --optimise: write it out"),
        (["--passes", "1", "--passes=1"], "--passes is given twice"),
        (["--output_dir", "a"], "does not know what to do with 'out'"),
        (["--weights", "--mask"], r"--weights takes a value \(one that starts with a dash as --weights=VALUE\)"),
        (["--weights"], "--weights takes a value"),
        (["--weights="], "--weights is empty"),
        (["more"], "does not know what to do with 'more': give options as --name value"),
        (["--optimise", "1e3"], "--optimise takes a whole number, not '1e3'"),
        (["--optimise", "1_000"], "--optimise takes a whole number, not '1_000'"),
        (["--optimise", "True"], "--optimise takes a whole number, not 'True'"),
        (["--fill", "air"], "--fill takes a number, not 'air'"),
        (["--fill", "nan"], "--fill takes a number, not 'nan'"),
        (["--fill", "1e999"], "--fill takes a number, not '1e999'"),
        (["--never_worse=maybe"], "--never_worse takes true or false, not 'maybe'"),
        (["--never_worse", "maybe"], "does not know what to do with 'maybe'"),
        (["--no-mask=true"], "--no-mask takes no value"),
        (["--size", "96,x"], "--size takes whole numbers with commas between them, not '96,x'"),
        (["--size", "96,,96"], "--size takes whole numbers"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read("m.nii", "out", *arguments)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="example needs --moving and --output_dir"):
        read()
    with pytest.raises(ValueError, match="example needs --output_dir"):
        read("--moving", "m")


def test_a_parameter_that_is_optional_as_python_3_10_writes_it_is_read_alike():
    def command(moving: Optional[str] = None, passes: Optional[int] = None, mask: Optional[bool] = None):  # noqa: UP045
        """Take what is left open."""

    found = parsers(command)
    assert (found["moving"]("none"), found["passes"]("none"), found["passes"]("2")) == ("none", None, 2)
    assert normalise(command, ["--mask", "--passes", "3"], "command") == ["--mask=true", "--passes=3"]


def test_every_command_has_parameters_whose_text_can_be_read():
    for name in COMMANDS:
        command = load(name)
        for function in command.values() if isinstance(command, dict) else [command]:
            assert "output_dir" in parsers(function) or "output" in parsers(function) or name == "root"


# --- the commands themselves ---


def run(monkeypatch, capsys, *arguments):
    """Run the command line in this process: its exit code, and what it wrote to stderr."""
    monkeypatch.setattr("sys.argv", ["bundle", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["register", "--moving", "m", "--fixed", "f", "--output_dir", "out", "--optimize", "5"], "--optimise?"),
        (["register", "--moving", "m", "--fixed", "f", "--output_dir", "out", "--device", "gpu"], "auto, cpu, cuda"),
        (["register", "--moving", "m", "--fixed", "f", "--output_dir", "file/out"], "cannot be written"),
        (["apply", "--transfrom", "t"], "did you mean --transform?"),
        (["prepare", "--source", "raw", "--output_dir", "out", "--sizes", "1,1,1"], "did you mean --size?"),
        (["phantom", "--output_dir", "out", "--trainig", "3"], "did you mean --training?"),
        (["demo", "--output_dir", "out", "--affine", "Affine"], "one of none, center, rigid, affine, not 'Affine'"),
        (["demo", "out"], "does not know what to do with 'out'"),
        (["benchmark", "speeed"], "did you mean speed?"),
        (["benchmark", "speed", "--output_dir", "out", "--repeat", "1"], "benchmark speed has no option --repeat"),
        (["benchmark", "accuracy", "--dataset", "d", "--output_dir", "out", "--mehtods", "pan"], "--methods?"),
        (["benchmark", "accuracy"], "benchmark accuracy needs --dataset and --output_dir"),
    ],
)
def test_a_command_with_a_wrong_option_ends_before_anything_is_read_or_written(
    monkeypatch, capsys, tmp_path, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, stderr = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert sentence in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["register", "demo", "benchmark"])
def test_cuda_without_a_gpu_ends_before_any_work(monkeypatch, capsys, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    needed = {"register": ["--moving", "m", "--fixed", "f"], "benchmark": ["speed"]}.get(command, [])
    code, stderr = run(monkeypatch, capsys, command, *needed, "--output_dir", "out", "--device", "cuda")
    assert code == 2
    assert re.fullmatch(r"error: --device cuda needs a CUDA GPU .*: give --device cpu\.\n", stderr)
    assert not list(tmp_path.iterdir())


LINEAR = "#Insight Transform File V1.0\n#Transform 0\nTransform: {}\nParameters: {}\nFixedParameters: {}\n"


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (("AffineTransform_double_2_2", "1 0 0 1 0 0", "0 0"), "is of 2 dimensions, not of 3"),
        (("AffineTransform_double_3_3", "1 0 0 0 1 0 0 0 0 0 0 0", "0 0 0"), "is singular: it flattens space"),
        (("AffineTransform_double_3_3", "1 0 0 0 1 0 0 0 1e-9 0 0 0", "0 0 0"), "is singular: it flattens space"),
        (("AffineTransform_double_3_3", "1 0 0 0 1 0 0 0 1 nan 0 0", "0 0 0"), "cannot be read: it holds 'nan'"),
    ],
)
def test_an_initial_transform_that_aligns_nothing_ends_before_any_work(
    monkeypatch, capsys, tmp_path, transform, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "initial.tfm").write_text(LINEAR.format(*transform))
    line = ["--moving", "m", "--fixed", "f", "--output_dir", "out", "--initial_transform", "initial.tfm"]
    code, stderr = run(monkeypatch, capsys, "register", *line)
    assert code == 2
    assert stderr.count("\n") == 1
    assert re.search(f"^error: The .*transform .*initial.tfm.*({sentence})", stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["initial.tfm"]


@pytest.mark.parametrize("line", [["--help"], ["-h"], ["--moving", "m", "--help"], ["--", "--help"]])
def test_help_is_shown_wherever_it_is_asked_for(monkeypatch, capsys, line):
    monkeypatch.setattr("sys.argv", ["bundle", "register", *line])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "leaves the images less alike than before" in " ".join(capsys.readouterr().out.split())


def test_a_misspelt_command_is_told_the_right_one(monkeypatch, capsys):
    usage = f"usage: python -m bundle {{{','.join(COMMANDS)}}} [--help] [--quiet] [--json]"
    assert run(monkeypatch, capsys, "regsiter") == (2, f"{usage} (regsiter: did you mean register?)\n")


@pytest.fixture
def talkative(monkeypatch):
    """A command that prints, warns and returns what JSON does not have."""

    def talk(name: str, fail: bool = False) -> dict[str, object]:
        sys.stdout.write("hello\n")
        sys.stderr.write("progress\n")
        if fail:
            raise ValueError(f"{name} is bad.")
        return {"name": Path(name), "mean": np.float64(0.5), "none": float("nan"), "size": (np.int64(3), np.ones(2))}

    monkeypatch.setattr("bundle.__main__.load", lambda name: talk)


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ([], "hello\n", "progress\n"),
        (["--quiet"], "", ""),
        (["--json"], {"name": "n", "mean": 0.5, "none": None, "size": [3, [1.0, 1.0]]}, "hello\nprogress\n"),
        (["--json", "--quiet"], {"name": "n", "mean": 0.5, "none": None, "size": [3, [1.0, 1.0]]}, ""),
    ],
)
def test_a_command_is_quiet_or_prints_json_alone_where_it_is_asked_to(
    monkeypatch, capsys, talkative, options, out, err
):
    for line in (["--name", "n", *options], [*options, "n"]):
        monkeypatch.setattr("sys.argv", ["bundle", "register", *line])
        main()
        shown = capsys.readouterr()
        assert (json.loads(shown.out) if isinstance(out, dict) else shown.out) == out
        assert shown.err == err


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_an_error_is_said_whatever_is_asked_for(monkeypatch, capsys, talkative, option):
    monkeypatch.setattr("sys.argv", ["bundle", "register", "--name", "n", "--fail", option])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith("error: n is bad.\n")


# --- what the workflows hand to our objects ---


@pytest.mark.parametrize("value", ["false", "True", "", None, 2, 0.5])
def test_text_is_no_flag(value):
    with pytest.raises(ValueError, match="never_worse takes True or False, spelt like that"):
        check_flags(amp=True, never_worse=value)


def test_a_flag_or_a_number_passes():
    check_flags(a=True, b=False, c=0, d=1, e=np.bool_(True))
    check_numbers(a=1, b=-2.5, c=np.float32(3), d=None)


@pytest.mark.parametrize("value", ["2", True, float("nan"), [1]])
def test_text_is_no_number(value):
    with pytest.raises(ValueError, match="spacing_mm takes a number"):
        check_numbers(spacing_mm=value)


def test_the_nearest_word_is_found_or_none():
    words = ("moving_label", "fixed_label", "name")
    assert [nearest(w, words) for w in ("movinglabel", "Fixed Label", "fixed_lable", "nam", "weights")] == [
        "moving_label",
        "fixed_label",
        "fixed_label",
        "name",
        None,
    ]


@pytest.mark.parametrize(
    "text",
    ["/o/p#1", "p@#2", "a@#b%#c", "p@##4", "/a@::b", "@name", "%name", "$name", "it's \\#1", "import #x", "caf\udce9#"],
)
def test_text_for_a_config_is_read_as_it_stands(text):
    parser = ConfigParser({"name": 1, "path": as_text(text), "list": [{"path": as_text(text)}], "same": "@path"})
    assert parser.get_parsed_content("path") == parser.get_parsed_content("same") == text
    assert parser.get_parsed_content("list") == [{"path": text}]
    assert as_text("/plain/path") == "/plain/path"
