"""Lists of images: ``dataset.json`` in its several styles, or the Medical Segmentation Decathlon's folders."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bundle.entries import (
    FILE_KEYS,
    check_item,
    check_listed_once,
    entries_of,
    files_of,
    hold_out,
    paired_by,
    tell_unread,
)
from bundle.keys import refuse_misspelt
from bundle.phantom import write_phantoms

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "check_listed_once",
    "is_listed",
    "open_dataset",
    "read_listing",
    "read_split",
    "region_names",
    "visible_images",
]

Item = dict[str, Any]
SPLITS = ("training", "validation", "test")
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
FOLDERS = {"training": "Tr", "validation": "Val", "test": "Ts"}  # imagesTr, labelsTr and so on
NO_LISTING = "{} is not a data set listing in the style of the Medical Decathlon."


def open_dataset(
    dataset_dir: str | Sequence[str], split: str, phantom_dir: str | None = None, val_frac: float = 0.0
) -> list[Item]:
    """List the images of one split of a data set.

    ``dataset.json`` is in the style of the Medical Segmentation Decathlon: ``training``, ``validation`` and ``test``
    list items with ``image`` and, optionally, ``label`` and ``landmarks``, paths relative to the file; or explicit
    pairs, items with ``moving``, ``fixed`` and optionally ``moving_label``, ``fixed_label``, ``moving_landmarks`` and
    ``fixed_landmarks``. Learn2Reg's ``training_paired_images`` and ``registration_val`` are such pairs, too, and what
    shares an image with the latter is not trained on. Where there are no such lists, as in nnU-Net's, or no file at
    all, the folders ``imagesTr``, ``imagesTs`` and ``labelsTr`` are listed, a label map for each image of its name
    (nnU-Net's ``_0000`` left out).

    Args:
        dataset_dir: the folder that holds ``dataset.json``; several folders make one list, pairs stay within a folder.
        split: ``"training"``, ``"validation"`` or ``"test"``.
        phantom_dir: where the default data set of synthetic heads lives: made on the spot if ``dataset_dir`` names
            this folder and it is not there yet.
        val_frac: share of the training items that are held out for validation where a folder lists none for it,
            always the same ones, two images at least; they are then no longer among the training items. Images of one
            person, as their names tell, are held out together. 0 for none.

    Returns:
        One dict an item, its paths made absolute, and ``dataset`` naming the folder it came from.

    Raises:
        FileNotFoundError: neither ``dataset.json`` nor such folders, or a file it lists is missing.
        ValueError: the file is not JSON of that form, a key seems misspelt or is none of an image or a pair, an image
            or pair is listed twice or a pair is of one image, the split is empty or unknown, or there are too few
            images to hold some out.
    """
    if split not in SPLITS:
        raise ValueError(f"The split is one of {', '.join(SPLITS)}, not '{split}'.")
    if isinstance(val_frac, bool) or not isinstance(val_frac, int | float) or not 0 <= val_frac < 1:
        raise ValueError(f"val_frac is a share from 0 to below 1, not '{val_frac}'.")
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    items: list[Item] = []
    for folder in map(Path, folders):
        if phantom_dir and folder == Path(phantom_dir) and not (folder / "dataset.json").exists():
            write_phantoms(folder)
        found = _with_held_out(folder, split, val_frac)
        _tell(folder, split, found)
        if split == "validation":
            _tell_shared(folder, found, val_frac)
        items += found
    check_listed_once(items, split)
    if not items:
        raise ValueError(f"The split '{split}' of {dataset_dir} is empty: list images in its dataset.json.")
    return items


def _with_held_out(folder: Path, split: str, val_frac: float) -> list[Item]:
    """List a split; where there is none for validation, a share of the training items takes its place."""
    if split == "test" or not val_frac or read_split(folder, "validation"):
        return read_split(folder, split)
    items = read_split(folder, "training")
    if not items:
        return []
    least = 1 if "moving" in items[0] else 2  # what makes a pair
    count = max(least, round(val_frac * len(items)))
    if len(items) < count + least:
        raise ValueError(
            f"{folder} lists no validation images and {len(items)} for training, too few to hold {count} of them out: "
            "list images under 'validation' in its dataset.json (they need no labels)."
        )
    held, kept = hold_out(items, count)
    if split == "training":
        return kept
    names = ", ".join(Path(str(item.get("image", item.get("fixed")))).name for item in held[:3])
    left = len(items) - len(held) - len(kept)
    print(  # noqa: T201
        f"{folder} lists no validation images: {len(held)} of its {len(items)} for training are held out for it "
        f"(val_frac {val_frac}): {names}{', …' if len(held) > 3 else ''}"
        f"{f'; {left} that share an image with them are left out' if left else ''}"
    )
    return held


def _tell(folder: Path, split: str, found: Sequence[Item]) -> None:
    """Say which of Learn2Reg's lists a split was read from, and which files of it nothing reads."""
    key = paired_by(read_listing(folder), split)
    if key:
        print(f"{folder}: '{split}' are the {len(found)} pairs of '{key}'")  # noqa: T201
    tell_unread(folder, split, found)


def _tell_shared(folder: Path, validation: Sequence[Item], val_frac: float) -> None:
    """Say which images of a validation are trained on, too; what else is wrong with those is told by a training."""
    if not any(name in read_listing(folder) for name in SPLITS):
        return  # each split has a folder of its own
    try:
        training = _with_held_out(folder, "training", val_frac)
    except (OSError, ValueError):
        return
    shared = sorted(files_of(training) & files_of(validation))
    if shared:
        names = ", ".join(Path(path).name for path in shared[:3])
        print(  # noqa: T201
            f"{folder} validates on images that it trains on, so that the score tells less of new ones: {len(shared)}, "
            f"{names}{', …' if len(shared) > 3 else ''}"
        )


def read_split(folder: Path, split: str, pairs: bool = True) -> list[Item]:
    """List one split of one folder as ``open_dataset`` does; it may be empty.

    Args:
        folder: of the data set.
        split: as for ``open_dataset``.
        pairs: whether Learn2Reg's lists of pairs are read in place of its images.
    """
    listing = folder / "dataset.json"
    content = read_listing(folder)
    if not any(name in content for name in SPLITS):
        return [item | {"dataset": str(folder)} for item in _scan(folder, split, content)]
    try:
        listed = entries_of(content, split) if pairs else content.get(split, [])
        entries = [{"image": e} if isinstance(e, str) else e for e in listed]
        items = [
            {k: _find(folder, v) if isinstance(v, str) else v for k, v in e.items() if v not in ("", None)}
            | {"dataset": str(folder)}
            for e in entries
            if is_listed(e.get("image", ""))
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(NO_LISTING.format(listing)) from error
    for item in items:
        check_item(item, f"An item of '{split}' in {listing}")
        missing = [v for k, v in item.items() if k in FILE_KEYS and not Path(str(v)).is_file()]
        if missing:
            raise FileNotFoundError(f"{listing} lists {missing[0]}, which does not exist.")
    check_listed_once(items, split)
    return items


def read_listing(folder: Path) -> dict[str, Any]:
    """Read ``dataset.json``; a folder with ``imagesTr`` may go without."""
    listing = folder / "dataset.json"
    if not listing.is_file():
        if (folder / "imagesTr").is_dir():
            return {}
        raise FileNotFoundError(
            f"There is no {listing}, and no imagesTr beside it: name the folder of a data set, or make one with "
            "'prepare'."
        )
    try:
        content = json.loads(listing.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(NO_LISTING.format(listing)) from error
    if not isinstance(content, dict):
        raise ValueError(NO_LISTING.format(listing))
    refuse_misspelt([key for key in content if not key.startswith("num")], SPLITS, str(listing))  # numTraining is known
    if not any(name in content for name in SPLITS) and not (folder / "imagesTr").is_dir():
        raise ValueError(f"{listing} lists no {', '.join(SPLITS)} images, and there is no imagesTr beside it.")
    return content


def _find(folder: Path, path: str) -> str:
    """Make a listed path absolute; nnU-Net lists an image without the number of its channel."""
    full = folder.absolute() / path
    if not full.exists():
        first = full.with_name(re.sub(r"(\.nii|\.nii\.gz|\.nrrd|\.mha|\.mhd)$", r"_0000\1", full.name))
        full = first if first.is_file() else full
    return str(full)


def is_listed(path: Any) -> bool:
    """Tell an image's name from those that macOS leaves beside it (``._name``), and other hidden files."""
    return not (isinstance(path, str | Path) and Path(path).name.startswith("."))


def visible_images(paths: Iterable[Path]) -> list[Path]:
    """Keep the images among paths, sorted, without hidden files and folders."""
    return sorted(p for p in paths if p.name.endswith(IMAGE_SUFFIXES) and is_listed(p.name) and p.is_file())


def _scan(folder: Path, split: str, content: dict[str, Any]) -> list[Item]:
    """List the images of ``imagesTr`` (or Val, Ts), with the label map of each where there is one.

    In nnU-Net's folders ``case_0000`` to ``case_000N`` are the channels of a case: the first one is taken.
    """
    root, ending = folder.absolute(), FOLDERS[split]
    images = {_stem(p): p for p in visible_images((root / f"images{ending}").glob("*"))}
    labels = {_stem(p): p for p in visible_images((root / f"labels{ending}").glob("*"))}
    several = len(content.get("channel_names") or content.get("modality") or ()) > 1
    if several or not labels.keys() <= images.keys():
        first = {re.sub("_0000$", "", stem): path for stem, path in images.items() if stem.endswith("_0000")}
        others = {s: p for s, p in images.items() if re.sub(r"_\d{4}$", "", s) not in first}
        if len(first) + len(others) < len(images):
            print(f"{folder} has several channels an image: the first ({ending}, _0000) is taken")  # noqa: T201
        images = first | others
    alone = sorted(labels.keys() - images.keys())
    if alone:
        raise ValueError(f"{labels[alone[0]]} is the label map of no image in images{ending}: the names must match.")
    return [
        {"image": str(path)} | ({"label": str(labels[stem])} if stem in labels else {})
        for stem, path in sorted(images.items())
    ]


def _stem(path: Path) -> str:
    return re.sub(r"\.(nii|nii\.gz|nrrd|mha|mhd)$", "", path.name)


def region_names(dataset_dir: str | Sequence[str]) -> dict[int, str]:
    """Look up what the labels of a data set are called: ``labels`` of its ``dataset.json``.

    Either by number, as the Medical Segmentation Decathlon has it (``{"1": "hippocampus"}``), or by name, as nnU-Net
    has it (``{"hippocampus": 1}``; regions of several labels name none of them), a list from 0 up, or such a table for
    each modality, as Learn2Reg has it (``{"0": {"1": "anterior"}}``).

    Args:
        dataset_dir: as for ``open_dataset``.

    Returns:
        Names by label, without the background; empty where the data set names none.

    Raises:
        ValueError: a table of another form.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    names: dict[int, str] = {}
    for folder in map(Path, folders):
        table = read_listing(folder).get("labels") or {}
        if isinstance(table, dict) and all(isinstance(one, dict) for one in table.values()):
            table = {key: value for one in table.values() for key, value in one.items()}
        for key, value in enumerate(table) if isinstance(table, list) else _entries(table, folder):
            names |= {label: name for label, name in _named(key, value, folder) if label > 0}
    return names


def _entries(table: Any, folder: Path) -> Iterable[tuple[Any, Any]]:
    if not isinstance(table, dict):
        raise ValueError(f"'labels' of {folder / 'dataset.json'} is no table of numbers and names.")
    return table.items()


def _named(key: Any, value: Any, folder: Path) -> list[tuple[int, str]]:
    """Read one entry of a table of labels, number first."""
    if re.fullmatch(r"\d+", str(key)):
        return [(int(key), str(value))]
    numbers = value if isinstance(value, list) else [value]
    if not all(re.fullmatch(r"\d+", str(number)) for number in numbers):
        raise ValueError(f"'labels' of {folder / 'dataset.json'} names '{key}' by {value}, which is no number.")
    return [(int(numbers[0]), str(key))] if len(numbers) == 1 else []
