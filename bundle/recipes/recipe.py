"""What a recipe is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

__all__ = ["Array", "Item", "Matrix", "Recipe", "tell_missing"]

Item = dict[str, Any]
Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """How one published data set becomes a data set of this bundle.

    Args:
        reference: where the data set is found.
        labels: names of its regions by label; in what ``read`` reads, every other label becomes background.
        find: the files of each split (``image`` and ``label`` of every subject) below the data set's folder.
        read: image, label map and RAS affine of one subject, where its files are no images with a header of their own.
        affine: pre-alignment, as for ``prepare``.
        spacing_mm: of the grid; the files' own by default.
        size: sides of the grid in voxels (RAS order); the files' own by default.
    """

    reference: str
    labels: Mapping[int, str]
    find: Callable[[Path], dict[str, list[Item]]]
    read: Callable[[Item], tuple[Array, Array, Matrix]] | None = None
    affine: str = "center"
    spacing_mm: float | None = None
    size: tuple[int, int, int] | None = None

    def open(self, item: Item) -> Item:
        """Read what only the recipe can: ``image`` and ``label`` as (1, H, W, L) with their affine, or the paths."""
        if self.read is None:
            return item
        image, label, affine = self.read(item)
        volumes = {"image": image, "label": np.where(np.isin(label, list(self.labels)), label, 0)}
        types = {"image": np.float32, "label": np.int64}
        return {
            key: MetaTensor(torch.from_numpy(array.astype(types[key]))[None], affine=torch.from_numpy(affine))
            for key, array in volumes.items()
        }


def tell_missing(source: Path, splits: Mapping[str, Sequence[Item]], published: Mapping[str, int]) -> None:
    """Say how many of the published subjects a folder lacks, after a download that broke off, say.

    Args:
        source: the data set's folder.
        splits: what was found there.
        published: how many subjects each split has.
    """
    missing = {split: count - len(splits[split]) for split, count in published.items() if len(splits[split]) < count}
    if missing:
        parts = ", ".join(f"{count} of {published[split]} for {split}" for split, count in missing.items())
        whole = sum(published.values())
        print(f"{source} lacks {sum(missing.values())} of the {whole} subjects published: {parts}.")  # noqa: T201
