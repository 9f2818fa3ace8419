"""No command writes over what it reads, or leaves half of what it writes: refused before anything is computed."""

import re
import sys

import numpy as np
import pytest
import torch
from bundle.__main__ import main
from bundle.commands.invert import invert
from bundle.io.files import beside, check_outputs, in_place
from bundle.io.images import write_image
from bundle.io.itk import write_transform
from bundle.pairs import FILES, OPTIONAL_FILES, check_folder
from bundle.spatial import Grid, SpatialTransform

GRID = Grid((20, 21, 19), np.diag([2.0, 2, 2, 1]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A pair of images, transforms and points, some of them in ``out``, which a result would take the place of."""
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "out").mkdir()
    for name in ("moving", "fixed", "out/warped", "out/warped_label"):
        write_image(torch.rand(1, *GRID.shape, generator=generator), GRID, tmp_path / f"{name}.nii.gz")
    ddf = torch.rand(3, *GRID.shape, generator=generator, dtype=torch.float64)
    field = SpatialTransform(np.eye(4), ddf, GRID, GRID, GRID)
    for name in ("t.h5", "out/inverse.h5"):
        write_transform(field, tmp_path / name)
    write_transform(field.without_field(), tmp_path / "out" / "transform.h5")
    write_transform(field.without_field(), tmp_path / "w_affine.mat.h5")
    (tmp_path / "w_affine.mat.h5").rename(tmp_path / "w_affine.mat")
    write_transform(field.without_field(), tmp_path / "linear.tfm")
    write_transform(field, tmp_path / "out" / "spline.h5")
    start = '(InitialTransformParameterFileName "{}")\n(HowToCombineTransforms "Compose")\n'
    named = '(Transform "File")\n(TransformFileName "{}")\n'
    (tmp_path / "T.0.txt").write_text(named.format("linear.tfm") + start.format("NoInitialTransform"))
    (tmp_path / "T.1.txt").write_text(named.format("out/spline.h5") + start.format("T.0.txt"))
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "out" / "warped.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMAGES = "--moving moving.nii.gz --fixed fixed.nii.gz"
TO_OUT = "--output_dir out --device cpu"
POINTS = "--transform t.h5 --points p.csv --space lps"
CASES = [
    (f"register --moving out/warped.nii.gz --fixed fixed.nii.gz {TO_OUT}", r"moving \(.*out/warped\.nii\.gz\)"),
    (f"register --moving moving.nii.gz --fixed link.nii.gz {TO_OUT}", r"fixed \(.*link\.nii\.gz\)"),
    (f"register {IMAGES} --moving_mask out/warped_label.nii.gz {TO_OUT}", r"moving mask \(.*warped_label\.nii\.gz\)"),
    (f"register {IMAGES} --initial_transform out/transform.h5 {TO_OUT}", r"initial transform \(.*transform\.h5\)"),
    (f"apply --transform t.h5 {IMAGES} --output moving.nii.gz", r"moving image \(moving\.nii\.gz\)"),
    (f"apply --transform t.h5 {IMAGES} --output out/../fixed.nii.gz", r"fixed image \(fixed\.nii\.gz\)"),
    (f"apply_points {POINTS} --output p.csv", r"points \(p\.csv\)"),
    (f"invert --transform out/inverse.h5 {IMAGES}", r"transform \(out/inverse\.h5\)"),
    (f"invert --transform out/inverse.h5 {IMAGES} --output_dir {{folder}}/out", r"transform \(out/inverse\.h5\)"),
    (f"compose --transforms t.h5,out/inverse.h5 {IMAGES} --output t.h5", r"transform \(t\.h5\)"),
    (f"convert --transform t.h5 {IMAGES} --output fixed.nii.gz --to ants", r"fixed image \(fixed\.nii\.gz\)"),
    (f"convert --transform w_affine.mat {IMAGES} --output w.nii.gz --to greedy", r"transform \(w_affine\.mat\)"),
    (f"convert --transform T.1.txt {IMAGES} --output T.0.txt --to itk", r"transform \(T\.0\.txt\)"),
    (f"convert --transform T.1.txt {IMAGES} --output linear.tfm --to itk", r"transform \(linear\.tfm\)"),
    (f"compose --transforms t.h5,T.1.txt {IMAGES} --output out/spline.h5", r"transform \(out/spline\.h5\)"),
    ("jacobian --transform t.h5 --fixed fixed.nii.gz --output fixed.nii.gz", r"fixed image \(fixed\.nii\.gz\)"),
]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_what_is_read_is_never_written_over(folder, monkeypatch, capsys, line, words):
    before = contents(folder)
    monkeypatch.setattr(sys, "argv", ["bundle", *line.format(folder=folder).split()])
    with pytest.raises(SystemExit) as caught:
        main()
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert caught.value.code == 2
    assert len(said) == 1
    pattern = rf"error: The {words} would be overwritten by the output \(.*\): name another place for it\."
    assert re.fullmatch(pattern, said[0])
    assert contents(folder) == before


def test_an_inverse_is_written_whole_or_not_at_all(folder, monkeypatch):
    before = contents(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundle.commands.invert.write_transform", full)  # the field at the voxels is written by then
    with pytest.raises(OSError, match="No space left on device") as caught:
        invert("t.h5", "moving.nii.gz", "fixed.nii.gz", "new")
    assert caught.value.filename == "new/inverse.h5"
    assert contents(folder) == before


def test_a_header_and_its_voxels_count_as_one(tmp_path):
    image = torch.rand(1, 3, 4, 5)
    with in_place(tmp_path / "a.mhd") as partial:
        write_image(image, GRID, partial)
    voxels = next(path for path in tmp_path.iterdir() if path.suffix != ".mhd")
    with pytest.raises(ValueError, match=r"The moving .* would be overwritten"):
        check_outputs([voxels], [("moving", tmp_path / "a.mhd")])
    with pytest.raises(ValueError, match=r"The moving .* would be overwritten"):
        check_outputs([tmp_path / "a.mhd"], [("moving", voxels)])
    check_outputs([tmp_path / "b.mhd"], [("moving", tmp_path / "a.mhd"), ("fixed", None), ("mask", tmp_path / "none")])


@pytest.mark.parametrize("key", FILES)
def test_every_file_of_a_pair_counts(folder, key):
    with pytest.raises(ValueError, match=f"The {key.replace('_', ' ')} "):
        check_folder(folder / "out", {key: str(folder / "out" / "warped.nii.gz"), "name": "pair"})
    check_folder(folder / "out", {key: str(folder / "moving.nii.gz")})


@pytest.mark.parametrize("name", ["transform.h5", "registration.json", *OPTIONAL_FILES])
def test_a_folder_in_the_way_of_one_result_leaves_the_others_as_they_were(folder, monkeypatch, capsys, name):
    (folder / "old" / name).mkdir(parents=True)
    (folder / "old" / "kept.txt").write_text("kept")
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["bundle", *f"register {IMAGES} --output_dir old --device cpu".split()])
    with pytest.raises(SystemExit):
        main()
    assert f"old/{name}) is a folder where a file is needed" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_what_is_written_gathers_within_a_folder_that_is_there_and_beside_one_that_is_not(tmp_path):
    (tmp_path / "mounted").mkdir()  # perhaps another disk, to which no file can be moved from beside it
    for name, place in (("mounted", tmp_path / "mounted"), ("new", tmp_path), ("deep/new", tmp_path / "deep")):
        with beside(tmp_path / name, ".part_") as partial:
            assert partial.parent == place
        assert not partial.exists()
