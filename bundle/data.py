"""Data sets of images, and the pairs drawn from them: images are cached once, pairs never."""

from collections.abc import Callable, Hashable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import torch.distributed as dist
from bundle.io.labels import compact
from bundle.labels import EXACT, numbered_alike
from bundle.listing import SPLITS, open_dataset, read_split, region_names
from bundle.pairs import draw_pairs, read_pairs, refuse_unread
from bundle.progress import Progress
from bundle.spatial import ras_from_lps
from bundle.spatial.grid import MULTIPLE
from bundle.transforms import read_grid
from monai.data import CacheDataset, DistributedSampler, MetaTensor
from monai.transforms import Randomizable
from monai.utils import MAX_SEED
from torch.utils.data import Sampler, SequentialSampler

__all__ = [
    "SPLITS",
    "PairDataset",
    "common_size",
    "draw_pairs",
    "open_dataset",
    "pair_sampler",
    "read_pairs",
    "read_split",
    "region_names",
    "voxel_sizes",
]

Item = dict[str, Any]


def common_size(items: Sequence[Item], multiple: int = MULTIPLE) -> list[int]:
    """Find the smallest grid that holds every image, in RAS order, sides a multiple of ``multiple``.

    Args:
        items: from ``open_dataset``.
        multiple: of the sides; by default as the network takes them.

    Returns:
        Three sides in voxels.

    Raises:
        ValueError: the spacings of one data set differ by more than 1 %, so the images do not share a grid.
    """
    sizes: list[np.ndarray] = []
    spacings: dict[str | None, np.ndarray] = {}
    for item in items:
        for path in (item[k] for k in ("image", "moving", "fixed") if k in item):
            size, spacing = _along_body(path)
            sizes.append(size)
            first = spacings.setdefault(item.get("dataset"), spacing)
            if not np.allclose(spacing, first, rtol=0.01):
                raise ValueError(
                    f"{path} has a spacing of {spacing} mm, another image of its data set {first} mm: bring them onto "
                    "one grid with 'python -m bundle prepare'."
                )
    return [int(-(-n // multiple) * multiple) for n in np.max(sizes, 0)]


def voxel_sizes(items: Sequence[Item]) -> list[list[float]]:
    """Find the voxel size of each data set, by its first image: ``common_size`` has the others agree.

    Args:
        items: from ``open_dataset``.

    Returns:
        Three sides in mm each, in RAS order.
    """
    first = {item.get("dataset"): item["image" if "image" in item else "fixed"] for item in reversed(items)}
    return [[float(side) for side in _along_body(path)[1]] for path in first.values()]


def _along_body(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the shape of an image's grid and its spacing in mm, in RAS order."""
    grid, _ = read_grid(Path(path), "image")
    order = np.argsort(nibabel.io_orientation(ras_from_lps(grid.affine))[:, 0])
    return np.array(grid.shape)[order], grid.spacing_mm[order]


class _ImageCache(CacheDataset):
    """MONAI's ``CacheDataset``, none of whose threads is still reading when an error leaves it.

    MONAI 1.6 leaves its threads to themselves then; a process that ends while one is inside torch is aborted.
    """

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        chosen = range(self.cache_num) if indices is None else indices
        with ThreadPoolExecutor(self.num_workers) as pool:  # waits for its threads, and starts nothing after an error
            loaded = pool.map(self._load_cache_item, chosen)
            return list(Progress(loaded, len(chosen), title="loading", unit="image") if self.progress else loaded)


class PairDataset(torch.utils.data.Dataset[dict[Hashable, Any]], Randomizable):
    """Pairs over cached images.

    ``data`` holds images (``image``, ``label``): then item *i* takes image *i* as the fixed one and draws another of
    the same data set as the moving one, anew each time. Or it holds explicit pairs. Either way every image is read and
    transformed once, with each label map that pairs list it with. Where some images have labels, those of the others
    are 0: all pairs of a batch have the same keys, and a loss finds both label maps or none. A pair with labels too
    large for float32 has its labels numbered from 0 up, in both images alike: random transforms would merge neighbours.

    Args:
        data: items of ``open_dataset`` or ``draw_pairs``.
        transform: deterministic, on ``image`` and ``label`` of one image; its result is cached.
        pair_transform: on ``moving``, ``fixed``, ``moving_label`` and ``fixed_label``; random ones move both alike.
        repeats: how often an epoch visits every fixed image.
        cache_rate: share of the images to keep in memory.
        num_workers: threads that fill the cache.
        progress: whether filling the cache shows a progress bar.

    Raises:
        ValueError: images and pairs are mixed, there is only one image of a data set, or a pair has masks or an
            alignment of its own.
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
        refuse_unread(self.data, "Training reads images and labels alone, but a pair")
        self.pair_transform = pair_transform
        self.repeats = repeats
        images = _images_of_pairs(self.data) if self.explicit else self.data
        self.index = {(item["image"], item.get("label")): i for i, item in enumerate(images)}
        self.labelled = any("label" in image for image in images)
        self.groups: dict[str | None, list[int]] = {}
        for i, item in enumerate(images):
            self.groups.setdefault(item.get("dataset"), []).append(i)
        if not self.explicit and min(len(group) for group in self.groups.values()) < 2:
            raise ValueError(f"A pair takes two images of one data set, but {_alone(self.groups)}: list more there.")
        self.images = _ImageCache(
            images, transform, cache_rate=cache_rate, num_workers=num_workers, progress=progress, copy_cache=False
        )

    def __len__(self) -> int:
        return len(self.data) * self.repeats

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "PairDataset":
        """Seed the draw of the moving images, and by it the random transforms of pairs.

        MONAI seeds a data set in each of a loader's workers by this method, and looks no further for what is random.

        Args:
            seed: from 0 up to 2³².
            state: to draw from instead.
        """
        super().set_random_state(seed, state)
        if isinstance(self.pair_transform, Randomizable):
            self.pair_transform.set_random_state(int(self.R.randint(MAX_SEED, dtype="uint32")))
        return self

    def __getitem__(self, index: int) -> Any:
        item = self.data[index % len(self.data)]
        if self.explicit:
            moving, fixed = (self.index[item[role], item.get(f"{role}_label")] for role in ("moving", "fixed"))
        else:
            fixed = index % len(self.data)
            others = [i for i in self.groups[item.get("dataset")] if i != fixed]
            moving = others[self.R.randint(len(others))]
        pair: Item = {}
        for role, image in (("moving", self.images[moving]), ("fixed", self.images[fixed])):
            # as plain tensors: nothing that follows may write into the cached image's own metadata
            keys = {"image": role, "label": f"{role}_label"}
            pair |= {name: _plain(image[key]) for key, name in keys.items() if key in image}
            if self.labelled and "label" not in image:
                pair[f"{role}_label"] = torch.zeros_like(pair[role], dtype=torch.uint8)
        pair |= _renumbered({key: pair[key] for key in ("moving_label", "fixed_label") if key in pair})
        # never "if self.pair_transform": asking a Compose for its truth reseeds its random transforms (MONAI 1.6)
        return pair if self.pair_transform is None else self.pair_transform(pair)


def pair_sampler(dataset: Sized) -> Sampler[int]:
    """Share pairs among processes, each pair to one of them; of fewer pairs than processes, all to each of them.

    Either way the mean over what all processes have measured counts every pair as often as any other.

    Args:
        dataset: the pairs, in their order.
    """
    if len(dataset) < dist.get_world_size():
        return SequentialSampler(dataset)
    return DistributedSampler(dataset, even_divisible=False, shuffle=False)


def _plain(value: Any) -> Any:
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def _alone(groups: dict[str | None, list[int]]) -> str:
    """Say which data set has an image alone."""
    folder = next(folder for folder, group in groups.items() if len(group) < 2)
    return f"the split of {folder} to train on has a single one" if folder else "one set lists a single image"


def _renumbered(labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Number the labels of a pair's maps in both alike if float32 would merge some: MONAI resamples them in it."""
    if all(volume.max() <= EXACT for volume in labels.values()):
        return labels
    return {key: compact(part) for key, part in zip(labels, numbered_alike([*labels.values()]))}


def _images_of_pairs(pairs: Sequence[Item]) -> list[Item]:
    """List every image of explicit pairs once with each label map that it has there, or with none."""
    sides = dict.fromkeys((pair[role], pair.get(f"{role}_label")) for pair in pairs for role in ("moving", "fixed"))
    return [{"image": image} if label is None else {"image": image, "label": label} for image, label in sides]
