"""Synthetic labelled heads: a data set for training, evaluation, demo and tests that needs no download.

A head is a formula, not an array. One template (hull of the brain, sulci, deep nuclei, skull, face) is written down as
signed distances in millimetres; a subject is that template seen through its own smooth map::

    world p ─ pose (affine) ─▶ warps, one after another ─▶ template q ─ distances ─▶ tissue, region

so a subject can be sampled on any grid, however oblique or coarse, with its regions in the same physical place. Space
is RAS as in NIfTI: +x right, +y anterior, +z superior. Distances are positive inside.
"""

from bundle.phantom.anatomy import REGIONS, Anatomy, random_anatomy
from bundle.phantom.dataset import write_pair, write_phantoms
from bundle.phantom.head import centred_affine, make_head, sample

__all__ = [
    "REGIONS",
    "Anatomy",
    "centred_affine",
    "make_head",
    "random_anatomy",
    "sample",
    "write_pair",
    "write_phantoms",
]
