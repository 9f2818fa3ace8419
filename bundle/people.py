"""Who is on images, as far as their names tell: a person is trained on or validated on, never both."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["by_person", "several_each"]

MOST_KINDS = 8
BIDS = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)")
KINDS = (
    r"t1w?|t2w?|t1(?:ce|c|gd|n)|t2(?:f|star)|flair|pdw?|swi|dwi|adc|dti|bold|mp2?rage|mra?\d*|mri|cta?|cbct|pet|"
    r"baseline|follow-?up|pre|post"
)
VISITS = r"(?:ses|session|visit|tp|timepoint|run|acq|frame|phase)[-_]?\d+"
ASIDE = re.compile(rf"(?<![^\W_])(?:{KINDS}|{VISITS})(?![^\W_])")
CHANNEL = re.compile(r"(?<=\d{3})_000\d$")  # nnU-Net's and Learn2Reg's, after the number of a case
ENDING = re.compile(r"\.(nii|nii\.gz|nrrd|mha|mhd)$")


def by_person(paths: Sequence[str]) -> list[list[int]]:
    """Group images by the person on them.

    A person is the subject of BIDS (``sub-…``), else what is left of an image's place below the folder that holds all
    of them without the words of visits and of kinds of images: ``ses-1``, ``T1``, nnU-Net's channel, and a last word of
    letters that ends several images of one name. Two people of one name in different folders may count as one: they
    then stay together, which does no harm. Where all would be one person, the names tell nothing.

    Args:
        paths: of the images.

    Returns:
        Positions in the list, of each person those of all images, in the order of the first ones.

    Example:
        >>> by_person(["a/s1_T1.nii", "a/s2_T1.nii", "a/s1_T2.nii"])
        [[0, 2], [1]]
        >>> by_person(["sub-1/ses-1/sub-1_ses-1_T1w.nii", "sub-2/ses-1/sub-2_ses-1_T1w.nii", "sub-1/ses-2/T1w.nii"])
        [[0, 2], [1]]
    """
    root = os.path.commonpath([os.path.dirname(path) or "." for path in paths]) if paths else "."
    places = [ENDING.sub("", Path(os.path.relpath(path, root)).as_posix()) for path in paths]
    words = [re.findall(r"[^\W_]+", ASIDE.sub(" ", CHANNEL.sub("", place.lower()))) for place in places]
    ends = [("_".join(some[:-1]), some[-1]) if len(some) > 1 else ("", "") for some in words]
    kinds = _recurring(ends)
    people: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        subjects = BIDS.findall(place)
        name = ends[i][0] if ends[i][1] in kinds else "_".join(words[i])
        people.setdefault(subjects[-1] if subjects else name or place, []).append(i)
    return [*people.values()] if len(people) > 1 else [[i] for i in range(len(paths))]


def _recurring(ends: Sequence[tuple[str, str]]) -> set[str]:
    """Find the last words that tell kinds of images, ``left`` and ``right`` say: a subject has several, and they recur.

    Args:
        ends: of each image what its name begins with, and its last word.
    """
    named = [(subject, kind) for subject, kind in ends if kind.isalpha() and len(kind) > 1]
    kinds, subjects = Counter(kind for _, kind in named), Counter(subject for subject, _ in {*named})
    recur = 1 < len(kinds) <= MOST_KINDS and max(subjects.values()) > 1 and max(kinds.values()) > 1
    return {*kinds} if recur else set()


def several_each(paths: Sequence[str], people: Sequence[Sequence[int]]) -> str:
    """Say how many people are on images, and give an example; empty where each person has one image.

    Example:
        >>> paths = ["s1_T1.nii", "s2_T1.nii", "s1_T2.nii"]
        >>> several_each(paths, by_person(paths))
        '3 images are of 2 people, as their names tell (s1_T1.nii and s1_T2.nii of one)'
    """
    if len(people) == len(paths):
        return ""
    one = " and ".join(Path(paths[i]).name for i in next(some for some in people if len(some) > 1)[:2])
    return f"{len(paths)} images are of {len(people)} people, as their names tell ({one} of one)"
