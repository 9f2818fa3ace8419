"""Folders of images without a list: which files are images, and which are label maps of these."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
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
ASIDE = {"aparc"}  # in names of label maps, FreeSurfer's parcellation
DERIVATIVES = "derivatives"  # BIDS: what programs have made of the images
CHOOSE = "--pattern takes one kind of images, and a label map named as its image is, with _seg behind, goes first"
FEWEST_SHOWN, MOST_KINDS = 3, 8

Key = tuple[tuple[str, ...], tuple[str, ...]]


class _File(NamedTuple):
    """A file of a folder: its path, the words of its folders and of its name, and those that tell of a label map.

    The name's parts are what hyphens and the like part, without those that tell of a label map or an image.
    """

    path: Path
    place: str
    key: Key
    telling: tuple[str, ...]
    parts: tuple[str, ...]


class _Labels(NamedTuple):
    """The label map of each image that has one; those of which several are as good, and those that others go before."""

    found: dict[_File, _File]
    unclear: list[_File]
    passed: list[_File]


def sort_folder(source: Path, pattern: str | None = None) -> list[Item]:
    """List the images of a folder, each with its label map where there is one, and say what is taken and what is not.

    A file or a folder tells by a word of its name, ``labels``, ``seg`` or ``mask`` say, that it holds no images. Such a
    file is the label map of the image whose name and place are the same but for these words, or which alone has words
    of its kind beside (``sub-01_dseg`` of ``sub-01_T1w``, ``labels/c0`` of ``T1/c0``); a segmentation goes before a
    mask. It is left out where there is no such image, or two of them; so are ``derivatives`` (BIDS).

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
    labels = _paired(images, maps)
    told = {*labels.found.values(), *labels.unclear, *labels.passed}
    unread = sorted(filter(_is_unread, visible))
    dicom = [path for path in unread if _is_dicom(path)]
    left = {
        "derivatives": made,
        "label maps or masks of no image that is taken": [f for f in maps if f not in told],
        "label maps or masks that others go before": labels.passed,
        f"label maps that are not the only ones of an image, or not of one alone: {CHOOSE}": labels.unclear,
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
    taken = f"{len(images)} images ({_first(images)}){_told(labels.found)}"
    print(f"{source}: {taken}{f'; left out: {said}' if said else ''}{f'. {OF_DICOM}' if dicom else ''}")  # noqa: T201
    _tell_kinds(source, images)
    found = [(image, labels.found.get(image)) for image in images]
    return [{"image": str(i.path)} | ({"label": str(label.path)} if label else {}) for i, label in found]


def _described(path: Path, root: Path) -> _File:
    """Take a file's place apart, into what it shares with the label map or the image that belongs to it."""
    place = path.relative_to(root)
    channel = r"(?<=.)_0000$"  # nnU-Net's
    stem = re.sub(channel, "", _stem(path))
    *folders, name = [_words(part) for part in (*place.parts[:-1], stem)]
    telling = tuple(word for words in (*folders, name) for word in words if tells_of_file(word))
    plain = [tuple(w for w in words if not tells_of_file(w) and w not in IMAGE_WORDS) for words in (*folders, name)]
    parts = [part for part in re.findall(r"[^\W_]+", stem.lower()) if part not in IMAGE_WORDS]
    apart = tuple(
        part for part in parts if not any(map(tells_of_file, _words(part))) and not (telling and part in ASIDE)
    )
    key = tuple("_".join(words) for words in plain[:-1] if words), plain[-1]
    return _File(path, place.as_posix(), key, telling, apart)


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


def _paired(images: Sequence[_File], maps: Sequence[_File]) -> _Labels:
    """Find each image's label map: of its name, or else of what its name begins with, if that is so of no other image.

    Raises:
        ValueError: an image has several of its name that are as good, or one has the name of several images.
    """
    named, begun = _grouped(images)
    own: dict[_File, list[_File]] = {}
    near: dict[_File, list[_File]] = {}
    labels = _Labels({}, [], [])
    for one in maps:
        of = named.get(one.key, []) if one.key[1] else []
        if len(of) > 1:
            raise ValueError(f"{one.path} may be the label map of {_first(of)}: name one of them otherwise.")
        may_be = of or [i for i in begun.get(one.parts, []) if _is_beside(one, i)]
        if len(may_be) == 1:
            (own if of else near).setdefault(may_be[0], []).append(one)
        elif may_be:
            labels.unclear.append(one)
    for image in [i for i in images if i in own or i in near]:
        several = [*own.get(image, []), *near.get(image, [])]
        best = _best(own.get(image, []), near.get(image, []))
        if len(best) == 1:
            labels.found[image] = best[0]
        elif best[0] in own.get(image, []):
            raise ValueError(f"{image.path} may have several label maps ({_first(best)}): leave one of them there.")
        else:
            labels.unclear.extend(best)
        labels.passed.extend(one for one in several if one not in best)
    return labels


def _best(own: Sequence[_File], near: Sequence[_File]) -> list[_File]:
    """Choose among an image's label maps: segmentations before masks, and those of its own name before others."""
    masks = {m for m in (*own, *near) if any("mask" in word for word in m.telling)}
    ranked = [[m for m in some if (m in masks) == mask] for mask in (False, True) for some in (own, near)]
    return next(some for some in ranked if some)


def _grouped(images: Sequence[_File]) -> tuple[dict[Key, list[_File]], dict[tuple[str, ...], list[_File]]]:
    """Group images by their names, and by all that these begin with."""
    named: dict[Key, list[_File]] = {}
    begun: dict[tuple[str, ...], list[_File]] = {}
    for image in images:
        named.setdefault(image.key, []).append(image)
        for count in range(len(image.parts) + 1):
            begun.setdefault(image.parts[:count], []).append(image)
    return named, begun


def _is_beside(one: _File, image: _File) -> bool:
    """Tell whether a label map may be of an image whose name begins as its own: by the folders, and by what is left.

    One that is named by nothing but what it is must lie in the image's folder; a number that is left tells of another.
    """
    if not one.parts or (DERIVATIVES in image.key[0] and DERIVATIVES not in one.key[0]):
        return one.key[0] == image.key[0]
    left = image.parts[len(one.parts) :]
    return {*one.key[0]} <= {*image.key[0]} and not (left and left[0].isdigit())


def _told(labels: Mapping[_File, _File]) -> str:
    """Say how many images have a label map, and which the first of them has."""
    image, label = next(iter(labels.items()), (None, None))
    return f", {len(labels)} with a label map ({label.place} of {image.place})" if image and label else ""


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
