"""Read images and label maps, and say in one sentence what is wrong with them."""

import os
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.io.files import check_file
from bundle.io.headers import UnusableImageError, read_header
from bundle.io.images import read_image
from bundle.io.integrity import DamagedFileError
from bundle.io.labels import in_order_of, whole_numbers
from bundle.spatial import Grid, SpatialTransform, ras_from_lps
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

__all__ = ["ReadVolumed", "check_sides", "grid_of", "on_grid_of", "read_file", "read_grid", "read_volume"]

Item = dict[Hashable, Any]

OF_DICOM = (
    "DICOM series are registered by the application in deploy_app of the repository (docs/deploy.md there); give "
    "NIfTI, NRRD or MHA files here, as dcm2niix makes them of series."
)
STRAIGHT = "few toolkits open such a grid: results lie on a straight one of {} voxels"


class ReadVolumed(MapTransform):
    """Read images or label maps of three dimensions, channel first, and refuse what cannot be registered.

    A value that is a ``MetaTensor`` already, (1, H, W, L) with its RAS affine, is taken as it is: an application hands
    over volumes it has read itself.

    Args:
        keys: keys of paths or ``MetaTensor``s; missing ones are passed over (labels and masks are optional).
        labels: the subset of ``keys`` that holds label maps or masks: whole numbers, any number of values. They are
            kept exactly, and brought to the order of their image's axes: ``label`` to that of ``image``,
            those that start with ``moving_`` or ``fixed_`` to that of ``moving`` or ``fixed``.

    Raises:
        ValueError: neither a path nor a ``MetaTensor``, unreadable, not one 3-D volume, not finite, an image without
            contrast, a label map with fractions or on another grid than its image.
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
            if not isinstance(data[key], MetaTensor):
                item[key], found = self._straight(str(key), item[key])
                notes += [f"{str(key).replace('_', ' ')} ({data[key]}): {note}" for note in found]
        item["notes"] = "\n".join(notes)
        item["seconds"] = {**item.get("seconds", {}), "read": time.perf_counter() - start}
        return item

    def _straight(self, key: str, volume: MetaTensor) -> tuple[MetaTensor, list[str]]:
        """Take the notes of a file; one on the fixed side whose axes are sheared comes onto a straight grid."""
        notes = _notes(volume)
        if not key.startswith("fixed") or grid_of(volume).straightened() is not None:
            return volume, notes
        straight = _on_straight_grid(volume, key in self.labels)
        return straight, [*notes, STRAIGHT.format("×".join(str(n) for n in straight.shape[1:]))]


def read_volume(source: Any, name: str, is_label: bool, must_vary: bool = True, volumes: bool = False) -> MetaTensor:
    """Read and check one volume; ``name`` is what messages call it. See ``ReadVolumed``.

    An image of one value alone is refused where it is to be aligned (``must_vary``); several volumes, and a single
    slice, are taken where they are to be resampled alone (``volumes``).
    """
    is_file = isinstance(source, str | os.PathLike)
    if not is_file:
        _check_placed(source, f"The {name.replace('_', ' ')}")
    volume = read_file(Path(source), name, is_label) if is_file else source
    where = f"The {name.replace('_', ' ')} ({source})" if is_file else f"The {name}"
    if volume.dim() != 4 or (volume.shape[0] != 1 and not volumes):
        sides = "×".join(str(n) for n in volume.shape[1:])
        raise ValueError(
            f"{where} is no single 3-D volume but {volume.shape[0]} channel(s) of {sides} voxels: extract one first."
        )
    if not volumes:
        check_sides(volume.shape[1:], where)
    elif is_file:
        read_grid(Path(source), name)  # which refuses a plane, whose place no header tells
    if not torch.isfinite(volume).all():
        raise ValueError(f"{where} holds NaN or infinite values: replace them first.")
    if is_label:
        whole = whole_numbers(volume, where)
        volume = whole if is_file else volume
    if must_vary and not is_label and volume.min() == volume.max():
        raise ValueError(f"{where} has the same value everywhere: there is nothing to align.")
    return volume


def check_sides(sides: Sequence[int], where: str) -> None:
    """Refuse a single slice; ``where`` is what messages call the image.

    Raises:
        ValueError: a side of one voxel.
    """
    if min(sides) < 2:
        size = "×".join(str(n) for n in sides)
        raise ValueError(
            f"{where} is a single slice ({size} voxels), which cannot be registered alone: give a volume of several."
        )


def read_file(path: Path, name: str, is_label: bool = False) -> MetaTensor:
    """Read one file; a fault in it becomes one sentence."""
    with _told(path, name):
        return read_image(path, exact=is_label)


def read_grid(path: Path, name: str, as_stored: bool = False) -> tuple[Grid, list[str]]:
    """Read where results on the grid of a file lie, whatever it holds; of several volumes, on that of each of them.

    Args:
        path: of the file.
        name: what messages call it.
        as_stored: where its own voxels lie instead, on axes that may be sheared: some forms of a transform count them.

    Returns:
        The grid, straight where the file's is sheared, and notes as ``ReadVolumed`` makes them.
    """
    with _told(path, name):
        header = read_header(path)
    if header.axes < 3:
        raise ValueError(f"The {name} ({path}) is no volume but has {header.axes} axes: give a 3-D image.")
    grid, notes = header.grid, list(header.notes)
    if header.sheared and not as_stored:
        grid = grid.orthogonal()
        notes.append(STRAIGHT.format("×".join(str(n) for n in grid.shape)))
    return grid, [f"{name} ({path}): {note}" for note in notes]


@contextmanager
def _told(path: Path, name: str) -> Iterator[None]:
    """Tell in one sentence what is wrong with an image file."""
    where = f"The {name.replace('_', ' ')} ({path})"
    if path.is_dir() or path.suffix.lower() == ".dcm":
        raise ValueError(f"{where} is a folder or a DICOM file: {OF_DICOM}")
    check_file(path, name.replace("_", " "))
    try:
        yield
    except (UnusableImageError, DamagedFileError) as error:
        raise ValueError(f"{where} cannot be used: {error}.") from error
    except OSError as error:
        if error.errno is not None:  # the system's own, about the file
            raise
        raise ValueError(f"{where} cannot be read as a NIfTI, NRRD or MHA image.") from error
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
    affine = torch.from_numpy(ras_from_lps(straight.affine))
    return MetaTensor(straightened, affine=affine, meta=_without_affine(volume))


def _image_of(key: str) -> str:
    """Name the image that a label map or mask belongs to."""
    return "image" if key == "label" else key.split("_", 1)[0]


def on_grid_of(image: MetaTensor, label: MetaTensor, name: str) -> MetaTensor:
    """Bring a label map, (1, H, W, L), to the order of its image's axes; ``name`` is what messages call it.

    Raises:
        ValueError: its voxels are not those of the image.
    """
    if grid_of(label).is_close(grid_of(image)):
        return label
    ordered = in_order_of(label.as_tensor(), grid_of(label), grid_of(image))
    if ordered is None:
        drawn = "copy its image's header if it was drawn on that, else " if label.shape == image.shape else ""
        notes = [f" Of {it}: {n}." for it, v in (("it", label), ("its image", image)) for n in _notes(v)]
        raise ValueError(
            f"The {name} has {tuple(label.shape[1:])} voxels and its own position in space, its image "
            f"{tuple(image.shape[1:])}: {drawn}resample one to the other's grid first.{''.join(notes)}"
        )
    return MetaTensor(ordered, affine=image.affine, meta=_without_affine(label))


def _notes(volume: MetaTensor) -> list[str]:
    """The sentences about what a file's header leaves open."""
    return [note for note in str(volume.meta.get("notes", "")).split("\n") if note]


def _without_affine(volume: MetaTensor) -> dict[str, Any]:
    return {key: value for key, value in volume.meta.items() if key != "affine"}


def _check_placed(volume: Any, where: str) -> None:
    """Refuse what has no affine, however its voxels are held; ``where`` is what messages call it."""
    if not isinstance(volume, MetaTensor):
        raise ValueError(
            f"{where} is of type {type(volume).__name__}, which does not say where its voxels lie: give the path of a "
            "file, or a MetaTensor of MONAI, (1, H, W, L) with its RAS affine."
        )


def grid_of(volume: MetaTensor) -> Grid:
    """Read where the voxels of a (C, H, W, L) tensor with a RAS affine are.

    Raises:
        ValueError: a tensor or an array without an affine.
    """
    _check_placed(volume, "A volume")
    return Grid.from_ras(volume.shape[-3:], volume.affine.cpu().numpy())
