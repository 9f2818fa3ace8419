"""Pairs of images: drawn from a list of images, or read from a table that a user keeps."""

import csv
import io
import json
import os
import random
from collections.abc import Mapping, Sequence, Set
from itertools import count, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

from bundle.io.files import check_outputs, shortened, utf8
from bundle.keys import refuse_misspelt, tells

__all__ = [
    "ALWAYS_WRITTEN",
    "FILES",
    "OPTIONAL_FILES",
    "PAIR_KEYS",
    "check_folder",
    "draw_pairs",
    "names_of",
    "read_pairs",
    "refuse_unread",
]

Item = dict[str, Any]
EXTRAS = ("label", "mask", "cost_mask")
PAIR_KEYS = ("moving", "fixed", *(f"{role}_{extra}" for extra in EXTRAS for role in ("moving", "fixed")))
FILES = (*PAIR_KEYS, "initial_transform")
COLUMNS = (*FILES, "name")
UNREAD = tuple(key for key in FILES if key.endswith("_mask") or key == "initial_transform")
"""What registration, inference and evaluation read of a pair, training and benchmarks do not."""
ALWAYS_WRITTEN = ("displacement.nii.gz", "registration.json", "transform.h5", "warped.nii.gz")
OPTIONAL_FILES = (
    *("warped_label.nii.gz", "jacobian.nii.gz", "expected_error.nii.gz", "inverse.h5", "inverse_displacement.nii.gz"),
    *("overview.png", "report.html", "thumbnail.png"),
)
"""Of a registration; those that one does not write, it removes."""
RESERVED = ("batch.csv", "index.html", ".error.txt")  # what a batch writes beside the pairs' folders


def draw_pairs(items: Sequence[Item], count: int | None = None, seed: int = 0, split: str = "") -> list[Item]:
    """Turn images into ordered pairs of distinct images of one data set.

    Args:
        items: from ``open_dataset``; explicit pairs among them are kept as they are.
        count: how many to draw without repetition, seeded; None or more than there are: all, in order.
        seed: of the draw.
        split: that the items are of, for the sentence that says if they are too few; empty for a list of another kind.

    Returns:
        Items with ``moving``, ``fixed``, the labels and landmarks there are, and ``name``: ``<moving>_to_<fixed>``,
        each its own and in every draw the same; images of one name go by the folders that tell them, too, and a name
        that is too long for a folder ends in a digest.

    Raises:
        ValueError: there are no two images to pair, or the count is no whole number from 1 up.
    """
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ValueError(f"The number of pairs is a whole number from 1 up, or None for all, not '{count}'.")
    pairs = [item for item in items if "moving" in item]
    images = [item for item in items if "image" in item]
    for moving in images:
        for fixed in images:
            if moving is not fixed and moving.get("dataset") == fixed.get("dataset"):
                pair = {"moving": moving["image"], "fixed": fixed["image"]}
                for role, image in (("moving", moving), ("fixed", fixed)):
                    pair |= {f"{role}_{extra}": image[extra] for extra in ("label", "landmarks") if extra in image}
                pairs.append(pair)
    if not pairs:
        raise ValueError(_too_few(images, split))
    named = _with_names(pairs, [None] * len(pairs))
    return random.Random(seed).sample(named, count) if count is not None and count < len(named) else named


def _with_names(pairs: Sequence[Item], given: Sequence[str | None]) -> list[Item]:
    """Name pairs: as ``given``, or by their images, and then past the names of all others."""
    images = names_of([pair[role] for pair in pairs for role in ("moving", "fixed")])
    whole = [shortened(f"{images[pair['moving']]}_to_{images[pair['fixed']]}") for pair in pairs]
    theirs = {name for name, own in zip(whole, given) if name == own}
    names = iter(_once_each([n for n, own in zip(whole, given) if own is None], theirs, {own for own in given if own}))
    unnamed = [{k: v for k, v in pair.items() if k != "dataset"} for pair in pairs]
    return [pair | {"name": own or next(names)} for pair, own in zip(unnamed, given)]


def _too_few(images: Sequence[Item], split: str) -> str:
    """Say that images make no pair, where they are listed, and what to do."""
    folders = ", ".join(dict.fromkeys(str(image["dataset"]) for image in images if "dataset" in image))
    where = f"the split '{split}' of {folders}" if split and folders else "the list"
    instead = ", or none for a share of the training images" if split == "validation" else ""
    return f"A pair takes two images of one data set, {where} has {len(images)}: list two or more there{instead}."


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """Name images by their files, without the ending, and those of one name by the folders in which they differ, too.

    Paths of one file, however they are spelt (``d/f.nii``, ``d/e/../f.nii``), have one name; links are not followed.

    Example:
        >>> [*names_of(["/d/sub-1/anat/T1w.nii.gz", "/d/sub-2/anat/T1w.nii.gz", "/d/sub-2/anat/T2w.nii.gz"]).values()]
        ['sub-1_T1w', 'sub-2_T1w', 'T2w']
    """
    files, of_one_name = {path: os.path.abspath(path) for path in paths}, dict[str, list[str]]()
    for file in dict.fromkeys(files.values()):
        of_one_name.setdefault(Path(file).name.split(".")[0], []).append(file)
    names = {file: name for stem, some in of_one_name.items() for file, name in zip(some, _apart(stem, some))}
    return {path: names[file] for path, file in files.items()}


def _apart(stem: str, paths: Sequence[str]) -> list[str]:
    """Name files of one stem, absolute paths, by the nearest folders that tell them, by their endings if none does."""
    files, *folders = zip_longest(*(reversed(Path(path).parts) for path in paths), fillvalue="")
    places = [*zip(*folders)]
    depth = next(d for d in range(len(folders) + 1) if len({p[:d] for p in places}) == len({*places}))
    telling = [level for level in reversed(range(depth)) if len({*folders[level]}) > 1]
    last = files if len({*places}) < len(paths) else [stem] * len(paths)
    return ["_".join([*(place[level] for level in telling), name]).lstrip(".") for place, name in zip(places, last)]


def _once_each(names: Sequence[str], listed: Set[str], given: Set[str]) -> list[str]:
    """Number what is listed more than once, or ``listed`` before, by numbers that no other name, ``given``, ends in."""
    taken, seen, found = {*names, *given}, {*listed}, []
    for name in names:
        free = (f"{name}_{number}" for number in count(2))
        found.append(next(other for other in free if other not in taken) if name in seen else name)
        seen.add(name)
        taken.add(found[-1])
    return found


def read_pairs(pairs_file: str) -> list[Item]:
    """List the pairs of a table, for ``configs/batch_inference.json``.

    The files are not looked for: a pair whose image is missing is that pair's own failure.

    Args:
        pairs_file: CSV with a header, its cells parted by commas, semicolons or tabs, or JSON with a list of objects:
            ``moving`` and ``fixed``; optionally labels, masks, ``initial_transform`` and a ``name`` each its own.
            Paths are relative to the file, or start with ``~``. A name with slashes is a folder in a folder.

    Returns:
        As ``draw_pairs`` has it, with the names given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a table of that form, a column that seems misspelt, a name that stands twice, would lead out
            of the output folder or is one of the batch's own files; a path that is not in UTF-8.
    """
    path = Path(pairs_file).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"The list of pairs ({path}) does not exist.")
    text = _text(path)
    rows = _json_rows(text, path) if path.suffix.lower() == ".json" else _csv_rows(text, path)
    if not rows:
        raise ValueError(f"{path} lists no pairs: give a moving and a fixed image in each row.")
    unread = sorted({key for _, row in rows for key in row} - {*COLUMNS})
    if unread:
        print(f"{path}: not read: {', '.join(unread)}")  # noqa: T201
    for number, row in rows:
        if not all(isinstance(v, str) for k, v in row.items() if k in COLUMNS):
            raise ValueError(f"Row {number} of {path} needs a moving and a fixed image, paths as text.")
        missing = [key for key in ("moving", "fixed") if key not in row]
        if missing:
            raise ValueError(f"Row {number} of {path} names no {missing[0]} image.")
    items = [{k: _file(path.parent, v) if k in FILES else v for k, v in row.items()} for _, row in rows]
    given = [_name(item["name"], path) if "name" in item else None for item in items]
    pairs = _with_names([{k: v for k, v in item.items() if k != "name"} for item in items], given)
    names = [pair["name"] for pair in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two pairs of {path} are called '{twice[0]}': give each a name of its own.")
    return pairs


def check_folder(folder: Path, pair: Mapping[str, Any]) -> None:
    """Refuse a folder where a registration would overwrite one of its own files, or where a folder is in its way.

    Args:
        folder: that it writes to.
        pair: its files by the keys of ``FILES``; what else it holds, volumes in memory say, does not matter.

    Raises:
        IsADirectoryError: a folder has the name of a file to write.
        ValueError: a file of the pair would be overwritten.
    """
    inputs = [(key.replace("_", " "), pair[key]) for key in FILES if isinstance(pair.get(key), str)]
    check_outputs([folder / name for name in (*ALWAYS_WRITTEN, *OPTIONAL_FILES)], inputs)


def refuse_unread(pairs: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse pairs that bring masks or an alignment of their own where nothing reads them.

    Args:
        pairs: from ``draw_pairs``.
        where: the sentence as far as it has got: who reads what, and whose pair.

    Raises:
        ValueError: there is one; the sentence says which key.
    """
    for pair in pairs:
        unread = [key for key in UNREAD if key in pair]
        if unread:
            raise ValueError(f"{where} ({Path(pair['moving']).name}) has '{unread[0]}': list it without.")


def _text(path: Path) -> str:
    """Read a text file as spreadsheets save it: UTF-8 with or without a byte-order mark, or UTF-16 with one."""
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: save it as 'CSV UTF-8'.") from error


def _json_rows(text: str, path: Path) -> list[tuple[int, Item]]:
    try:
        rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in json.loads(text)]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no list of pairs: give CSV with a header, or a JSON list of objects.") from error
    for row in rows:
        _check_columns([*row], path)
    return list(enumerate(rows, 1))


def _csv_rows(text: str, path: Path) -> list[tuple[int, Item]]:
    """Read the rows of a CSV with the number that a spreadsheet shows for each; blank ones are passed over."""
    lines = list(enumerate(_cells(text, path), 1))
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise ValueError(f"{path} is empty: its first line names the columns, moving and fixed.")
    header = lines[0][1]
    while header and not header[-1]:
        header = header[:-1]
    _check_columns(header, path)
    absent = [key for key in ("moving", "fixed") if key not in header]
    if absent:
        raise ValueError(f"{path} has no column '{absent[0]}': its first line names {', '.join(header)}.")
    rows = []
    for number, cells in lines[1:]:
        if any(cells[len(header) :]):
            raise ValueError(f"Row {number} of {path} has more cells than the first: put text with commas in quotes.")
        rows.append((number, {k: v for k, v in zip(header, cells) if v}))
    return rows


def _cells(text: str, path: Path) -> list[list[str]]:
    """Take a CSV apart: what parts the cells is whatever parts those of the first line."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    said = first.strip().lower().startswith("sep=")  # Excel's own way to say so
    if said:
        text = text[text.index(first) + len(first) :]
    delimiter = first.strip()[4:5] or "," if said else max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True, strict=True)
        return [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}.") from error


def _check_columns(columns: Sequence[str], path: Path) -> None:
    """Refuse columns that stand twice, are nearly the name of one that is read, or seem to mean something to us."""
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise ValueError(f"{path} has two columns '{twice[0]}': name each once.")
    refuse_misspelt(columns, COLUMNS, str(path))
    telling = [c for c in columns if tells(c) and c not in COLUMNS]
    if telling:
        raise ValueError(f"{path} has '{telling[0]}', which is not read: the columns are {', '.join(COLUMNS)}.")


def _file(folder: Path, value: str) -> str:
    """Resolve a path of a table: ``~`` is the user's home, others are relative to the table's folder."""
    path = Path(value)
    if value.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:  # no such user: a name with a tilde
            path = Path(value)
    return utf8(folder / path)


def _name(name: str, path: Path) -> str:
    """Check that a pair's name is a folder within the output folder, and bring it into its plainest form."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith(("/", "~")) or ".." in parts or "\\" in name or not name.isprintable():
        raise ValueError(f"{path} calls a pair '{name}', which is no folder within the output folder: rename it.")
    if any(part.startswith(".") or part.lower().endswith(RESERVED) for part in parts):
        raise ValueError(
            f"{path} calls a pair '{name}': no part of a name may start with '.' or end in {', '.join(RESERVED)}."
        )
    return "/".join(parts)
