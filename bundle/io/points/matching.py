"""Which landmark of one image is which of another: by their labels, or by their order."""

import re
from collections.abc import Sequence

from bundle.io.points.pointfile import PointFile

__all__ = ["match"]

NUMBERED = re.compile(r"(.*)-(\d+)")
"""A label that Slicer gave: the name of the list, and a number."""


def match(points: PointFile, others: PointFile) -> tuple[list[int], list[int]]:
    """Find the landmarks that two files have in common.

    Where every point of both has a label of its own, points of one label are the same landmark; of labels that Slicer
    numbered ("F-1" of the list "F"), the number counts. Otherwise it is told by the order, points without a position
    counted.

    Args:
        points: of one image.
        others: of the other image.

    Returns:
        The same landmarks, as indices of ``points.points_mm`` and of ``others.points_mm``.

    Raises:
        ValueError: no landmark in common; or, told by the order, another number of points or other labels.
    """
    first, second = _distinct(points.labels), _distinct(others.labels)
    if not (first and second):
        _check_order(points, others)
        first, second = points.ranks, others.ranks
    elif not {*points.labels} & {*others.labels}:
        first, second = _numbers(first), _numbers(second)
    place = {label: index for index, label in enumerate(second)}
    common = [index for index, label in enumerate(first) if label in place]
    if not common:
        raise ValueError(
            f"The points ({points.path}) and the reference ({others.path}) have no landmark in common: give the same "
            "landmarks the same labels."
        )
    return common, [place[first[index]] for index in common]


def _distinct(labels: list[str]) -> Sequence[object]:
    """The labels if they tell the points apart; nothing otherwise."""
    return labels if all(labels) and len({*labels}) == len(labels) else []


def _numbers(labels: Sequence[object]) -> Sequence[object]:
    """The numbers of labels that Slicer gave to one list; other labels as they are."""
    found = [NUMBERED.fullmatch(str(label)) for label in labels]
    if all(found) and len({one[1] for one in found if one}) == 1:
        return [int(one[2]) for one in found if one]
    return labels


def _check_order(points: PointFile, others: PointFile) -> None:
    """Refuse files whose order cannot tell which landmark is which."""
    if points.count != others.count:
        raise ValueError(
            f"The reference ({others.path}) holds {others.count} points, the points ({points.path}) hold "
            f"{points.count}: give the same landmarks in the same order, or each a label of its own."
        )
    second = dict(zip(others.ranks, others.labels))
    for rank, label in zip(points.ranks, points.labels):
        if label and second.get(rank) and label != second[rank]:
            raise ValueError(
                f"Point {rank + 1} is called '{label}' in {points.path} and '{second[rank]}' in {others.path}: give "
                "the same landmarks in the same order, or each a label of its own."
            )
