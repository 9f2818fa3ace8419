"""Places that cannot be read or written: every command says in one sentence what, where and what to do."""

import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle.__main__ import main
from bundle.commands.register import register
from bundle.failures import MEANINGS, bad_input
from bundle.io.files import in_place
from bundle.io.images import read_image, write_image
from bundle.io.itk import read_itk, write_transform
from bundle.spatial import Grid, SpatialTransform

GRID = Grid((30, 31, 29), np.diag([2.0, 2, 2, 1]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A pair, a transform, points; a folder and a file with the wrong content."""
    generator = torch.Generator().manual_seed(0)
    for name in ("moving", "fixed"):
        write_image(torch.rand(1, *GRID.shape, generator=generator), GRID, tmp_path / f"{name}.nii.gz")
    write_image(torch.rand(1, 30, 31, 1), Grid((30, 31, 1), np.eye(4)), tmp_path / "slice.nii.gz")
    ddf = torch.rand(3, *GRID.shape, generator=generator, dtype=torch.float64)
    write_transform(SpatialTransform(np.eye(4), ddf, GRID, GRID, GRID), tmp_path / "t.h5")
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "file").write_text("nothing")
    for name in ("folder", "folder.nii.gz", "folder.h5", "folder.csv", "folder.pt"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMAGES = "--moving moving.nii.gz --fixed fixed.nii.gz"
ONE = f"--transform t.h5 {IMAGES}"
CASES = [
    (f"apply {ONE} --output folder.nii.gz", r"\(folder\.nii\.gz\) is a folder where a file is needed: name a file"),
    (f"apply {ONE} --output file/out.nii.gz", r"\(file\) exists already, and is a file where a folder is needed"),
    (f"apply {ONE} --output file/deep/out.nii.gz", r"\(file/deep\) is a file, or lies below one"),
    (f"apply --transform folder {IMAGES} --output o.nii.gz", r"transform \(folder\) is a folder: name a file in it"),
    (f"apply --transform t.h5,folder {IMAGES} --output o.nii.gz", r"\(t\.h5,folder\), .* 'folder' is no file"),
    (f"apply --transform file/t.h5 {IMAGES} --output o.nii.gz", r"The transform \(file/t\.h5\) does not exist"),
    (f"compose --transforms t.h5,t.h5 {IMAGES} --output folder.h5", r"\(folder\.h5\) is a folder where a file"),
    (f"convert {ONE} --output folder.nii.gz --to ants", r"\(folder\.nii\.gz\) is a folder where a file is needed"),
    (f"convert --transform folder.h5 {IMAGES} --output o.x5", r"The transform \(folder\.h5\) is a folder"),
    (f"invert {ONE} --output_dir file", r"\(file\) exists already, and is a file where a folder is needed"),
    ("jacobian --transform t.h5 --fixed fixed.nii.gz --output folder.nii.gz", r"\(folder\.nii\.gz\) is a folder where"),
    ("apply_points --transform t.h5 --points folder.csv --output o.csv --space lps", r"The points \(.*\) are a folder"),
    ("apply_points --transform t.h5 --points p.csv --output folder.csv --space lps", r"\(folder\.csv\) is a folder"),
    ("phantom --output_dir file --training 1", r"\(file\S*\) .*(is a file|lies below one)"),
    ("prepare --source . --output_dir file", r"The output \(.*file\) is a file: name a folder"),
    ("demo --output_dir file", r"The output \(.*file\) is a file: name a folder"),
    ("benchmark speed --output_dir file", r"The output \(.*file\) is a file: name a folder"),
    (f"register {IMAGES} --output_dir o --weights folder.pt --device cpu", r"The weights \(.*\) are a folder"),
    (f"register {IMAGES} --output_dir o --initial_transform folder", r"The transform \(folder\) is a folder"),
    (f"register {IMAGES} --output_dir /proc/out --device cpu", r"The output \(/proc/out\) cannot be written"),
    (f"apply {ONE} --output /proc/out.nii.gz", r"(output|folder) \(/proc/out\.nii\.gz\) (cannot|may not) be"),
    ("jacobian --transform t.h5 --fixed slice.nii.gz --output o.nii.gz", r"fixed image \(slice.*\) is a single slice"),
    (f"invert {ONE} --output_dir /proc", r"(output|folder) \(/proc/inverse\S*\) (cannot|may not) be"),
]


@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_a_folder_for_a_file_and_a_file_for_a_folder_are_one_sentence(folder, monkeypatch, capsys, line, words):
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["bundle", *line.split()])
    with pytest.raises(SystemExit) as caught:
        main()
    stderr = capsys.readouterr().err
    sentence = next(part for part in stderr.splitlines() if part.startswith("error: "))
    assert caught.value.code == 2
    assert re.search(words, sentence), sentence
    assert "Errno" not in stderr
    assert "Traceback" not in stderr
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def little_room():
    """Let no file grow beyond 20 kB, as on a disk that fills up."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_file_that_cannot_grow_is_named_as_it_was_asked_for_and_nothing_is_left(folder, ending, request):
    image = torch.rand(1, *GRID.shape)
    before = sorted(folder.rglob("*"))
    request.getfixturevalue("little_room")
    with pytest.raises(OSError) as caught, in_place(folder / f"out{ending}") as partial:  # noqa: PT011
        write_image(image, GRID, partial)
    check_named(bad_input(caught.value), folder / f"out{ending}")
    assert sorted(folder.rglob("*")) == before


def check_named(sentence, path):
    assert str(path) in sentence
    assert ".writing_" not in sentence
    assert "Errno" not in sentence


TRANSFORM_WITHOUT_ROOM = """
import resource, sys
import numpy as np, torch
from bundle.failures import bad_input
from bundle.io.files import in_place
from bundle.io.formats.x5 import write_x5
from bundle.io.itk import write_transform
from bundle.spatial import Grid, SpatialTransform

grid = Grid((30, 30, 30), np.eye(4))
field = SpatialTransform(np.eye(4), torch.rand(3, *grid.shape, dtype=torch.float64), grid, grid, grid)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    with in_place(sys.argv[1]) as partial:
        (write_x5 if partial.suffix == ".x5" else write_transform)(field, partial)
except OSError as error:
    print(bad_input(error), flush=True)
"""


@pytest.mark.parametrize("ending", [".h5", ".x5"])
def test_so_is_a_transform(folder, ending):
    """In a process of its own: one in which HDF5 could not write a file would end by a signal."""
    before = sorted(folder.rglob("*"))
    line = [sys.executable, "-c", TRANSFORM_WITHOUT_ROOM, str(folder / f"out{ending}")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    check_named(done.stdout, folder / f"out{ending}")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("number", MEANINGS)
def test_what_the_system_says_becomes_what_where_and_what_to_do(number):
    sentence = bad_input(OSError(number, os.strerror(number), "some/file"))
    assert sentence.startswith("The file or folder (some/file) ")
    assert sentence.count(":") == 1
    assert sentence.endswith(".")
    assert "Errno" not in sentence


def test_another_number_keeps_the_system_s_words():
    assert bad_input(OSError(errno.EIO, "Input/output error", "x")) == (
        "The file or folder (x) could not be read or written (Input/output error): check its place and its disk."
    )
    assert bad_input(OSError("a library's own words")) == "a library's own words"


def test_the_same_is_said_of_what_a_worker_process_hands_over_as_text():
    printed = "Caught X in worker process 0.\nOriginal Traceback (most recent call last):\n  File\n"
    printed += "PermissionError: [Errno 13] Permission denied: '/data/a.nii.gz'\n"
    assert bad_input(RuntimeError(printed)).startswith("The file or folder (/data/a.nii.gz) may not be read or written")


def test_a_file_without_the_right_to_read_it_is_not_called_a_broken_image(folder, monkeypatch, capsys):
    (folder / "fixed.nii.gz").chmod(0)
    monkeypatch.setattr(os, "access", lambda path, mode: "fixed" not in str(path))  # root may read everything
    monkeypatch.setattr(sys, "argv", ["bundle", *f"apply {ONE} --output o.nii.gz".split()])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith("error: The file or folder (fixed.nii.gz) may not be read or written")


OTHER_BYTE = os.fsdecode(b"caf\xe9")  # Latin-1's é, as an old disk may have it


@pytest.mark.parametrize(
    "line",
    [
        f"register {OTHER_BYTE}.nii.gz fixed.nii.gz o",
        f"register moving.nii.gz fixed.nii.gz {OTHER_BYTE}",
        f"apply --transform {OTHER_BYTE}.h5 {IMAGES} --output o.nii.gz",
        f"apply {ONE} --output {OTHER_BYTE}.mha",
        f"prepare --source {OTHER_BYTE} --output_dir o",
        f"apply_points --transform t.h5 --points {OTHER_BYTE}.vtk --output o.vtk --space lps",
    ],
)
def test_a_name_in_another_encoding_is_refused_in_one_sentence(folder, monkeypatch, capsys, line):
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["bundle", *line.split()])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: The path \(caf\\udce9\S*\) is not in UTF-8, .*: rename it, or .*\n", said)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["image.nii.gz", "image.mha", "image.mhd", "t.h5"])
def test_so_are_files_that_a_command_finds_itself(folder, name):
    """ITK would end the process at such a name."""
    (folder / OTHER_BYTE).mkdir()
    path = folder / OTHER_BYTE / name
    image, matrix = torch.rand(1, *GRID.shape), SpatialTransform(np.eye(4), None, GRID, GRID, GRID)
    if name == "image.nii.gz":
        write_image(image, GRID, path)  # which ITK has no part in
    calls = {
        "image.nii.gz": [lambda: read_image(path)],
        "t.h5": [lambda: write_transform(matrix, path), lambda: read_itk(path)],
    }
    for call in calls.get(name, [lambda: write_image(image, GRID, path), lambda: read_image(path)]):
        with pytest.raises(ValueError, match=r"The path \(.*caf\\udce9/.*\) is not in UTF-8"):
            call()
        path.touch()


def test_so_is_an_output_in_such_a_folder_before_any_work(folder, monkeypatch):
    (folder / OTHER_BYTE).mkdir()
    monkeypatch.chdir(folder / OTHER_BYTE)
    with pytest.raises(ValueError, match="is not in UTF-8"):
        register(str(folder / "moving.nii.gz"), str(folder / "fixed.nii.gz"), "o", device="cpu")
    assert not any(Path.cwd().iterdir())
