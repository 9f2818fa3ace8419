"""Synthetic contrasts in the comparison: other images on the same anatomy, the same whenever a pair is read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bundle.benchmark.measure import Common
from bundle.commands.benchmark import accuracy
from bundle.data import draw_pairs, open_dataset

REAL = Common(affine="center", spacing_mm=5.0)
SYNTHETIC = replace(REAL, contrasts="synthetic")


@pytest.fixture(scope="module")
def pairs(small_dataset):
    return draw_pairs(open_dataset(str(small_dataset), "test"), 4)


def test_a_pair_gets_the_same_contrasts_whenever_it_is_read(pairs):
    first, again = SYNTHETIC.read(pairs[0]), SYNTHETIC.read(pairs[0])
    other = SYNTHETIC.read(pairs[0] | {"name": "another"})
    for role in ("moving", "fixed"):
        assert torch.equal(first[role].as_tensor(), again[role].as_tensor())
        assert not torch.equal(first[role].as_tensor(), other[role].as_tensor())


def test_labels_and_grids_stay_as_they_are(pairs):
    real, synthetic = REAL.read(pairs[0]), SYNTHETIC.read(pairs[0])
    for role in ("moving", "fixed"):
        assert torch.equal(real[f"{role}_label"].as_tensor(), synthetic[f"{role}_label"].as_tensor())
        assert torch.equal(real[role].affine, synthetic[role].affine)
        assert real[role].shape == synthetic[role].shape


def test_tissues_compare_otherwise_in_the_two_images(pairs):
    likeness = []
    for pair in pairs:
        item = SYNTHETIC.read(pair)
        real = REAL.read(pair)
        for role in ("moving", "fixed"):
            inside = real[f"{role}_label"].as_tensor() > 0
            seen, image = (one[role].as_tensor().float()[inside].numpy() for one in (item, real))
            likeness.append(abs(np.corrcoef(seen, image)[0, 1]))
    assert np.median(likeness) < 0.9


def test_what_is_masked_stays_blank(pairs):
    item = replace(SYNTHETIC, masked=True).read(pairs[0])
    for role in ("moving", "fixed"):
        outside = item[f"{role}_mask"].as_tensor() == 0
        assert (item[role].as_tensor()[outside] == 0).all()
        assert item[role].as_tensor().max() > 0.5


def test_the_table_says_that_contrasts_are_synthetic(small_dataset, tmp_path):
    accuracy(
        str(small_dataset),
        str(tmp_path),
        pairs=1,
        methods="identity",
        affine="center",
        contrasts="synthetic",
        threads=1,
    )
    assert "whole images; synthetic contrasts; labels by nearest" in (tmp_path / "summary.md").read_text()


def test_other_contrasts_are_refused_before_any_work(small_dataset, tmp_path):
    with pytest.raises(ValueError, match="--contrasts is one of real, synthetic, not 'T2'"):
        accuracy(str(small_dataset), str(tmp_path / "out"), contrasts="T2")
    assert not (tmp_path / "out").exists()
