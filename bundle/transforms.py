"""Dictionary transforms that the configs name: reading with plain-spoken errors, matching two images, masking."""

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.affine import ALIGNMENTS, align
from bundle.fields import warp
from bundle.intensity import clip_outliers
from bundle.io.headers import UnusableImageError, read_header
from bundle.io.images import read_image
from bundle.io.itk import read_linear
from bundle.io.labels import in_order_of, whole_numbers
from bundle.labels import consecutive
from bundle.options import check_flags, check_numbers
from bundle.shapes import DDF
from bundle.similarity import similarity
from bundle.spatial import Grid, Matrix, SpatialTransform, antialias, ras_from_lps
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    MapTransform,
    RandomizableTransform,
    ScaleIntensityRangePercentiles,
    Transform,
    generate_spatial_bounding_box,
)

__all__ = ["MatchPaird", "RandMaskd", "ReadVolumed", "WarpByPredictiond", "grid_of", "on_grid_of"]

Item = dict[Hashable, Any]

LARGEST_IN_FLOAT32 = 2**24  # whole numbers are exact up to here

STRAIGHT = "few toolkits open such a grid: results lie on a straight one of {} voxels"
MARGIN_MM = 8.0
"""Of the network's grid around what the images show."""


class ReadVolumed(MapTransform):
    """Read images or label maps of three dimensions, channel first, and refuse what cannot be registered.

    A value that is a ``MetaTensor`` already, (1, H, W, L) with its RAS affine, is taken as it is: an application hands
    over volumes it has read itself.

    Args:
        keys: keys of paths or tensors; missing ones are passed over (labels and masks are optional).
        labels: the subset of ``keys`` that holds label maps or masks: whole numbers, any number of values. They are
            kept exactly, and brought to the order of their image's axes: ``label`` to that of ``image``,
            ``moving_label`` and ``moving_mask`` to that of ``moving``.

    Raises:
        ValueError: unreadable, not one 3-D volume, not finite, an image without contrast, a label map with fractions
            or on another grid than its image.
        FileNotFoundError: no such file.
    """

    def __init__(self, keys: KeysCollection, labels: Sequence[str] = ()) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.labels = frozenset(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Read every key that is there; add ``notes`` on their headers, one a line, and the ``seconds`` it took."""
        item, start, notes = dict(data), time.perf_counter(), []
        for key in self.key_iterator(item):
            item[key] = read_volume(item[key], str(key), key in self.labels)
        for key in self.labels & item.keys():
            image = item.get(_image_of(str(key)))
            if isinstance(image, MetaTensor):
                item[key] = on_grid_of(image, item[key], f"{str(key).replace('_', ' ')} ({data[key]})")
        for key in self.key_iterator(item):
            if not isinstance(data[key], torch.Tensor):
                item[key], found = self._straight(str(key), item[key])
                notes += [f"{str(key).replace('_', ' ')} ({data[key]}): {note}" for note in found]
        item["notes"] = "\n".join(notes)
        item["seconds"] = {**item.get("seconds", {}), "read": time.perf_counter() - start}
        return item

    def _straight(self, key: str, volume: MetaTensor) -> tuple[MetaTensor, list[str]]:
        """Take the notes of a file; one on the fixed side whose axes are sheared comes onto a straight grid."""
        notes = [note for note in str(volume.meta.get("notes", "")).split("\n") if note]
        if not key.startswith("fixed") or grid_of(volume).straightened() is not None:
            return volume, notes
        straight = _on_straight_grid(volume, key in self.labels)
        return straight, [*notes, STRAIGHT.format("×".join(str(n) for n in straight.shape[1:]))]


def read_volume(source: Any, name: str, is_label: bool, must_vary: bool = True) -> MetaTensor:
    """Read and check one volume; ``name`` is what messages call it. See ``ReadVolumed``.

    An image of one value alone is refused where it is to be aligned (``must_vary``).
    """
    is_file = not isinstance(source, torch.Tensor)
    volume = read_file(Path(source), name, is_label) if is_file else source
    where = f"The {name.replace('_', ' ')} ({source})" if is_file else f"The {name}"
    if volume.dim() != 4 or volume.shape[0] != 1 or min(volume.shape[1:]) < 2:
        sides = "×".join(str(n) for n in volume.shape[1:])
        raise ValueError(
            f"{where} is no single 3-D volume but {volume.shape[0]} channel(s) of {sides} voxels: extract one first."
        )
    if not torch.isfinite(volume).all():
        raise ValueError(f"{where} holds NaN or infinite values: replace them first.")
    if is_label:
        whole = whole_numbers(volume, where)
        volume = whole if is_file else volume
    if must_vary and not is_label and volume.min() == volume.max():
        raise ValueError(f"{where} has the same value everywhere: there is nothing to align.")
    return volume


def read_file(path: Path, name: str, is_label: bool = False) -> MetaTensor:
    """Read one file; whatever is wrong with it is told in one sentence."""
    with _told(path, name):
        return read_image(path, exact=is_label)


def read_grid(path: Path, name: str) -> tuple[Grid, list[str]]:
    """Read where results on the grid of a file lie, whatever it holds; of several volumes, on that of each of them.

    Returns:
        The grid, straight where the file's is sheared, and notes as ``ReadVolumed`` makes them.
    """
    with _told(path, name):
        header = read_header(path)
    grid, notes = header.grid, list(header.notes)
    if header.sheared:
        grid = grid.orthogonal()
        notes.append(STRAIGHT.format("×".join(str(n) for n in grid.shape)))
    return grid, [f"{name} ({path}): {note}" for note in notes]


@contextmanager
def _told(path: Path, name: str) -> Iterator[None]:
    """Tell in one sentence what is wrong with an image file."""
    where = f"The {name.replace('_', ' ')} ({path})"
    if path.is_dir() or path.suffix.lower() == ".dcm":
        raise ValueError(
            f"{where} is a folder or a DICOM file: DICOM series are registered by the application in deploy_app "
            "(python deploy_app -i IN -o OUT); give a NIfTI, NRRD or MHA file here."
        )
    if not path.is_file():
        raise FileNotFoundError(f"{where} does not exist.")
    try:
        yield
    except UnusableImageError as error:
        raise ValueError(f"{where} cannot be used: {error}.") from error
    except Exception as error:  # each reader raises its own kinds for a broken file
        raise ValueError(f"{where} cannot be read as a NIfTI, NRRD or MHA image.") from error


def _on_straight_grid(volume: MetaTensor, is_label: bool) -> MetaTensor:
    """Resample a sheared volume, (1, H, W, L), to the smallest grid at right angles that holds all its voxels."""
    grid = grid_of(volume)
    straight = grid.orthogonal()
    transform = SpatialTransform(np.eye(4), None, straight, straight, grid)
    plain = volume.as_tensor()
    fill = 0.0 if is_label else float(plain.min())
    straightened = transform.resample(plain, mode="nearest" if is_label else "linear", fill=fill)
    return MetaTensor(straightened, affine=torch.from_numpy(ras_from_lps(straight.affine)), meta=dict(volume.meta))


def _image_of(key: str) -> str:
    """Name the image that a label map or mask belongs to."""
    return "image" if key == "label" else key.rsplit("_", 1)[0]


def on_grid_of(image: MetaTensor, label: MetaTensor, name: str) -> MetaTensor:
    """Bring a label map, (1, H, W, L), to the order of its image's axes; ``name`` is what messages call it.

    Raises:
        ValueError: its voxels are not those of the image.
    """
    if grid_of(label).is_close(grid_of(image)):
        return label
    ordered = in_order_of(label.as_tensor(), grid_of(label), grid_of(image))
    if ordered is None:
        raise ValueError(
            f"The {name} has {tuple(label.shape[1:])} voxels and its own position in space, its image "
            f"{tuple(image.shape[1:])}: resample one to the other's grid first."
        )
    meta = {key: value for key, value in label.meta.items() if key != "affine"}
    return MetaTensor(ordered, affine=image.affine, meta=meta)


def grid_of(volume: MetaTensor) -> Grid:
    """Read where the voxels of a (C, H, W, L) tensor with a RAS affine are."""
    return Grid.from_ras(volume.shape[-3:], volume.affine.cpu().numpy())


class MatchPaird(Transform):
    """Bring any two images onto the grid that the network works on.

    Aligns the moving image to the fixed one, samples both on the fixed image's canonical (RAS) grid, optionally at the
    spacing that suits the weights, with some room around it, but no further than the images show anything, and scales
    the intensities between percentiles 0.5 and 99.5 to [0, 1]. Outlying voxels are clipped first.

    Reads ``moving`` and ``fixed``, (1, H, W, L) with RAS affines; optionally ``moving_mask`` and ``fixed_mask`` (blank
    the rest of their image) and ``initial_transform`` (path of a linear ITK transform, instead of the alignment).
    Adds ``image`` (2, H, W, L: moving, fixed) with the RAS affine of its grid, ``label`` (the fixed channel),
    ``alignment`` (4×4, mm, LPS, fixed to moving), ``alike`` (``similarity_before`` by the headers,
    ``similarity_aligned``, and with ``never_worse`` whether the ``alignment_dropped``) and ``seconds``.

    Args:
        affine: pre-alignment: none (headers alone), center, rigid or affine.
        spacing_mm: isotropic spacing of the network's grid; None keeps the fixed image's.
        never_worse: go by the headers where the alignment found leaves the images less alike than they did. An
            ``initial_transform`` is kept, with a note.

    Raises:
        ValueError: labels or masks on another grid than their image, or images that share no physical space.
    """

    def __init__(self, affine: str = "affine", spacing_mm: float | None = None, never_worse: bool = False) -> None:
        if affine not in ALIGNMENTS:
            raise ValueError(f"The pre-alignment is one of {', '.join(ALIGNMENTS)}, not '{affine}'.")
        check_numbers(spacing_mm=spacing_mm)
        check_flags(never_worse=never_worse)
        self.affine, self.spacing_mm, self.never_worse = affine, spacing_mm, never_worse
        self.normalise = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Match the pair."""
        item, start = dict(data), time.perf_counter()
        images = {role: self._masked(item, role) for role in ("moving", "fixed")}
        grids = {role: grid_of(item[role]) for role in images}
        matrix = self._align(item, images, grids)
        grid, channels, alike = self._matched(images, grids, matrix)
        worse = alike["similarity_aligned"] < alike["similarity_before"]
        if item.get("initial_transform") and worse:
            note = "initial transform: it leaves the images less alike than their headers do; is its direction right?"
            item["notes"] = "\n".join(filter(None, [item.get("notes", ""), note]))
        elif self.never_worse and self.affine != "none":
            if worse:
                matrix = np.eye(4)
                grid, channels, alike = self._matched(images, grids, matrix)
            alike["alignment_dropped"] = float(worse)
        if channels[0].max() == channels[0].min():
            raise ValueError(
                "The images share no physical space: check their headers, or let --affine center, rigid or affine "
                "bring them together."
            )
        image = torch.cat(channels).as_subclass(torch.Tensor)
        item["image"] = MetaTensor(image, affine=torch.from_numpy(ras_from_lps(grid.affine)))
        item["label"] = image[1:]
        item["alignment"], item["alike"] = torch.from_numpy(matrix), alike
        item["seconds"] = {**item.get("seconds", {}), "align": time.perf_counter() - start}
        return item

    def _matched(
        self, images: dict[str, torch.Tensor], grids: dict[str, Grid], matrix: Matrix
    ) -> tuple[Grid, list[torch.Tensor], dict[str, float]]:
        """Lay the network's grid, sample both images on it, and measure how alike they are by the headers and so."""
        grid = self._grid(images, grids, matrix)
        channels = [
            self.normalise(self._on_grid(images[role], grids[role], grid, alignment))
            for role, alignment in (("moving", matrix), ("fixed", None))
        ]
        by_headers = self.normalise(self._on_grid(images["moving"], grids["moving"], grid, None))
        stages = {"similarity_before": by_headers, "similarity_aligned": channels[0]}
        return grid, channels, {stage: similarity(moving, channels[1]) for stage, moving in stages.items()}

    def _masked(self, item: Item, role: str) -> torch.Tensor:
        """Clip outliers and blank the image outside its mask; check that all that belongs to it lies on its grid."""
        image = item[role]
        for extra in (f"{role}_label", f"{role}_mask"):
            if extra in item:
                item[extra] = on_grid_of(image, item[extra], extra.replace("_", " "))
        plain: torch.Tensor = clip_outliers(image.as_tensor().float())
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
                item[warped_key] = _warp_labels(item[key].to(item["ddf"].device), item["ddf"])
        return item


def _warp_labels(labels: torch.Tensor, ddf: DDF) -> torch.Tensor:
    """Pull a label map, (1, H, W, L), through a field by the nearest voxel, in its own dtype."""
    numbers, index = consecutive(labels) if labels.max() > LARGEST_IN_FLOAT32 else (None, labels)
    warped = warp(index[None].float(), ddf[None], mode="nearest")[0]
    return warped.to(labels.dtype) if numbers is None else numbers[warped.long()]
