"""Bring raw images onto one grid, ready for training."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bundle.commands.one_grid import bring_onto_grid
from bundle.commands.prepared import Prepared
from bundle.commands.register import check_affine, output_folder
from bundle.commands.splits import carried_pairs, find_splits
from bundle.io.files import check_outputs, fingerprint, write_text
from bundle.io.headers import NIBABEL, read_header
from bundle.listing import IMAGE_SUFFIXES, check_listed_once, is_listed, read_listing
from bundle.options import check_flags
from bundle.progress import Progress
from bundle.recipes import RECIPES, Recipe
from bundle.spatial import Grid
from bundle.transforms import on_grid_of, read_volume
from bundle.transforms.extent import check_extent, check_spacing

__all__ = ["prepare"]

Item = dict[str, Any]


def prepare(
    source: str,
    output_dir: str,
    spacing_mm: float | None = None,
    size: Sequence[int] | None = None,
    affine: str | None = None,
    reference: str | None = None,
    mask: bool = False,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    recipe: str | None = None,
    pattern: str | None = None,
) -> str:
    """Bring a folder or a dataset.json of raw images onto one grid, aligned to one of them.

    Every image is oriented to RAS, aligned to the reference image and resampled once onto the reference's grid (labels
    by nearest neighbour). One that a rigid or affine alignment leaves less alike to the reference than its header does
    goes by that, with a note. An interrupted run goes on where it stopped, and makes anew what has changed at its
    source.

    Args:
        source: a folder with dataset.json (image and label of each subject, three splits), or any folder of images,
            which is then split at random; with a recipe, the folder in which that data set is distributed.
        output_dir: folder to write: images/, labels/, dataset.json, and prepared.json, what they were made from.
        spacing_mm: isotropic spacing of the grid; the reference's own by default, along each axis.
        size: sides of the grid in voxels (RAS order), centred on the reference's labels, or on its field of view
            where it has none; the whole field of view by default.
        affine: pre-alignment to the reference: none, center, rigid or affine (the default).
        reference: path of the reference image; the first training image by default.
        mask: blank everything outside the labels (label > 0): 0, or the air of a CT.
        validation: share of the people for validation, for a folder without dataset.json, as the names of the images
            tell them (BIDS' sub-01, what is left without T1 or ses-2); two or none, since one makes no pair.
        test: share of the people for testing, likewise.
        seed: of the random split.
        pattern: of the names of the images in a folder without dataset.json, '*_T1w.nii.gz' say, or of their paths
            there if it has a slash; all images by default. Files and folders whose names tell of label maps, labels/
            or *_seg.nii.gz, go with the images of their names or are left out, and so are derivatives (BIDS).
        recipe: ixi, lpba40 or abdomenmrct: how these data sets are found, read, split and named; it also brings its
            own defaults for affine, spacing_mm and size.

    Returns:
        Path of the dataset.json written.
    """
    check_flags(mask=mask)
    root, known = output_folder(output_dir), _find_recipe(recipe)
    if known:
        affine = known.affine if affine is None else affine
        spacing_mm = known.spacing_mm if spacing_mm is None else spacing_mm
        size = known.size if size is None else size
    affine = "affine" if affine is None else affine
    check_affine(affine)
    splits = find_splits(Path(source), validation, test, seed, known, pattern)
    for split, items in splits.items():
        check_listed_once(items, split)
    items = [item for split in splits.values() for item in split]
    if mask and not all("label" in item for item in items):
        raise ValueError(f"Masking needs a label map for every image, but {source} lists images without one.")
    first = _find_reference(items, reference, known)
    target = _read(first, known)
    grid = _target_grid(target, spacing_mm, size)
    names = _unique_names(items, Path(source))
    _check_sources(root, Path(source), items, names)
    _check_resumed(root, grid)
    notes = Prepared(root, {"affine": affine, "mask": mask, "reference": _content(first["image"])})
    listing: dict[str, Any] = {"name": root.name, "description": f"{source}, prepared: {affine} to {first['image']}"}
    listing |= _about(Path(source), known) | ({} if known else carried_pairs(Path(source), items, names))
    listing |= {"spacing_mm": [round(float(s), 4) for s in grid.spacing_mm]} | {split: [] for split in splits}
    for split, item in Progress([(s, i) for s in splits for i in splits[s]], title="preparing", unit="image"):
        entry: dict[str, str] = {
            key: f"{key}s/{names[item['image']]}.nii.gz" for key in ("image", "label") if key in item
        }
        sources, outputs = {key: item[key] for key in entry}, {key: root / path for key, path in entry.items()}
        if not notes.holds(sources, outputs):
            how = "none" if item is first else affine  # the reference lies where it lies
            bring_onto_grid(_read(item, known), target, grid, how, mask, outputs, item["image"])
            notes.note(sources, outputs)
        listing[split].append(entry)
    path = root / "dataset.json"
    write_text(path, json.dumps(listing, indent=4) + "\n")
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    print(f"{len(items)} images ({counts}) on a grid of {grid.shape} voxels: {path}")
    return str(path)


def _check_sources(root: Path, source: Path, items: list[Item], names: dict[str, str]) -> None:
    """Refuse a folder to write where a file of the data set would be overwritten."""
    check_outputs([root / "dataset.json"], [("data set's list", source / "dataset.json")])
    for item in items:
        files = [(key, item[key]) for key in ("image", "label") if key in item]
        check_outputs([root / f"{key}s/{names[item['image']]}.nii.gz" for key, _ in files], files)


def _find_recipe(name: str | None) -> Recipe | None:
    if name is not None and name not in RECIPES:
        raise ValueError(f"The recipe is one of {', '.join(RECIPES)}, not '{name}'.")
    return RECIPES[name] if name is not None else None


def _about(source: Path, recipe: Recipe | None) -> dict[str, Any]:
    """Say where a data set is from and what its labels are called, as far as that is known."""
    if recipe:
        labels = {0: "background", **recipe.labels}
        return {"reference": recipe.reference, "labels": {str(number): name for number, name in labels.items()}}
    if (source / "dataset.json").is_file():
        listing = read_listing(source)
        return {key: listing[key] for key in ("reference", "licence", "labels") if key in listing}
    return {}


def _find_reference(items: list[Item], reference: str | None, recipe: Recipe | None) -> Item:
    if reference is None:
        return items[0]
    for item in items:
        if Path(item["image"]).resolve() == Path(reference).resolve():
            return item
    if recipe:
        raise ValueError(f"The reference ({reference}) is none of the data set's images.")
    return {"image": reference}


def _content(path: str) -> str:
    """Name an image by its file and what that holds; one that is no file, by its name alone."""
    digest = f" (SHA-256 {fingerprint(path)['sha256']})" if os.path.isfile(path) else ""
    return f"{Path(path).name}{digest}"


def _read(item: Item, recipe: Recipe | None) -> dict[str, Any]:
    """Read an image and its label with their grid."""
    try:
        opened = recipe.open(item) if recipe else item
        volumes = {k: read_volume(opened[k], k, k == "label") for k in ("image", "label") if k in opened}
        if "label" in volumes:
            volumes["label"] = on_grid_of(volumes["image"], volumes["label"], f"label map ({item['label']})")
    except ValueError as error:
        if recipe is None:
            raise
        raise ValueError(f"{item['image']}: {error}") from error
    image = volumes["image"]
    grid = Grid.from_ras(image.shape[1:], image.affine)
    return {k: v.as_tensor() for k, v in volumes.items()} | {"grid": grid}


def _target_grid(target: dict[str, Any], spacing_mm: float | None, size: Sequence[int] | None) -> Grid:
    """Lay the common grid over the reference image."""
    if spacing_mm is not None and not isinstance(spacing_mm, int | float):
        raise ValueError(f"The spacing must be above 0 mm, got {spacing_mm}.")
    check_spacing(spacing_mm, "--spacing_mm")
    if size is None:
        check_extent(target["grid"], spacing_mm, "--spacing_mm")
    grid: Grid = target["grid"].canonical(spacing_mm)
    if size is None:
        return grid
    if not isinstance(size, list | tuple) or len(size) != 3 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f"The size takes three sides in voxels, got {size}.")
    centre = grid.centre_mm
    if "label" in target:
        inside = torch.nonzero(target["label"][0])
        if not len(inside):
            raise ValueError("The label map of the reference is empty: name another --reference.")
        centre = target["grid"].to_points((inside.min(0).values + inside.max(0).values).numpy() / 2)
    return grid.centred(size, grid.spacing_mm if spacing_mm is None else spacing_mm, centre)


def _check_resumed(root: Path, grid: Grid) -> None:
    """Refuse to go on in a folder whose images lie on another grid."""
    for path in sorted(root.glob("*s/*.nii.gz")):
        if is_listed(path.name):  # nor one that an interrupted run has left
            if not read_header(path).grid.is_close(grid):
                raise ValueError(f"{path} was prepared on another grid: give another --output_dir.")


def _unique_names(items: list[Item], source: Path) -> dict[str, str]:
    """Name each image by its file without the ending; of those alike, by its path there, at last with the ending.

    Raises:
        ValueError: two still have one name.
    """
    plain = {item["image"]: os.path.normpath(item["image"]) for item in items}
    root = os.path.abspath(source)
    if any(os.path.commonpath([root, path]) != root for path in plain.values()):  # a list names images elsewhere
        root = os.path.commonpath([os.path.dirname(path) for path in plain.values()])
    places = {image: os.path.relpath(path, root) for image, path in plain.items()}
    names = {image: Path(image).name.removesuffix(_ending(image)) for image in places}
    for longer in (_joined, lambda place: f"{_joined(place)}{_ending(place).replace('.', '_')}"):
        taken = Counter(names.values())
        names = {image: name if taken[name] == 1 else longer(places[image]) for image, name in names.items()}
    if len({*names.values()}) < len(names):
        raise ValueError("Two images would be prepared under one name: rename one of their folders.")
    return names


def _joined(place: str) -> str:
    return "_".join(Path(place.removesuffix(_ending(place))).parts)


def _ending(path: str) -> str:
    """The ending of an image's name, of two parts for ``.nii.gz``."""
    name = Path(path).name
    return max((e for e in (*IMAGE_SUFFIXES, *NIBABEL) if name.endswith(e)), key=len, default=Path(name).suffix)
