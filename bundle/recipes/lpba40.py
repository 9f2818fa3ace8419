"""LPBA40 as LONI distributes it: skull-stripped brains in delineation space, Analyze files, 56 regions."""

from pathlib import Path

import nibabel
import numpy as np
from bundle.recipes.orientation import affine_from_labels
from bundle.recipes.recipe import Array, Item, Matrix, Recipe, tell_missing

__all__ = ["LPBA40"]

# Numbers and names of LONI's lpba40.label.xml: the left side is odd, the right one the even number after it.
LEFT = {
    21: "superior frontal gyrus",
    23: "middle frontal gyrus",
    25: "inferior frontal gyrus",
    27: "precentral gyrus",
    29: "middle orbitofrontal gyrus",
    31: "lateral orbitofrontal gyrus",
    33: "gyrus rectus",
    41: "postcentral gyrus",
    43: "superior parietal gyrus",
    45: "supramarginal gyrus",
    47: "angular gyrus",
    49: "precuneus",
    61: "superior occipital gyrus",
    63: "middle occipital gyrus",
    65: "inferior occipital gyrus",
    67: "cuneus",
    81: "superior temporal gyrus",
    83: "middle temporal gyrus",
    85: "inferior temporal gyrus",
    87: "parahippocampal gyrus",
    89: "lingual gyrus",
    91: "fusiform gyrus",
    101: "insular cortex",
    121: "cingulate gyrus",
    161: "caudate",
    163: "putamen",
    165: "hippocampus",
}
SIDES = {n + side: f"{name} {text}" for n, text in LEFT.items() for side, name in enumerate(("left", "right"))}
ENDINGS = (".hdr", ".nii.gz", ".nii")
SPLITS = {"training": range(16, 41), "validation": range(11, 16), "test": range(1, 11)}


def find(source: Path) -> dict[str, list[Item]]:
    """List S01 to S40, wherever they lie below the folder: the first ten to test, the next five to validate."""
    images, labels = (_subjects(source, part) for part in ("skullstripped", "structure.label"))
    if not images:
        raise ValueError(
            f"{source} holds no S01.delineation.skullstripped.hdr and the like: name the folder delineation_space of "
            "LONI's LPBA40."
        )
    missing = sorted(images.keys() - labels.keys())
    if missing:
        raise FileNotFoundError(f"There is no S{missing[0]:02d}.delineation.structure.label.hdr below {source}.")
    splits = {
        split: [{"image": str(images[n]), "label": str(labels[n])} for n in numbers if n in images]
        for split, numbers in SPLITS.items()
    }
    if not splits["training"]:
        raise ValueError(
            f"{source} holds none of the subjects S16 to S40, which are for training and whose first one all are "
            "aligned to: complete the download."
        )
    tell_missing(source, splits, {split: len(numbers) for split, numbers in SPLITS.items()})
    return splits


def _subjects(source: Path, part: str) -> dict[int, Path]:
    """Find one file of each subject, by its number."""
    name = f"S[0-4][0-9].delineation.{part}"
    return {int(p.name[1:3]): p for ending in ENDINGS[::-1] for p in source.rglob(name + ending)}


def read(item: Item) -> tuple[Array, Array, Matrix]:
    """Read image and label map; an Analyze header has the voxels' size, but not which side is left."""
    (image, _), (label, spacing_mm) = (_load(Path(item[key])) for key in ("image", "label"))
    if image.shape != label.shape:
        raise ValueError(f"The label map {item['label']} is on another grid.")
    affine = affine_from_labels(
        label,
        spacing_mm,
        to_right=([*LEFT], [n + 1 for n in LEFT]),
        to_front=(range(61, 69), range(21, 27)),  # from the occipital to the frontal lobe
        to_top=([181], [43, 44]),  # from the cerebellum to the superior parietal gyri
    )
    return image, label, affine


def _load(path: Path) -> tuple[Array, Array]:
    """Read voxels and their size from NIfTI, or from an Analyze header with its voxels, which LONI alone gzips."""
    plain = path.with_suffix(".img")
    voxels = plain if plain.is_file() else path.with_suffix(".img.gz")
    try:
        if path.suffix == ".hdr":
            files = nibabel.AnalyzeImage.make_file_map({"header": str(path), "image": str(voxels)})
            image = nibabel.AnalyzeImage.from_file_map(files)
        else:
            image = nibabel.load(path)
        spacing_mm = np.array(image.header.get_zooms()[:3], dtype=np.float64)
        return np.asarray(image.dataobj).reshape(image.shape[:3]), spacing_mm
    except Exception as error:  # of many kinds, for a broken file
        raise ValueError(f"{path.name} cannot be read as an Analyze or NIfTI image: {error}.") from error


LPBA40 = Recipe(
    reference="https://www.loni.usc.edu/research/atlases (LPBA40 Subjects Delineation Space: MRI and label files)",
    labels=SIDES | {181: "cerebellum", 182: "brain stem"},
    find=find,
    read=read,
    affine="affine",
    spacing_mm=1.0,
    size=(160, 192, 160),
)
