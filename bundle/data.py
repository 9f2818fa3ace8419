"""Data sets of images, and the pairs drawn from them: images are cached once, pairs never."""

import csv
import json
import random
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from bundle.phantom import write_phantoms
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Randomizable

__all__ = ["PairDataset", "common_size", "draw_pairs", "open_dataset", "read_pairs", "read_split", "region_names"]

Item = dict[str, Any]
SPLITS = ("training", "validation", "test")
PAIR_KEYS = ("moving", "fixed", "moving_label", "fixed_label", "moving_mask", "fixed_mask")


def open_dataset(dataset_dir: str | Sequence[str], split: str, phantom_dir: str | None = None) -> list[Item]:
    """List the images of one split of a data set.

    ``dataset.json`` is in the style of the Medical Segmentation Decathlon: ``training``, ``validation`` and ``test``
    list items with ``image`` and, optionally, ``label``, paths relative to the file; or explicit pairs, items with
    ``moving``, ``fixed`` and optionally ``moving_label`` and ``fixed_label``.

    Args:
        dataset_dir: the folder that holds ``dataset.json``; several folders make one list, pairs stay within a folder.
        split: ``"training"``, ``"validation"`` or ``"test"``.
        phantom_dir: where the default data set of synthetic heads lives: made on the spot if ``dataset_dir`` names
            this folder and it is not there yet.

    Returns:
        One dict an item, its paths made absolute, and ``dataset`` naming the folder it came from.

    Raises:
        FileNotFoundError: no ``dataset.json``, or a file it lists is missing.
        ValueError: the file is not JSON of that form, or the split is empty.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    items: list[Item] = []
    for folder in map(Path, folders):
        if phantom_dir and folder == Path(phantom_dir) and not (folder / "dataset.json").exists():
            write_phantoms(folder)
        items += read_split(folder, split)
    if not items:
        raise ValueError(f"The split '{split}' of {dataset_dir} is empty: list images in its dataset.json.")
    return items


def read_split(folder: Path, split: str) -> list[Item]:
    """List one split of one folder as ``open_dataset`` does; it may be empty."""
    listing = folder / "dataset.json"
    if not listing.is_file():
        raise FileNotFoundError(f"There is no {listing}: name the folder of a data set, or make one with 'prepare'.")
    try:
        entries = json.loads(listing.read_text()).get(split, [])
        items = [
            {k: str(folder.absolute() / v) if isinstance(v, str) else v for k, v in e.items()}
            | {"dataset": str(folder)}
            for e in ({"image": e} if isinstance(e, str) else e for e in entries)
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{listing} is not a data set listing in the style of the Medical Decathlon.") from error
    for item in items:
        if not ("image" in item or {"moving", "fixed"} <= item.keys()):
            raise ValueError(f"An item of '{split}' in {listing} has neither an image nor a moving and a fixed one.")
        missing = [v for k, v in item.items() if k in ("image", "label", *PAIR_KEYS) and not Path(str(v)).is_file()]
        if missing:
            raise FileNotFoundError(f"{listing} lists {missing[0]}, which does not exist.")
    return items


def read_pairs(pairs_file: str) -> list[Item]:
    """List the pairs of a table, for ``configs/batch_inference.json``.

    The files are not looked for: a pair whose image is missing is that pair's own failure.

    Args:
        pairs_file: CSV with a header, or JSON with a list of objects: ``moving`` and ``fixed``; optionally labels,
            masks, ``initial_transform`` and a ``name`` each its own. Paths are relative to the file.

    Returns:
        As ``draw_pairs`` has it, with the names given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a table of that form, or a name stands twice.
    """
    path = Path(pairs_file).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"The list of pairs ({path}) does not exist.")
    try:
        with path.open(newline="") as file:
            rows = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
        given = [{k: v for k, v in row.items() if v} for row in rows]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no list of pairs: give CSV with a header, or a JSON list of objects.") from error
    for number, row in enumerate(given, 1):
        if not {"moving", "fixed"} <= row.keys() or not all(isinstance(v, str) for v in row.values()):
            raise ValueError(f"Row {number} of {path} needs a moving and a fixed image, paths as text.")
    files = (*PAIR_KEYS, "initial_transform")
    items = [{k: str(path.parent / v) if k in files else v for k, v in row.items()} for row in given]
    pairs = [pair | {"name": item.get("name", pair["name"])} for item, pair in zip(items, draw_pairs(items))]
    names = [pair["name"] for pair in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two pairs of {path} are called '{twice[0]}': give each a name of its own.")
    return pairs


def region_names(dataset_dir: str | Sequence[str]) -> dict[int, str]:
    """Look up what the labels of a data set are called: ``labels`` of its ``dataset.json``, by number.

    Args:
        dataset_dir: as for ``open_dataset``.

    Returns:
        Names by label, without the background; empty where the data set names none.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    names: dict[int, str] = {}
    for folder in folders:
        labels = json.loads((Path(folder) / "dataset.json").read_text()).get("labels", {})
        names |= {int(label): str(name) for label, name in labels.items() if int(label) > 0}
    return names


def draw_pairs(items: Sequence[Item], count: int | None = None, seed: int = 0) -> list[Item]:
    """Turn images into ordered pairs of distinct images of one data set.

    Args:
        items: from ``open_dataset``; explicit pairs among them are kept as they are.
        count: how many to draw without repetition, seeded; None or more than there are: all, in order.
        seed: of the draw.

    Returns:
        Items with ``moving``, ``fixed``, the labels there are, and ``name``: ``<moving>_to_<fixed>``, each its own.

    Raises:
        ValueError: there are no two images to pair.
    """
    pairs = [item for item in items if "moving" in item]
    images = [item for item in items if "image" in item]
    for moving in images:
        for fixed in images:
            if moving is not fixed and moving.get("dataset") == fixed.get("dataset"):
                pair = {"moving": moving["image"], "fixed": fixed["image"]}
                pair |= {f"{k}_label": v["label"] for k, v in (("moving", moving), ("fixed", fixed)) if "label" in v}
                pairs.append(pair)
    if not pairs:
        raise ValueError(f"A pair takes two images, the list has {len(images)}.")
    if count is not None and count < len(pairs):
        pairs = random.Random(seed).sample(pairs, count)
    names = [f"{_stem(pair['moving'])}_to_{_stem(pair['fixed'])}" for pair in pairs]
    if len(set(names)) < len(names):  # files of one name in different folders: number the pairs
        names = [f"{i:04d}_{name}" for i, name in enumerate(names)]
    return [{k: v for k, v in p.items() if k != "dataset"} | {"name": name} for p, name in zip(pairs, names)]


def _stem(path: str) -> str:
    return Path(path).name.split(".")[0]


def common_size(items: Sequence[Item], multiple: int = 16) -> list[int]:
    """Find the smallest grid that holds every image, in RAS order, sides a multiple of ``multiple``.

    Args:
        items: from ``open_dataset``.
        multiple: of the sides; PAN halves the size four times, hence 16.

    Returns:
        Three sides in voxels.

    Raises:
        ValueError: the spacings of one data set differ by more than 1 %, so the images do not share a grid.
    """
    sizes: list[np.ndarray] = []
    spacings: dict[str | None, np.ndarray] = {}
    for item in items:
        for path in (item[k] for k in ("image", "moving", "fixed") if k in item):
            image = nibabel.load(path)
            axes = nibabel.io_orientation(image.affine)[:, 0].astype(int)
            order = np.argsort(axes)
            sizes.append(np.array(image.shape[:3])[order])
            spacing = np.array(image.header.get_zooms()[:3])[order]
            first = spacings.setdefault(item.get("dataset"), spacing)
            if not np.allclose(spacing, first, rtol=0.01):
                raise ValueError(
                    f"{path} has a spacing of {spacing} mm, another image of its data set {first} mm: bring them onto "
                    "one grid with 'python -m bundle prepare'."
                )
    return [int(-(-n // multiple) * multiple) for n in np.max(sizes, 0)]


class PairDataset(torch.utils.data.Dataset[dict[Hashable, Any]], Randomizable):
    """Pairs over cached images.

    ``data`` holds images (``image``, ``label``): then item *i* takes image *i* as the fixed one and draws another of
    the same data set as the moving one, anew each time. Or it holds explicit pairs. Either way every image is read
    and transformed once.

    Args:
        data: items of ``open_dataset`` or ``draw_pairs``.
        transform: deterministic, on ``image`` and ``label`` of one image; its result is cached.
        pair_transform: on ``moving``, ``fixed``, ``moving_label`` and ``fixed_label``; random ones move both alike.
        repeats: how often an epoch visits every fixed image.
        cache_rate: share of the images to keep in memory.
        num_workers: threads that fill the cache.
        progress: whether filling the cache shows a progress bar.

    Raises:
        ValueError: images and pairs are mixed, or there is only one image of a data set.
    """

    def __init__(
        self,
        data: Sequence[Item],
        transform: Callable[..., Any],
        pair_transform: Callable[..., Any] | None = None,
        repeats: int = 1,
        cache_rate: float = 1.0,
        num_workers: int = 1,
        progress: bool = True,
    ) -> None:
        self.data = list(data)
        self.explicit = all("moving" in item for item in self.data)
        if not self.explicit and any("moving" in item for item in self.data):
            raise ValueError("A split must list images or pairs, not both.")
        self.pair_transform = pair_transform
        self.repeats = repeats
        images = _images_of_pairs(self.data) if self.explicit else self.data
        self.index = {item["image"]: i for i, item in enumerate(images)}
        self.groups: dict[str | None, list[int]] = {}
        for i, item in enumerate(images):
            self.groups.setdefault(item.get("dataset"), []).append(i)
        if not self.explicit and min(len(group) for group in self.groups.values()) < 2:
            raise ValueError("A pair takes two images of one data set, but one set lists a single image.")
        self.images = CacheDataset(
            images, transform, cache_rate=cache_rate, num_workers=num_workers, progress=progress, copy_cache=False
        )

    def __len__(self) -> int:
        return len(self.data) * self.repeats

    def __getitem__(self, index: int) -> Any:
        item = self.data[index % len(self.data)]
        if self.explicit:
            fixed, moving = self.index[item["fixed"]], self.index[item["moving"]]
        else:
            fixed = index % len(self.data)
            others = [i for i in self.groups[item.get("dataset")] if i != fixed]
            moving = others[self.R.randint(len(others))]
        pair: Item = {}
        for role, image in (("moving", self.images[moving]), ("fixed", self.images[fixed])):
            # as plain tensors: nothing that follows may write into the cached image's own metadata
            keys = {"image": role, "label": f"{role}_label"}
            pair |= {name: _plain(image[key]) for key, name in keys.items() if key in image}
        # never "if self.pair_transform": asking a Compose for its truth reseeds its random transforms (MONAI 1.6)
        return pair if self.pair_transform is None else self.pair_transform(pair)


def _plain(value: Any) -> Any:
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def _images_of_pairs(pairs: Sequence[Item]) -> list[Item]:
    """List every image of explicit pairs once."""
    images: dict[str, Item] = {}
    for pair in pairs:
        for role in ("moving", "fixed"):
            image = images.setdefault(pair[role], {"image": pair[role]})
            if f"{role}_label" in pair:
                image["label"] = pair[f"{role}_label"]
    return list(images.values())
