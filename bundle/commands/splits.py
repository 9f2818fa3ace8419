"""Which images of a data set ``prepare`` takes for training, validation and test."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundle.data import SPLITS, read_split
from bundle.entries import FILE_KEYS, paired_by, tell_unread
from bundle.folders import sort_folder
from bundle.listing import read_listing
from bundle.people import by_person, several_each
from bundle.recipes import Recipe

__all__ = ["carried_pairs", "find_splits"]

Item = dict[str, Any]


def find_splits(
    source: Path, validation: float, test: float, seed: int, recipe: Recipe | None, pattern: str | None = None
) -> dict[str, list[Item]]:
    """List the images of a data set by split; a folder without dataset.json or recipe is split at random.

    A random split is one of people, as far as the names of images tell them.

    Args:
        source: of the data set.
        validation: share of the people of a folder that is split.
        test: likewise.
        seed: of the random split.
        recipe: that finds the images of a published data set.
        pattern: of the images of a folder that is split.

    Raises:
        FileNotFoundError: no such folder, or a listed file is missing.
        ValueError: there are too few images, an explicit pair is listed, or a pattern has nothing to choose from.
    """
    listed = (source / "dataset.json").is_file() or (source / "imagesTr").is_dir()
    if pattern is not None and (recipe or listed or not isinstance(pattern, str)):
        raise ValueError(
            f"--pattern names the images of a folder without a list or a recipe, got '{pattern}' for {source}: leave "
            "it out, or name a folder in it."
        )
    if recipe:
        return recipe.find(source.absolute())
    if listed:
        splits = {split: read_split(source, split, pairs=False) for split in SPLITS}
        for split, items in splits.items():
            tell_unread(source, split, items)
        if not any(splits.values()):
            raise ValueError(
                f"The list of images in {source} is empty: name them in its dataset.json, or lay them into imagesTr."
            )
        if any("image" not in item for split in splits.values() for item in split):
            raise ValueError(f"{source} lists explicit pairs: list single images to prepare them.")
        return splits
    items = sort_folder(source, pattern)
    return _drawn(source, items, validation, test, seed)


def _drawn(source: Path, items: Sequence[Item], validation: float, test: float, seed: int) -> dict[str, list[Item]]:
    """Split images at random, and say so where people have several: all images of a person are in one split."""
    paths = [item["image"] for item in items]
    people = by_person(paths)
    order = np.random.default_rng(seed).permutation(len(people))
    n_validation, n_test = round(validation * len(people)), round(test * len(people))
    said = several_each(paths, people)
    if min(validation, test) < 0 or n_validation + n_test > len(people) - 2:
        raise ValueError(
            f"The shares for validation and test ({validation}, {test}) leave too few of {len(people)} "
            f"{'people' if said else 'images'} to train on, which takes two: give lower ones."
        )
    n_validation = _paired(n_validation, len(people) - (n_test if n_test > 1 else 0))
    n_test = _paired(n_test, len(people) - n_validation)
    cuts = np.split(order, [n_validation, n_validation + n_test])
    chosen = [sorted(i for person in cut for i in people[person]) for cut in cuts]
    drawn = dict(zip(("validation", "test", "training"), ([items[i] for i in some] for some in chosen)))
    if said:
        counts = dict(zip(("validation", "test", "training"), map(len, cuts)))
        print(f"{source}: {said}: {', '.join(f'{counts[s]} people for {s}' for s in SPLITS)}, none for two of them")
    return {split: drawn[split] for split in SPLITS}


def _paired(count: int, available: int) -> int:
    """Hold out two people in place of one, who make no pair; none where that leaves fewer than two to train on."""
    return count if count != 1 else 2 if available >= 4 else 0


def carried_pairs(source: Path, items: Sequence[Item], names: Mapping[str, str]) -> dict[str, list[Item]]:
    """Name Learn2Reg's lists of pairs by the prepared files: what is trained and validated on stays what it was.

    Args:
        source: of the data set.
        items: all its images.
        names: of the prepared images, by the paths of their sources.

    Returns:
        The lists by their keys, paths relative to the prepared folder; empty where the data set has none.

    Raises:
        ValueError: a pair takes a file that belongs to none of the images.
    """
    listing = source / "dataset.json"
    content = read_listing(source) if listing.is_file() else {}
    files = {
        os.path.normpath(item[key]): f"{key}s/{names[item['image']]}.nii.gz"
        for item in items
        for key in ("image", "label")
        if key in item
    }
    lists: dict[str, list[Item]] = {}
    for split in SPLITS if any(name in content for name in SPLITS) else ():
        key = paired_by(content, split)
        pairs = [{k: v for k, v in pair.items() if k in FILE_KEYS} for pair in read_split(source, split)] if key else []
        for path in (path for pair in pairs for path in pair.values()):
            if os.path.normpath(path) not in files:
                raise ValueError(
                    f"{listing} has {path} in '{key}', but not among its images and labels: list it there."
                )
        if pairs:
            lists[key] = [{k: files[os.path.normpath(path)] for k, path in pair.items()} for pair in pairs]
            print(f"{source}: the {len(pairs)} pairs of '{key}' are listed again, of the prepared images")
    return lists
