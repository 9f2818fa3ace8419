"""A data set of heads on disk, and a pair for the demo."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from bundle.io.files import in_place, write_text
from bundle.phantom.anatomy import REGIONS, Matrix, random_anatomy
from bundle.phantom.head import centred_affine, sample
from bundle.progress import Progress

__all__ = ["write_pair", "write_phantoms"]

_VERSION = 1  # part of a data set's settings: raise it when the same seed gives another head


def write_phantoms(
    output_dir: str | os.PathLike[str],
    training: int = 16,
    validation: int = 4,
    test: int = 4,
    shape: Sequence[int] = (80, 96, 80),
    spacing_mm: float = 2.0,
    seed: int = 0,
    contrast: str = "t1",
) -> Path:
    """Write a data set of heads in the layout of the Medical Segmentation Decathlon.

    ``dataset.json`` comes last, so a folder that has it is whole. Every file is written under another name and then
    moved into place, and its content follows from the settings: an interrupted call is finished by the next, and
    two processes may make the same data set at once.

    Args:
        output_dir: Folder of the data set, made if need be.
        training: Number of heads to train on.
        validation: Number of heads to validate on.
        test: Number of heads to test on.
        shape: Voxels along the three axes.
        spacing_mm: Size of a voxel in mm.
        seed: Another seed gives other subjects.
        contrast: ``"t1"`` or ``"random"``, see ``random_anatomy``.

    Returns:
        The folder, with ``dataset.json``, ``images`` and ``labels`` in it.

    Raises:
        ValueError: If an argument is out of range, or the folder holds another data set.
    """
    root, counts = Path(output_dir), {"training": training, "validation": validation, "test": test}
    if any(not isinstance(n, int) or n < 0 for n in counts.values()) or sum(counts.values()) == 0:
        raise ValueError(f"numbers of heads must be whole, 0 or more and not all 0, got {counts}: ask for at least one")
    if not spacing_mm > 0:
        raise ValueError(f"spacing_mm must be above 0, got {spacing_mm}: give for example 2.0")
    affine = centred_affine(shape, spacing_mm)
    random_anatomy(seed, contrast)  # refuses a wrong argument before anything is written
    settings = {**counts, "shape": [int(n) for n in shape], "spacing_mm": float(spacing_mm), "seed": seed}
    description = _describe(settings | {"contrast": contrast, "version": _VERSION}, counts)
    if _is_done(root, description):
        return root
    for index in Progress(range(sum(counts.values())), title="drawing phantoms", unit="head"):
        image, label = sample(random_anatomy((seed, index), contrast), shape, affine)
        _write_volume(root / "images" / _name(index), np.rint(image).astype(np.int16), affine)
        _write_volume(root / "labels" / _name(index), label, affine)
    write_text(root / "dataset.json", json.dumps(description, indent=4) + "\n")
    return root


def _name(index: int) -> str:
    return f"phantom_{index:03d}.nii.gz"


def _describe(settings: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """Return the content of dataset.json."""
    names = iter(_name(index) for index in range(sum(counts.values())))
    cases = [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]
    ends = np.cumsum(list(counts.values())).tolist()
    return {
        "name": "phantom",
        "description": "Synthetic labelled heads made by bundle.phantom: no patient, no download",
        "licence": "CC0-1.0",
        "labels": {"0": "background", **{str(label): name for label, name in REGIONS.items()}},
        "spacing_mm": [settings["spacing_mm"]] * 3,
        "phantom": settings,
        **{part: cases[end - counts[part] : end] for part, end in zip(counts, ends)},
    }


def _is_done(root: Path, description: dict[str, Any]) -> bool:
    """Tell whether the folder holds this data set already.

    Raises:
        ValueError: If it holds another.
    """
    file = root / "dataset.json"
    if not file.exists():
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}): remove it or give another output folder") from error
    settings = found.get("phantom") if isinstance(found, dict) else None
    if settings != description["phantom"]:
        asked = description["phantom"]
        raise ValueError(
            f"{file} describes another data set (settings {settings}, asked for {asked}): give another output folder"
        )
    return True


def _write_volume(path: Path, data: npt.NDArray[Any], affine: Matrix) -> None:
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with in_place(path) as partial:
        nibabel.save(image, partial)


def write_pair(output_dir: str | os.PathLike[str], seed: int = 0) -> tuple[Path, Path, Path, Path]:
    """Write two different subjects on two different grids, to try a registration on.

    The moving image is oblique, has thick slices and runs right to left along its first axis; the fixed one is plain.
    Neither subject is in the data set that ``write_phantoms`` makes from the same seed.

    Args:
        output_dir: Folder to write to, made if need be; files of these names are replaced.
        seed: Another seed gives another pair.

    Returns:
        Paths of ``moving.nii.gz``, ``moving_label.nii.gz``, ``fixed.nii.gz`` and ``fixed_label.nii.gz``.

    Raises:
        ValueError: If an argument is out of range.
    """
    grids: dict[str, tuple[tuple[int, int, int], Matrix]] = {
        "moving": ((100, 120, 60), centred_affine((100, 120, 60), (-1.7, 1.7, 2.8), degrees=(9, -5, 7))),
        "fixed": ((80, 96, 84), centred_affine((80, 96, 84), 2.0)),
    }
    paths = []
    for index, (name, (shape, affine)) in enumerate(grids.items()):
        # The third number keeps these subjects apart from the (seed, index) of the data set.
        image, label = sample(random_anatomy((seed, index, 1)), shape, affine)
        for suffix, data in (("", np.rint(image).astype(np.int16)), ("_label", label)):
            paths.append(Path(output_dir) / f"{name}{suffix}.nii.gz")
            _write_volume(paths[-1], data, affine)
    return paths[0], paths[1], paths[2], paths[3]
