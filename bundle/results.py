"""Write what a registration found: images, transforms, numbers, picture and page, all or nothing."""

import contextlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bundle
import torch
from bundle.io.files import beside, fingerprint, named
from bundle.io.images import write_displacement, write_image
from bundle.io.itk import write_transform
from bundle.io.labels import for_file
from bundle.io.plain import plain
from bundle.memory import peak_memory_mb, return_memory
from bundle.pairs import ALWAYS_WRITTEN, FILES, OPTIONAL_FILES, check_folder
from bundle.plausibility import LIMITS, verdict
from bundle.report import fill_page, judge, png, read_bounds, write_page
from bundle.spatial import SpatialTransform
from bundle.weights import WeightsChoice, recommended
from PIL import Image

__all__ = [
    *("Bounds", "anonymous_page", "as_thresholds", "bounds_of", "remove_registration", "source_of"),
    "write_registration",
]

Item = Mapping[str, Any]
Bounds = Mapping[str, tuple[float, float]]
SUMMARY = "registration.json"
ONE_PERSON_HINTS = ("aligned_share",)  # of what the weights' ``look_here`` asks: are two people's images one's?


def bounds_of(
    weights: str, thresholds: Mapping[str, Mapping[str, Sequence[float | None]]], choice: WeightsChoice | None = None
) -> tuple[Bounds, Bounds]:
    """The bounds beyond which a registration failed, and those beyond which somebody should look.

    Weights may have some of their own in their description: ``limits``, for images that vary more, and none of the
    second kind there; and ``look_here``. What ``thresholds`` asks for comes before both of the same kind.

    Args:
        weights: path of the weights that the pair was registered with.
        thresholds: ``failed`` and ``look_here``, each least and greatest value by measure.
        choice: what chose them, if anything did: two people's images go by the ``look_here`` of its usual weights, too,
            replaced or averaged as those may be; one person's, by none of ``ONE_PERSON_HINTS``.

    Raises:
        ValueError: a threshold that is none.
    """
    unknown = sorted(thresholds.keys() - {"failed", "look_here"})
    if unknown:
        raise ValueError(f"thresholds has the keys failed and look_here, not {', '.join(unknown)}.")
    own, hints = recommended(weights, "limits") or {}, recommended(weights, "look_here") or {}
    if choice is not None and choice.same_person:
        hints = {name: bounds for name, bounds in hints.items() if name not in ONE_PERSON_HINTS}
    elif choice is not None:
        hints = {**(recommended(choice.usual, "look_here") or {}), **hints}
    failed = {**LIMITS, **read_bounds(own), **read_bounds(thresholds.get("failed", {}))}
    look_here = {**read_bounds(hints), **read_bounds(thresholds.get("look_here", {}))}
    return failed, {name: bounds for name, bounds in look_here.items() if name not in own}


def as_thresholds(bounds: tuple[Bounds, Bounds]) -> dict[str, dict[str, list[float | None]]]:
    """Bring bounds of ``bounds_of`` into the form of ``thresholds``, None for no bound, as JSON can hold them."""
    thresholds: dict[str, dict[str, list[float | None]]] = plain(dict(zip(("failed", "look_here"), bounds)))
    return thresholds


def write_registration(
    item: Item,
    folder: Path,
    weights: str,
    network_seconds: float,
    settings: Mapping[str, Any] | None = None,
    bounds: tuple[Bounds, Bounds] | None = None,
) -> None:
    """Write one registration into a temporary folder and move the files to theirs when all are there.

    ``registration.json`` comes last, and an earlier one goes first: where it is, all that it names is of one run.
    """
    start, (failed, look_here) = time.perf_counter(), bounds or bounds_of(weights, {})
    check_folder(folder, _inputs(item))
    return_memory()
    with beside(folder, ".registration_") as partial:
        with named(folder, partial), ThreadPoolExecutor() as pool:  # compression takes most of it, and frees the others
            written = [pool.submit(write, *what) for write, *what in _files(item, partial)]
            if "overview" in item:
                Image.fromarray(item["overview"]).save(partial / "overview.png", compress_level=3)
            for file in written:
                file.result()
        seconds = dict(item["seconds"]) | {"network": network_seconds, "write": time.perf_counter() - start}
        summary = _summary(item, seconds, weights, settings or {}, failed)
        judgement = judge(item["quality"], failed, look_here)
        summary |= {"judgement": judgement.as_json(), "thresholds": as_thresholds((failed, look_here))}
        if "report" in item:
            write_page(partial / "report.html", item["report"], summary, judgement)
            (partial / "thumbnail.png").write_bytes(png(item["report"].thumbnail))
        summary["outputs"] = sorted([path.name for path in partial.iterdir()] + [SUMMARY])
        (partial / SUMMARY).write_text(json.dumps(summary, indent=4) + "\n")
        folder.mkdir(exist_ok=True)
        for name in (SUMMARY, *OPTIONAL_FILES):  # of an earlier registration in the same folder
            (folder / name).unlink(missing_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: (path.name == SUMMARY, path.name)):
            os.replace(path, folder / path.name)


def remove_registration(folder: Path) -> None:
    """Take away what ``write_registration`` wrote, ``registration.json`` first, and a folder that holds nothing else.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in (SUMMARY, *ALWAYS_WRITTEN, *OPTIONAL_FILES):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def anonymous_page(
    item: Item,
    weights: str,
    settings: Mapping[str, Any] | None = None,
    bounds: tuple[Bounds, Bounds] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Fill the page of a registration without anything of where its images are from.

    It holds the images themselves, the numbers, and what the registration was made with; no name or hash of a file, no
    command, no time, nothing of a header but where the voxels are.

    Args:
        item: with ``report``, a ``PageContent``.
        weights: path of the weights.
        settings: what else the result depends on.
        bounds: from ``bounds_of``.
        notes: sentences to show beside the numbers.
    """
    failed, look_here = bounds or bounds_of(weights, {})
    summary = {
        "notes": list(notes),
        **_numbers(item, failed),
        **_made_with(item, weights),
        "settings": dict(settings or {}),
    }
    return fill_page(item["report"], summary, judge(item["quality"], failed, look_here))


def _files(item: Item, folder: Path) -> Iterator[tuple[Any, ...]]:
    """Yield for each file what writes it, and that function's arguments."""
    transform: SpatialTransform = item["transform"]
    grid, like = transform.fixed_grid, source_of(item["fixed"]) or None
    yield write_displacement, transform.displacement_field(), grid, folder / "displacement.nii.gz", like
    yield write_image, item["warped"].float(), grid, folder / "warped.nii.gz", like
    yield write_transform, transform, folder / "transform.h5"
    if "warped_label" in item:
        yield write_image, for_file(item["warped_label"]), grid, folder / "warped_label.nii.gz", like
    for name in ("jacobian", "expected_error"):
        if name in item:
            yield write_image, item[name], grid, folder / f"{name}.nii.gz", like
    if "inverse" in item:
        place = transform.moving_grid, folder / "inverse_displacement.nii.gz", source_of(item["moving"]) or None
        yield write_displacement, item["inverse_mm"], *place
        yield write_transform, item["inverse"], folder / "inverse.h5"


def _summary(
    item: Item, seconds: dict[str, float], weights: str, settings: Mapping[str, Any], limits: Bounds
) -> dict[str, Any]:
    """Collect what ``registration.json`` holds."""
    order = ("read", "align", "network", "refill", "expected_error", "resample", "report", "write")
    stages = {stage: round(seconds[stage], 3) for stage in order if stage in seconds}
    return {
        "moving": source_of(item["moving"]),
        "fixed": source_of(item["fixed"]),
        "notes": [note for note in item.get("notes", "").split("\n") if note],
        **_numbers(item, limits),
        "seconds": stages | {"total": round(sum(stages.values()), 3)},
        "peak_memory_mb": plain(round(peak_memory_mb(), 1)),
        **_made_with(item, weights),
        "inputs": {key: fingerprint(path) for key, path in _inputs(item).items()},
        "settings": dict(settings),
        "command": shlex.join(sys.orig_argv),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _numbers(item: Item, limits: Bounds) -> dict[str, Any]:
    """The verdict, the quality, and what was found."""
    transform = item["transform"]
    return {
        **verdict(item["quality"], limits),
        **{name: plain(round(value, 6)) for name, value in item["quality"].items()},
        "fill": item["fill"],
        "alignment_lps_mm": transform.alignment.tolist(),
        "field_grid": {"shape": transform.field_grid.shape, "spacing_mm": transform.field_grid.spacing_mm.tolist()},
    }


def _made_with(item: Item, weights: str) -> dict[str, Any]:
    """The device, the versions and the weights."""
    packages = ("monai", "SimpleITK", "nibabel", "numpy")
    return {
        "device": item["device"],
        "versions": {"pan_registration": bundle.__version__, "python": platform.python_version()}
        | {"torch": torch.__version__}  # which says the CUDA version, too
        | {name: version(name) for name in packages},
        "weights": Path(weights).name,
        "weights_sha256": fingerprint(weights)["sha256"],
    }


def _inputs(item: Item) -> dict[str, str]:
    """List the files that a registration was made of; volumes handed over in memory have none."""
    paths = {key: item[key] if isinstance(item[key], str) else source_of(item[key]) for key in FILES if key in item}
    return {key: path for key, path in paths.items() if path}


def source_of(volume: torch.Tensor) -> str:
    """Name the file a volume was read from; empty for one handed over in memory."""
    name = getattr(volume, "meta", {}).get("filename_or_obj", "")
    return str(name[0] if isinstance(name, list | tuple) and name else name)
