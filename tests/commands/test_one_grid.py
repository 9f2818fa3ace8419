"""What ``prepare`` does where an alignment fails, or leads astray."""

import nibabel
import numpy as np
import pytest
from bundle.commands.prepare import prepare
from tests.commands.raw_heads import prepared, save, sentence_of


def test_an_alignment_worse_than_the_header_is_not_taken(source, heads, tmp_path, monkeypatch, capsys):
    def astray(moving, moving_grid, fixed, fixed_grid, kind):
        matrix = np.eye(4)
        matrix[0, 3] = 90.0
        return matrix

    monkeypatch.setattr("bundle.commands.one_grid.align", astray)
    prepare(str(source), str(tmp_path / "out"), affine="rigid")
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert f"note: {source / 'images' / 'head_1.nii.gz'} is prepared by its header" in said
    prepare(str(source), str(tmp_path / "plain"), affine="none")
    one, other = (prepared(tmp_path / folder)["training"][1]["image"] for folder in ("out", "plain"))
    assert np.array_equal(one.dataobj, other.dataobj)
    capsys.readouterr()
    prepare(str(source), str(tmp_path / "good"), affine="rigid")
    assert "note" not in capsys.readouterr().out
    reference = prepared(tmp_path / "good")["training"][0]
    assert np.array_equal(reference["label"].dataobj, heads[0][1])


@pytest.mark.parametrize("affine", ["none", "rigid"])
def test_an_image_that_comes_nowhere_near_the_reference_is_not_written(source, tmp_path, monkeypatch, affine):
    image = nibabel.load(source / "images" / "head_1.nii.gz")
    moved = image.affine.copy()
    moved[:3, 3] += 5000
    for kind in ("images", "labels"):
        array = np.asarray(nibabel.load(source / kind / "head_1.nii.gz").dataobj)
        save(array, moved, source / kind / "head_1.nii.gz")
    monkeypatch.setattr("bundle.commands.one_grid.align", lambda *_: np.eye(4))
    sentence = sentence_of(lambda: prepare(str(source), str(tmp_path / "out"), affine=affine))
    assert sentence.startswith(f"{source / 'images' / 'head_1.nii.gz'} shows nothing where the grid of the reference")
    assert not (tmp_path / "out" / "images" / "head_1.nii.gz").exists()


def test_an_alignment_that_fails_names_the_image(source, tmp_path):
    blank = nibabel.load(source / "images" / "head_1.nii.gz")
    save(np.zeros(blank.shape, np.float32), blank.affine, source / "images" / "head_1.nii.gz")
    sentence = sentence_of(lambda: prepare(str(source), str(tmp_path / "out"), affine="affine"))
    assert "head_1.nii.gz" in sentence
