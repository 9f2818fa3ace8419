"""Run methods over pairs: one pre-alignment for all, and every result kept on disk once it is there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from bundle.benchmark.kept import digest, read_kept, stem_of, versions, write_kept
from bundle.benchmark.measure import (
    IMAGE_KEYS,
    LANDMARK_KEYS,
    MEASURES,
    Common,
    Pictures,
    Row,
    central_slices,
    transform_of,
    visible,
)
from bundle.benchmark.method import Method
from bundle.benchmark.worker import sentence, worker
from bundle.io.files import utf8
from bundle.io.itk import linear_to_itk
from bundle.progress import Progress

__all__ = ["align_pair", "compare"]


def compare(
    pairs: Sequence[Mapping[str, Any]], methods: Mapping[str, Method], common: Common, cache: Path
) -> list[Row]:
    """Register every pair by every method, or look up what an earlier call found.

    A result is looked up by all it depends on: the content of the images, the settings, the weights' SHA-256 and the
    versions of the packages. Each method runs in a process of its own, so that its memory is its own and a crash is
    one row. What failed is tried again by the next call.

    Args:
        pairs: from ``draw_pairs``, with labels on both sides.
        methods: by name.
        common: what is the same for all.
        cache: folder of the results.

    Returns:
        A row for each pair and method, method by method: ``pair``, ``method``, and what ``measure`` returns or
        ``error``; ``pictures`` and ``pictures_before`` are paths of ``central_slices`` (warped; fixed and moving).
    """
    cache.mkdir(parents=True, exist_ok=True)
    paths = {pair[key] for pair in pairs for key in (*IMAGE_KEYS, *LANDMARK_KEYS) if key in pair}
    digests = {path: digest(path) for path in paths}
    inputs = {pair["name"]: _inputs(pair, common, digests) for pair in pairs}
    rows: list[Row] = []
    with Progress[None](total=len(pairs) * (len(methods) + 1), title="comparing", unit="registration") as progress:
        alignments: dict[str, Row] = {}
        for pair in pairs:
            progress.say("aligning")
            alignments[pair["name"]] = align_pair(pair, common, inputs[pair["name"]], cache)
            progress.update()
        for name, method in methods.items():
            progress.say(name)
            with worker(method, common) as register:
                for pair in pairs:
                    depends = inputs[pair["name"]] | {"method": name, "measures": MEASURES}
                    depends["settings"] = method.settings()
                    row = _cached(cache, pair, alignments[pair["name"]], depends, register)
                    rows.append({"pair": pair["name"], "method": name} | row)
                    progress.update()
    return rows


def _inputs(pair: Mapping[str, Any], common: Common, digests: Mapping[str, str]) -> dict[str, Any]:
    """List what every result of a pair depends on."""
    files = {key: digests[pair[key]] for key in (*IMAGE_KEYS, *LANDMARK_KEYS) if key in pair}
    told = {"landmarks": "by label"} if any(key in pair for key in LANDMARK_KEYS) else {}
    return {"pair": pair["name"], "files": files, "common": asdict(common), "versions": versions(), **told}


def _stem(cache: Path, depends: Mapping[str, Any]) -> str:
    return stem_of(cache, f"{depends['pair']}.{depends.get('method', 'alignment')}", depends)


def align_pair(pair: Mapping[str, Any], common: Common, depends: Mapping[str, Any], cache: Path) -> Row:
    """Find the pre-alignment of a pair, once for all methods.

    Returns:
        ``alignment``, path of an ITK transform; ``seconds_align``; and ``pictures``, path of both images' slices. Or
        ``error``.
    """
    stem = _stem(cache, depends)
    found = _read(stem)
    if found is not None:
        return found
    try:
        item = common.read(pair)
    except Exception as error:  # one pair that cannot be aligned must not end the others
        return {"error": sentence(error)}
    sitk.WriteTransform(linear_to_itk(item["alignment"].numpy()), utf8(f"{stem}.tfm"))
    transform = transform_of(item, None, aligned=False)
    before = central_slices(transform, visible(item, "moving"), "moving")
    identity = replace(transform, moving_grid=transform.fixed_grid)
    _write_pictures(stem, before | central_slices(identity, visible(item, "fixed"), "fixed"))
    row = {"alignment": f"{stem}.tfm", "pictures": f"{stem}.npz", "seconds_align": item["seconds"]["align"]}
    write_kept(stem, row, depends)
    return row


def _cached(
    cache: Path,
    pair: Mapping[str, Any],
    alignment: Row,
    depends: Mapping[str, Any],
    register: Callable[[Mapping[str, Any], Row], tuple[Row, Pictures]],
) -> Row:
    """Look up a pair's result, or find and keep it."""
    if "error" in alignment:
        return {"error": alignment["error"]}
    stem = _stem(cache, depends)
    found = _read(stem)
    if found is None:
        found, pictures = register(pair, alignment)
        if "error" in found:
            return found
        _write_pictures(stem, pictures)
        found |= {"pictures": f"{stem}.npz"}
        write_kept(stem, found, depends)
    return found | {"pictures_before": alignment["pictures"]}


def _read(stem: str) -> Row | None:
    row = read_kept(stem)
    if row is None:
        return None
    folder = Path(stem).parent  # which may have moved since
    return row | {key: str(folder / Path(row[key]).name) for key in ("alignment", "pictures") if key in row}


def _write_pictures(stem: str, pictures: Pictures) -> None:
    np.savez_compressed(f"{stem}.npz", **pictures)  # type: ignore[arg-type]  # the stubs take it for another argument
