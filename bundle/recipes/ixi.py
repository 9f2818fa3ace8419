"""IXI as the authors of TransMorph distribute it: brains on one grid of 1 mm, with FreeSurfer's regions."""

from pathlib import Path

import numpy as np
from bundle.listing import is_listed
from bundle.recipes.orientation import affine_from_labels
from bundle.recipes.pickles import load_arrays
from bundle.recipes.recipe import Array, Item, Matrix, Recipe, tell_missing

__all__ = ["IXI"]

PUBLISHED = {"training": 403, "validation": 58, "test": 115}
FOLDERS = {"training": "Train", "validation": "Val", "test": "Test"}
# Numbers and names of FreeSurfer's FreeSurferColorLUT.txt; the 45 of them that TransMorph's loader (Seg_norm) keeps.
BOTH_SIDES = {  # left, right
    "cerebral white matter": (2, 41),
    "cerebral cortex": (3, 42),
    "lateral ventricle": (4, 43),
    "inferior lateral ventricle": (5, 44),
    "cerebellum white matter": (7, 46),
    "cerebellum cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "accumbens area": (26, 58),
    "ventral diencephalon": (28, 60),
    "vessel": (30, 62),
    "choroid plexus": (31, 63),
}
MIDLINE = {
    14: "third ventricle",
    15: "fourth ventricle",
    16: "brain stem",
    24: "cerebrospinal fluid",
    72: "fifth ventricle",
    77: "white matter hypointensities",
    80: "non-white matter hypointensities",
    85: "optic chiasm",
    251: "corpus callosum, posterior",
    252: "corpus callosum, mid posterior",
    253: "corpus callosum, central",
    254: "corpus callosum, mid anterior",
    255: "corpus callosum, anterior",
}
SIDES = {n: f"{side} {name}" for name, pair in BOTH_SIDES.items() for side, n in zip(("left", "right"), pair)}


def find(source: Path) -> dict[str, list[Item]]:
    """List the pickles of ``IXI_data/{Train,Val,Test}``; the atlas is no subject."""
    root = source / "IXI_data" if (source / "IXI_data").is_dir() else source
    found = {split: sorted(filter(is_listed, (root / folder).glob("*.pkl"))) for split, folder in FOLDERS.items()}
    if not all(found.values()):
        raise ValueError(
            f"{source} lacks subject_*.pkl in Train, Val or Test, as TransMorph's IXI_data has them: name that folder, "
            "or prepare the images of IXI's own site without a recipe."
        )
    splits = {split: [{"image": str(path), "label": str(path)} for path in paths] for split, paths in found.items()}
    tell_missing(source, splits, PUBLISHED)
    return splits


def read(item: Item) -> tuple[Array, Array, Matrix]:
    """Read a pickled pair of image and label map, which has no header."""
    image, label = load_arrays(Path(item["image"]), 2)
    cerebellum, accumbens, thalamus = (BOTH_SIDES[n] for n in ("cerebellum cortex", "accumbens area", "thalamus"))
    white_matter = BOTH_SIDES["cerebral white matter"]
    affine = affine_from_labels(
        label,
        np.ones(3),
        to_right=(white_matter[:1], white_matter[1:]),
        to_front=(cerebellum, accumbens),
        to_top=([16], thalamus),  # from the brain stem
    )
    return image, label, affine


IXI = Recipe(
    reference="https://github.com/junyuchen245/Preprocessed_IXI_Dataset, CC BY-SA 3.0",
    labels=dict(sorted((SIDES | MIDLINE).items())),
    find=find,
    read=read,
)
