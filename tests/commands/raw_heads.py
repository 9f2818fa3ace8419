"""Raw data sets for ``prepare``, and what it makes of them."""

import nibabel
import pytest
from bundle.__main__ import bad_input
from bundle.data import read_split
from bundle.phantom import centred_affine

GRIDS = [  # of every subject another one: oblique, anisotropic, stored in another order
    ((24, 32, 24), centred_affine((24, 32, 24), (6.0, 6.2, 6.4), degrees=(5, -3, 8))),
    ((30, 22, 34), centred_affine((30, 22, 34), (-5.5, 8.0, 5.8), degrees=(-6, 2, 4))),
    ((26, 34, 20), centred_affine((26, 34, 20), (6.1, -5.7, 7.5), degrees=(3, 9, -5))),
    ((20, 30, 28), centred_affine((20, 30, 28), (8.0, 6.0, 5.0))[:, [0, 2, 1, 3]]),
]


def save(array, affine, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def prepared(folder):
    """Every item of a prepared data set, by split, its images loaded."""
    return {
        split: [{k: nibabel.load(i[k]) for k in ("image", "label") if k in i} for i in read_split(folder, split)]
        for split in ("training", "validation", "test")
    }


def sentence_of(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011 whatever it is, the command line must make a sentence of it
        call()
    sentence = bad_input(caught.value)
    assert sentence, f"the command line would show a traceback of {caught.value!r}"
    assert "\n" not in sentence
    return sentence
