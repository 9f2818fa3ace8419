"""Folders of images without a list: which files are images, and which are label maps of these."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from bundle.keys import tells_of_file
from bundle.listing import IMAGE_SUFFIXES, is_listed, visible_images
from bundle.transforms.reading import OF_DICOM

__all__ = ["sort_folder"]

Item = dict[str, Any]
UNREAD_SUFFIXES = (".mgz", ".mgh", ".img", ".img.gz", ".nhdr")  # images of other formats
IMAGE_WORDS = {"image", "images", "imagestr", "img", "imgs", "imaging"}  # in names, beside labels of one name
DERIVATIVES = "derivatives"  # BIDS: what programs have made of the images
FEWEST_SHOWN, MOST_KINDS = 3, 8

Key = tuple[tuple[str, ...], tuple[str, ...]]


class _File(NamedTuple):
    """A file of a folder: its path, the words of its folders and of its name, and those that tell of a label map."""

    path: Path
    place: str
    key: Key
    telling: tuple[str, ...]


def sort_folder(source: Path, pattern: str | None = None) -> list[Item]:
    """List the images of a folder, each with its label map where there is one, and say what is taken and what is not.

    A file or a folder tells by a word of its name, ``labels``, ``seg`` or ``mask`` say, that it holds no images. Such a
    file is the label map of the image whose name and place are the same but for these words, and is left out where
    there is none; so are ``derivatives`` (BIDS).

    Args:
        source: the folder, searched with all that is in it, hidden files and folders left out.
        pattern: of the names of the images, or of their paths in the folder if it has a slash: ``*_T1w.nii.gz``. One
            that itself names derivatives or label maps takes these for images. None for all.

    Returns:
        Items with ``image`` and ``label``, absolute paths, in the order of the images' paths.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: there are fewer than two images, or a label map may belong to several or an image have several.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}.")
    root = source.absolute()
    visible = [p for p in root.rglob("*") if all(map(is_listed, p.relative_to(root).parts))]
    files = [_described(path, root) for path in visible_images(visible)]
    made = [f for f in files if DERIVATIVES in f.place.split("/") and DERIVATIVES not in (pattern or "")]
    files = [f for f in files if f not in made]
    wanted = pattern is not None and any(map(tells_of_file, _words(pattern)))
    maps = [f for f in files if f.telling and not (wanted and _matches(f, pattern))]
    images = [f for f in files if f not in maps and _matches(f, pattern)]
    others = [f for f in files if f not in maps and f not in images]
    labels = _paired(images, maps, others)
    alone = [f for f in maps if f not in labels.values()]
    unread = sorted(filter(_is_unread, visible))
    dicom = [path for path in unread if _is_dicom(path)]
    left = {
        "derivatives": made,
        "label maps or masks of no image that is taken": alone,
        "not of the pattern": others,
        "formats that are not read here": [_described(path, root) for path in unread],
    }
    said = "; ".join(f"{len(some)} {why} ({_first(some)})" for why, some in left.items() if some)
    if len(images) < 2:
        raise ValueError(
            f"{source} holds {len(images)} images ({', '.join(IMAGE_SUFFIXES)}): registration takes two."
            f"{f' Left out: {said}.' if said else ''}{' --pattern says which files are images.' if files else ''}"
            f"{f' {OF_DICOM}' if dicom else ''}"
        )
    taken = f"{len(images)} images ({_first(images)}){f', {len(labels)} with a label map' if labels else ''}"
    print(f"{source}: {taken}{f'; left out: {said}' if said else ''}{f'. {OF_DICOM}' if dicom else ''}")  # noqa: T201
    _tell_kinds(source, images)
    found = [(image, labels.get(image)) for image in images]
    return [{"image": str(i.path)} | ({"label": str(label.path)} if label else {}) for i, label in found]


def _described(path: Path, root: Path) -> _File:
    """Take a file's place apart, into what it shares with the label map or the image that belongs to it."""
    place = path.relative_to(root)
    channel = r"(?<=.)_0000$"  # nnU-Net's
    *folders, name = [_words(part) for part in (*place.parts[:-1], re.sub(channel, "", _stem(path)))]
    telling = tuple(word for words in (*folders, name) for word in words if tells_of_file(word))
    plain = [tuple(w for w in words if not tells_of_file(w) and w not in IMAGE_WORDS) for words in (*folders, name)]
    return _File(path, place.as_posix(), (tuple("_".join(words) for words in plain[:-1] if words), plain[-1]), telling)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+", name.lower())


def _stem(path: Path) -> str:
    return path.name.removesuffix(max((e for e in IMAGE_SUFFIXES if path.name.endswith(e)), key=len, default=""))


def _matches(file: _File, pattern: str | None) -> bool:
    return pattern is None or fnmatchcase(file.place if "/" in pattern else file.path.name, pattern)


def _is_unread(path: Path) -> bool:
    return path.is_file() and (path.name.lower().endswith(UNREAD_SUFFIXES) or _is_dicom(path))


def _is_dicom(path: Path) -> bool:
    """Tell a file of DICOM by its ending; one that has none, or a number of its UID for one, by what it begins with."""
    if re.search("[A-Za-z]", path.suffix):
        return path.suffix.lower() == ".dcm"
    with suppress(OSError), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
    return False


def _paired(images: Sequence[_File], maps: Sequence[_File], others: Sequence[_File]) -> dict[_File, _File]:
    """Find each image's label map: of its name, or named by nothing but what it is, beside an image alone.

    Raises:
        ValueError: an image has several, of which not one alone is no mask, or a label map may be of several images.
    """
    named, beside = _grouped(images, whole=True), _grouped([*images, *others], whole=False)
    found: dict[_File, list[_File]] = {}
    for one in maps:
        near = beside.get((one.key[0], ()), [])
        of = named.get(one.key, []) if one.key[1] else [i for i in near if i in images and len(near) == 1]
        if len(of) > 1:
            raise ValueError(f"{one.path} may be the label map of {_first(of)}: name one of them otherwise.")
        for image in of:
            found.setdefault(image, []).append(one)
    for image, several in found.items():
        segmented = [m for m in several if not any("mask" in word for word in m.telling)]
        if len(several) > 1 and len(segmented) != 1:
            raise ValueError(f"{image.path} may have several label maps ({_first(several)}): leave one of them there.")
        found[image] = segmented or several
    return {image: several[0] for image, several in found.items()}


def _grouped(files: Sequence[_File], whole: bool) -> dict[Key, list[_File]]:
    """Group files by their folder, and with ``whole`` by their name, too."""
    groups: dict[Key, list[_File]] = {}
    for file in files:
        groups.setdefault(file.key if whole else (file.key[0], ()), []).append(file)
    return groups


def _first(files: Sequence[_File]) -> str:
    return ", ".join(f.place for f in files[:FEWEST_SHOWN]) + (", …" if len(files) > FEWEST_SHOWN else "")


def _tell_kinds(source: Path, images: Sequence[_File]) -> None:
    """Say where a subject has images of several kinds: T1w and bold, say, which end their names."""
    parts = [_stem(file.path).split("_") for file in images]
    named = [(words[0], words[-1]) for words in parts if len(words) > 1 and re.search("[A-Za-z]", words[-1])]
    kinds, subjects = Counter(kind for _, kind in named), Counter(subject for subject, _ in {*named})
    bids = all(words[0].startswith("sub-") for words in parts)
    if 1 < len(kinds) <= MOST_KINDS and max(subjects.values()) > 1 and (bids or max(kinds.values()) > 1):
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        print(  # noqa: T201
            f"{source} holds several kinds of images ({listed}), all of which are taken: "
            f"--pattern '*_{next(iter(kinds))}.*' takes one kind alone"
        )
