"""Tiny data sets of synthetic heads in the layouts of the published ones."""

import gzip
import pickle

import nibabel
import numpy as np
import pytest
from bundle.phantom import REGIONS, centred_affine, random_anatomy, sample

NAMES = {name: number for number, name in REGIONS.items()}
SHAPE = (32, 48, 32)


def in_numbers(label, numbers):
    """Give a phantom's regions the numbers of another label table; what has none there becomes 0."""
    table = np.zeros(max(REGIONS) + 1, np.int16)
    for name, number in numbers.items():
        table[NAMES[name]] = number
    return table[label]


def both(name, left, right):
    return {f"left {name}": left, f"right {name}": right}


TO_IXI = {
    **both("cerebral white matter", 2, 41),
    **both("lateral ventricle", 4, 43),
    **both("cerebellum", 8, 47),
    **both("thalamus", 10, 49),
    **both("putamen", 12, 51),
    **both("frontal cortex", 26, 58),  # in the place of the accumbens: further front than the cerebellum
    **both("temporal cortex", 25, 57),  # lesions: no region of the paper's
    "brainstem": 16,
}
TO_LPBA40 = {
    **both("frontal cortex", 21, 22),
    **both("parietal cortex", 43, 44),
    **both("occipital cortex", 61, 62),
    **both("temporal cortex", 81, 82),
    **both("hippocampus", 165, 166),
    "brainstem": 182,
    **dict.fromkeys(("left cerebellum", "right cerebellum"), 181),
}
TO_ORGANS = {"left parietal cortex": 2, "right parietal cortex": 1, **both("temporal cortex", 4, 3)}


@pytest.fixture(scope="session")
def heads():
    """Images and label maps, RAS, 5 mm, of six subjects."""
    return [sample(random_anatomy(i), SHAPE, centred_affine(SHAPE, 5.0)) for i in range(6)]


def write_ixi(heads, root):
    """``IXI_data/{Train,Val,Test}/subject_N.pkl``: to the left, down, forward, as FreeSurfer conforms its volumes."""
    for i, (image, label) in enumerate(heads):
        folder = root / "IXI_data" / ("Train", "Train", "Val", "Val", "Test", "Test")[i]
        folder.mkdir(parents=True, exist_ok=True)
        pair = (image / image.max(), in_numbers(label, TO_IXI))
        pair = tuple(np.flip(array, (0, 2)).transpose(0, 2, 1) for array in pair)
        by_numpy_1 = pickle.dumps(pair, protocol=3).replace(b"numpy._core", b"numpy.core")
        (folder / f"subject_{i}.pkl").write_bytes(by_numpy_1)
    (root / "IXI_data" / "atlas.pkl").write_bytes(b"no subject")


def write_lpba40(heads, root):
    """``delineation_space/SNN``: Analyze headers beside gzipped voxels, four axes, the first to the left."""
    for (image, label), number in zip(heads, (1, 2, 11, 12, 16, 17)):
        stem = f"S{number:02d}.delineation"
        folder = root / "LPBA40" / "delineation_space" / f"S{number:02d}"
        folder.mkdir(parents=True)
        for name, array in (("skullstripped", image), ("structure.label", in_numbers(label, TO_LPBA40))):
            stored = nibabel.AnalyzeImage(np.flip(array, 0)[..., None].astype(np.int16), None)
            stored.header.set_zooms((5, 5, 5, 1))
            nibabel.save(stored, folder / f"{stem}.{name}.img")
            plain = folder / f"{stem}.{name}.img"
            (folder / f"{stem}.{name}.img.gz").write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()


def write_abdomenmrct(heads, root):
    """``AbdomenMRCT/{imagesTr,labelsTr}``: MR (_0000) and CT (_0001); here every header has an origin of its own."""
    for i, (image, label) in enumerate([*heads, heads[0]]):
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = [10 * i, -7 * i, 3 * i]
        for folder, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", in_numbers(label, TO_ORGANS))):
            (root / "AbdomenMRCT" / folder).mkdir(parents=True, exist_ok=True)
            for modality in ("0000", "0001")[: 2 if i < 2 else 1]:
                path = root / "AbdomenMRCT" / folder / f"AbdomenMRCT_{i + 1:04d}_{modality}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(array, affine), path)
    (root / "AbdomenMRCT" / "AbdomenMRCT_dataset.json").write_text("{}")


WRITE = {"ixi": write_ixi, "lpba40": write_lpba40, "abdomenmrct": write_abdomenmrct}


@pytest.fixture
def distributed(heads, tmp_path):
    """Write a data set as it is distributed: its folder, by name."""

    def write(name):
        WRITE[name](heads, tmp_path / "raw")
        return tmp_path / "raw"

    return write
