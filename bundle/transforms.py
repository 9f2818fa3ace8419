"""Dictionary transforms that the configs name: reading with plain-spoken errors, matching two images, masking."""

import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.affine import ALIGNMENTS, align
from bundle.fields import warp
from bundle.io.itk import read_linear
from bundle.options import check_numbers
from bundle.spatial import Grid, Matrix, SpatialTransform, antialias, ras_from_lps
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    LoadImage,
    MapTransform,
    RandomizableTransform,
    ScaleIntensityRangePercentiles,
    Transform,
    generate_spatial_bounding_box,
)

__all__ = ["MatchPaird", "RandMaskd", "ReadVolumed", "WarpByPredictiond", "grid_of"]

Item = dict[Hashable, Any]

MARGIN_MM = 8.0
"""Of the network's grid around what the images show."""


class ReadVolumed(MapTransform):
    """Read images or label maps of three dimensions, channel first, and refuse what cannot be registered.

    A value that is a ``MetaTensor`` already, (1, H, W, L) with its RAS affine, is taken as it is: an application hands
    over volumes it has read itself.

    Args:
        keys: keys of paths or tensors; missing ones are passed over (labels and masks are optional).
        labels: the subset of ``keys`` that holds label maps or masks: whole numbers, any number of values.

    Raises:
        ValueError: unreadable, not one 3-D volume, not finite, an image without contrast, a label map with fractions.
        FileNotFoundError: no such file.
    """

    def __init__(self, keys: KeysCollection, labels: Sequence[str] = ()) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.labels = frozenset(labels)
        # MONAI tries ITK first, which takes seconds to load; other formats than NIfTI still reach it
        self.load = LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Read every key that is there, and note the ``seconds`` it took."""
        item, start = dict(data), time.perf_counter()
        for key in self.key_iterator(item):
            item[key] = read_volume(item[key], str(key), key in self.labels, self.load)
        item["seconds"] = {**item.get("seconds", {}), "read": time.perf_counter() - start}
        return item


def read_volume(source: Any, name: str, is_label: bool, load: LoadImage) -> MetaTensor:
    """Read and check one volume; ``name`` is what messages call it. See ``ReadVolumed``."""
    volume = source if isinstance(source, torch.Tensor) else read_file(Path(source), name, load)
    where = f"The {name.replace('_', ' ')} ({source})" if not isinstance(source, torch.Tensor) else f"The {name}"
    if volume.dim() != 4 or volume.shape[0] != 1 or min(volume.shape[1:]) < 2:
        sides = "×".join(str(n) for n in volume.shape[1:])
        raise ValueError(
            f"{where} is no single 3-D volume but {volume.shape[0]} channel(s) of {sides} voxels: extract one first."
        )
    if not torch.isfinite(volume).all():
        raise ValueError(f"{where} holds NaN or infinite values: replace them first.")
    if is_label and (volume < 0).any() | (volume != volume.round()).any():
        raise ValueError(f"{where} is no label map: it must hold whole numbers from 0 up.")
    if not is_label and volume.min() == volume.max():
        raise ValueError(f"{where} has the same value everywhere: there is nothing to align.")
    return volume


def read_file(path: Path, name: str, load: LoadImage) -> MetaTensor:
    """Load one file through MONAI's readers, in float32."""
    if path.is_dir() or path.suffix.lower() == ".dcm":
        raise ValueError(
            f"The {name.replace('_', ' ')} ({path}) is a folder or a DICOM file: DICOM series are registered by the "
            "application in deploy_app (python deploy_app -i IN -o OUT); give a NIfTI, NRRD or MHA file here."
        )
    if not path.is_file():
        raise FileNotFoundError(f"The {name.replace('_', ' ')} ({path}) does not exist.")
    try:
        return load(str(path))
    except Exception as error:  # each reader raises its own kinds for a broken file
        raise ValueError(
            f"The {name.replace('_', ' ')} ({path}) cannot be read as a NIfTI, NRRD or MHA image."
        ) from error


def grid_of(volume: MetaTensor) -> Grid:
    """Read where the voxels of a (C, H, W, L) tensor with a RAS affine are."""
    return Grid.from_ras(volume.shape[-3:], volume.affine.cpu().numpy())


class MatchPaird(Transform):
    """Bring any two images onto the grid that the network works on.

    Aligns the moving image to the fixed one, samples both on the fixed image's canonical (RAS) grid, optionally at the
    spacing that suits the weights, with some room around it, but no further than the images show anything, and scales
    the intensities between percentiles 0.5 and 99.5 to [0, 1].

    Reads ``moving`` and ``fixed``, (1, H, W, L) with RAS affines; optionally ``moving_mask`` and ``fixed_mask`` (blank
    the rest of their image) and ``initial_transform`` (path of a linear ITK transform, instead of the alignment).
    Adds ``image`` (2, H, W, L: moving, fixed) with the RAS affine of its grid, ``label`` (the fixed channel),
    ``alignment`` (4×4, mm, LPS, fixed to moving) and ``seconds``.

    Args:
        affine: pre-alignment: none (headers alone), center, rigid or affine.
        spacing_mm: isotropic spacing of the network's grid; None keeps the fixed image's.

    Raises:
        ValueError: labels or masks on another grid than their image, or images that share no physical space.
    """

    def __init__(self, affine: str = "affine", spacing_mm: float | None = None) -> None:
        if affine not in ALIGNMENTS:
            raise ValueError(f"The pre-alignment is one of {', '.join(ALIGNMENTS)}, not '{affine}'.")
        check_numbers(spacing_mm=spacing_mm)
        self.affine, self.spacing_mm = affine, spacing_mm
        self.normalise = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Match the pair."""
        item, start = dict(data), time.perf_counter()
        images = {role: self._masked(item, role) for role in ("moving", "fixed")}
        grids = {role: grid_of(item[role]) for role in images}
        matrix = self._align(item, images, grids)
        grid = self._grid(images, grids, matrix)
        channels = []
        for role, alignment in (("moving", matrix), ("fixed", None)):
            channels.append(self._on_grid(images[role], grids[role], grid, alignment))
        if channels[0].max() == channels[0].min():
            raise ValueError(
                "The images share no physical space: check their headers, or let --affine center, rigid or affine "
                "bring them together."
            )
        image = torch.cat([self.normalise(channel) for channel in channels]).as_subclass(torch.Tensor)
        item["image"] = MetaTensor(image, affine=torch.from_numpy(ras_from_lps(grid.affine)))
        item["label"] = image[1:]
        item["alignment"] = torch.from_numpy(matrix)
        item["seconds"] = {**item.get("seconds", {}), "align": time.perf_counter() - start}
        return item

    def _masked(self, item: Item, role: str) -> torch.Tensor:
        """Blank the image outside its mask, having checked that all that belongs to it lies on its grid."""
        image = item[role]
        for extra in (f"{role}_label", f"{role}_mask"):
            if extra in item and not grid_of(item[extra]).is_close(grid_of(image)):
                raise ValueError(
                    f"The {extra.replace('_', ' ')} has {tuple(item[extra].shape[1:])} voxels and its own position in "
                    f"space, the {role} image {tuple(image.shape[1:])}: resample one to the other's grid first."
                )
        plain: torch.Tensor = image.as_tensor().float()
        plain = plain - plain.min()  # what is blank, and beyond the border, is 0: not brighter than the air of a CT
        if f"{role}_mask" not in item:
            return plain
        masked: torch.Tensor = plain * (item[f"{role}_mask"].as_tensor() > 0)
        if masked.min() == masked.max():
            raise ValueError(f"The {role} mask leaves nothing of the {role} image: there is nothing to align.")
        return masked

    def _align(self, item: Item, images: dict[str, torch.Tensor], grids: dict[str, Grid]) -> Matrix:
        if item.get("initial_transform"):
            return read_linear(item["initial_transform"])
        arrays = {role: image[0].numpy() for role, image in images.items()}
        masks = {r: item[f"{r}_mask"].as_tensor()[0].numpy() if f"{r}_mask" in item else None for r in arrays}
        return align(
            arrays["moving"],
            grids["moving"],
            arrays["fixed"],
            grids["fixed"],
            self.affine,
            masks["moving"],
            masks["fixed"],
        )

    def _grid(self, images: dict[str, torch.Tensor], grids: dict[str, Grid], matrix: Matrix) -> Grid:
        """Lay the network's grid over what the images show: the percentiles and the time are wasted on wide margins."""
        grid = grids["fixed"].canonical(self.spacing_mm).with_room(grids["moving"], matrix)
        shown = {role: _shown(images[role], grids[role]) for role in images}
        extents = grid.extent(shown["fixed"]), grid.extent(shown["moving"], matrix)
        margin = MARGIN_MM / grid.spacing_mm
        low, high = (np.stack(ends) for ends in zip(*extents))
        return grid.within(low.min(0) - margin, high.max(0) + margin)

    @staticmethod
    def _on_grid(image: torch.Tensor, grid: Grid, target: Grid, alignment: Matrix | None) -> torch.Tensor:
        """Sample an image, (1, H, W, L), on the network's grid, through the alignment if there is one."""
        matrix = torch.eye(4, dtype=torch.float64).numpy() if alignment is None else alignment
        transform = SpatialTransform(matrix, None, target, target, grid)
        return transform.resample(antialias(image, grid, target))


def _shown(image: torch.Tensor, grid: Grid) -> Grid:
    """Cut an image's grid to the voxels above 0; (1, H, W, L), some of them are."""
    low, end = generate_spatial_bounding_box(image)
    return grid.box(low, np.array(end) - 1)


class RandMaskd(RandomizableTransform, MapTransform):
    """Blank everything outside the labelled regions, in all images of a pair or in none.

    One model then serves whole heads and brain-extracted ones. Each image is masked by its own label map, label > 0.

    Args:
        keys: keys of the images, (1, H, W, L).
        label_keys: keys of their label maps, in the same order.
        prob: probability to mask the pair.
    """

    def __init__(self, keys: KeysCollection, label_keys: Sequence[str], prob: float = 0.5) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.label_keys = tuple(label_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Mask, or leave the pair as it is."""
        item = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key, label_key in zip(self.keys, self.label_keys):
                if label_key not in item:
                    raise ValueError(f"Masking {key} needs a label map, but the data set lists none: set prob to 0.")
                item[key] = item[key] * (item[label_key] > 0)
        return item


class WarpByPredictiond(MapTransform):
    """Take the network's ``pred`` apart and pull label maps through its field.

    Adds ``warped`` (1, H, W, L) and ``ddf`` (3, H, W, L, voxels) to the item, and for each key its warped version
    under ``warped_key``.

    Args:
        keys: keys of the moving label maps, (1, H, W, L); missing ones are passed over.
        warped_keys: keys to write, in the same order.
    """

    def __init__(self, keys: KeysCollection, warped_keys: Sequence[str]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.warped_keys = tuple(warped_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Warp every key that is there."""
        item = dict(data)
        item["warped"], item["ddf"] = item["pred"][:1], item["pred"][1:]
        for key, warped_key in zip(self.keys, self.warped_keys):
            if key in item:
                labels = item[key].to(item["ddf"].device)[None].float()
                item[warped_key] = warp(labels, item["ddf"][None], mode="nearest")[0]
        return item
