"""What an item of a list of images may hold, and which items a validation takes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundle.keys import refuse_misspelt, tells
from bundle.pairs import FILES, PAIR_KEYS
from bundle.people import by_person

__all__ = [
    "FILE_KEYS",
    "check_item",
    "check_listed_once",
    "entries_of",
    "files_of",
    "hold_out",
    "paired_by",
    "tell_unread",
]

Item = dict[str, Any]
IMAGE_FILES = ("image", "label", "landmarks")
PAIR_FILES = (*PAIR_KEYS, "moving_landmarks", "fixed_landmarks")
FILE_KEYS = (*IMAGE_FILES, *PAIR_FILES)
OTHERS = ("dataset", "name")
KEYS = (*OTHERS, *dict.fromkeys((*FILE_KEYS, *FILES)))
LEARN2REG = {"training": "training_paired_images", "validation": "registration_val"}  # pairs of images of "training"
SEED = 0  # of what is held out: the same images in every run


def check_item(item: Item, where: str) -> None:
    """Refuse an item that is neither an image nor a pair, or that brings files which would be left out without a word.

    Args:
        item: of a list, its paths made absolute.
        where: the item, as the sentence begins.

    Raises:
        ValueError: a key is misspelt, is none of an image or of a pair but sounds as if it mattered, or a pair is of an
            image with itself.
    """
    refuse_misspelt([*item], KEYS, where)
    pair = {"moving", "fixed"} <= item.keys()
    if not pair and "image" not in item:
        raise ValueError(f"{where} has neither an image nor a moving and a fixed one.")
    if pair and "image" in item:
        raise ValueError(f"{where} has an image and a pair: list them as two.")
    known = dict.fromkeys((*PAIR_FILES, *FILES)) if pair else dict.fromkeys(IMAGE_FILES)
    for key, value in item.items():
        passed = key in known or key in OTHERS or (key == "mask" and not pair)
        if not passed and (key in KEYS or (tells(key) and Path(str(value)).suffix)):
            what = "pair" if pair else "single image"
            raise ValueError(f"{where} has '{key}', which is not read of a {what}: {', '.join(known)} are.")
    if pair and os.path.normpath(str(item["moving"])) == os.path.normpath(str(item["fixed"])):
        raise ValueError(f"{where} pairs {item['fixed']} with itself: list two images.")


def check_listed_once(items: Sequence[Item], split: str) -> None:
    """Refuse an image or a pair that a split of a data set lists twice: one would be paired with itself.

    One for all, an atlas say, may be in several splits, and in several explicit pairs; two images may be a pair with
    each of several label maps.

    Raises:
        ValueError: there is one.
    """
    listed = Counter(_identity(item) for item in items)
    for (_, *files), count in listed.items():
        if count > 1:
            what = "image" if len(files) == 1 else "pair"
            raise ValueError(f"{' with '.join(files[:2])} is listed {count} times for {split}: list every {what} once.")


def _identity(item: Item) -> tuple[str, ...]:
    """Tell an item by its data set and its files: an image by itself, a pair with all that belongs to it."""
    keys = ("image",) if "image" in item else dict.fromkeys(("moving", "fixed", *PAIR_FILES, *FILES))
    return (str(item.get("dataset")), *(os.path.normpath(str(item[key])) if key in item else "" for key in keys))


def entries_of(content: Mapping[str, Any], split: str) -> list[Any]:
    """List what a ``dataset.json`` has for a split, Learn2Reg's lists of pairs taken in.

    ``training_paired_images`` are trained on in place of the single images. ``registration_val`` is the validation
    where there is no other, and what shares an image with it is not trained on, if something is left. The labels of a
    pair are those that ``training`` lists its images with.

    Args:
        content: of the file.
        split: ``"training"``, ``"validation"`` or ``"test"``.

    Returns:
        Entries as the file has them, not checked.
    """
    entries: list[Any] = content.get(split, [])
    if paired_by(content, split):
        entries = _with_labels(content[LEARN2REG[split]], content.get("training", []))
    if split == "training" and paired_by(content, "validation"):
        held = _named_files(content[LEARN2REG["validation"]])
        left = [entry for entry in entries if not held & _named_files([entry])]
        return left if len(left) > 1 else entries
    return entries


def paired_by(content: Mapping[str, Any], split: str) -> str:
    """Name the list of Learn2Reg that a split is read from; empty for none."""
    key = LEARN2REG.get(split, "")
    return key if content.get(key) and not (split == "validation" and content.get(split)) else ""


def _with_labels(pairs: Sequence[Item], images: Sequence[Any]) -> list[Item]:
    labels = {os.path.normpath(e["image"]): e.get("label") for e in images if isinstance(e, dict) and "image" in e}
    roles = ("moving", "fixed")
    return [
        {f"{role}_label": labels.get(os.path.normpath(pair[role])) for role in roles if role in pair} | pair
        for pair in pairs
    ]


def _named_files(entries: Sequence[Any]) -> set[str]:
    return files_of([{"image": entry} if isinstance(entry, str) else entry for entry in entries])


def tell_unread(folder: Path, split: str, items: Sequence[Item]) -> None:
    """Say which files of a list nothing reads, masks of single images say."""
    unread = sorted({key for item in items for key, value in item.items() if key not in KEYS and _is_file(value)})
    if unread:
        print(f"{folder}: not read of '{split}': {', '.join(unread)}")  # noqa: T201


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and os.path.isfile(value)


def files_of(items: Sequence[Item]) -> set[str]:
    """The images of a list, single ones or those of pairs."""
    return {os.path.normpath(item[key]) for item in items for key in ("image", "moving", "fixed") if key in item}


def hold_out(items: Sequence[Item], count: int) -> tuple[list[Item], list[Item]]:
    """Draw items for validation, the same ones in every run, and list what is left to train on.

    Of images those of a person, as the names tell, are all held out or none of them, where enough people are left:
    ``count`` is then a share of the people, and one person with several images is enough. Pairs are drawn so that few
    of the others share an image with them. These are left out where they are no more than those held out, and something
    is left to train on; else they stay.

    Args:
        items: images, or pairs.
        count: how many to hold out.

    Returns:
        The held ones, and those to train on, in the order of the list.
    """
    order = np.random.default_rng(SEED).permutation(len(items)).tolist()
    held, shared = {*order[:count]}, set[int]()
    if "moving" not in items[0]:
        held = _draw_people([item["image"] for item in items], count) or held
    else:
        apart = _draw_apart([files_of([item]) for item in items], order, count)
        if apart:
            held, shared = apart
    kept = [item for i, item in enumerate(items) if i not in held | shared]
    return [items[i] for i in sorted(held)], kept


def _draw_people(paths: Sequence[str], count: int) -> set[int]:
    """Draw the images of whole people, as many in a hundred as ``count`` is of the images; none where too few are left.

    Two people make pairs as validations have them; of three, one with two images or more is drawn.
    """
    people = by_person(paths)
    wanted = max(2, round(count / len(paths) * len(people)))
    order = np.random.default_rng(SEED).permutation(len(people))
    drawn = {i for person in order[: wanted if len(people) >= wanted + 2 else 1] for i in people[person]}
    return drawn if 2 <= len(drawn) <= len(paths) - 2 else set()


def _draw_apart(files: Sequence[set[str]], order: Sequence[int], count: int) -> tuple[set[int], set[int]] | None:
    """Draw pairs one by one, the one each time whose images the fewest others have; None where too many have some.

    Args:
        files: of each pair.
        order: of pairs that are as good.
        count: of pairs to draw.

    Returns:
        The pairs drawn, and the others that share an image with them.
    """
    of_file: dict[str, set[int]] = {}
    for i, some in enumerate(files):
        for file in some:
            of_file.setdefault(file, set()).add(i)
    near = [set[int]().union(*(of_file[file] for file in some)) for some in files]  # itself among them
    drawn, touched = set[int](), set[int]()
    for _ in range(count):
        best = min((i for i in order if i not in drawn), key=lambda i: len(near[i] - touched))
        drawn.add(best)
        touched |= near[best]
        if len(touched) > min(2 * count, len(files) - 1):
            return None
    return drawn, touched - drawn
