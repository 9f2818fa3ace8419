"""``python -m bundle benchmark expected_error``: calibrate the map of the expected error, and try it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bundle.benchmark.expected_error import Register, compare, fit, markdown, samples_of
from bundle.benchmark.kept import weights_used
from bundle.commands.comparing import check_common, checked_spacing, torch_device
from bundle.commands.register import output_folder
from bundle.data import open_dataset
from bundle.inference import infer_pair
from bundle.io.files import write_text
from bundle.io.plain import plain
from bundle.options import check_flags
from bundle.root import ROOT, WEIGHTS

__all__ = ["expected_error"]


def expected_error(
    dataset: str,
    output_dir: str,
    fit_split: str = "training",
    split: str = "validation",
    fit_heads: int = 12,
    heads: int = 6,
    seed: int = 0,
    masked: bool = False,
    spacing_mm: float | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Calibrate the map of register --expected_error on known deformations, and try it on others.

    Each head is scanned twice, with a deformation in between, a scanner of its own each time, and what an alignment
    leaves; in about every second pair a ball of one scan shows noise alone. The calibration is fitted on one split, and
    the pairs of the other are judged by it, and by the one of configs/inference.json. Writes expected_error.json and
    expected_error.md; what is done is kept in cache/, so that an interrupted call goes on where it stopped.

    Args:
        dataset: folder with dataset.json.
        output_dir: folder to write.
        fit_split: whose heads the calibration is fitted on.
        split: whose heads it is tried on.
        fit_heads: how many of the first, in their order.
        heads: how many of the second.
        seed: of what is simulated.
        masked: blank everything outside the labels.
        spacing_mm: voxel size that the network works at; by default the one that suits the weights.
        weights: weights of the network; models/model.pt by default.
        device: auto, cpu or cuda, for the network.

    Returns:
        What expected_error.json holds.
    """
    folder = output_folder(output_dir)
    check_common(device, heads=heads, fit_heads=fit_heads)
    check_flags(masked=masked)
    if fit_split == split:
        raise ValueError(
            f"The calibration is tried on other heads than those of its fit: --split is not '{split}' then."
        )
    chosen = str(Path(str(weights)).absolute() if weights else WEIGHTS)
    options = _options(chosen, torch_device(device), checked_spacing(spacing_mm))
    parts = (fit_split, fit_heads, seed), (split, heads, seed + 1000)
    items = [open_dataset(dataset, name)[:count] for name, count, _ in parts]
    if masked and any("label" not in item for item in items[0] + items[1]):
        raise ValueError(f"--masked needs a label map for every image, but {dataset} lists images without one.")
    made_by = {"weights": weights_used(chosen), "options": {k: v for k, v in options.items() if k != "ckpt"}}
    drawn = [
        samples_of(some, start, _registration(options), folder / "cache" / name, masked, made_by)
        for some, (name, _, start) in zip(items, parts)
    ]
    fitted = fit(drawn[0])
    shipped = json.loads((ROOT / "configs" / "inference.json").read_text())["error_calibration"]
    rows = {f"{fit_split}, fitted": compare(drawn[0], fitted), split: compare(drawn[1], fitted)}
    rows |= {f"{split}, by configs/inference.json": compare(drawn[1], shipped)}
    title = (
        f"{Path(dataset).name}: {fit_heads} heads of the {fit_split} split, {heads} of the {split} split, seed {seed}; "
        f"{'masked by the labels' if masked else 'whole images'}; weights {Path(chosen).name}; "
        f"torch {torch.__version__}. "
        f"Calibration fitted: {json.dumps(fitted)}; of configs/inference.json: {json.dumps(shipped)}."
    )
    result = {"fitted": fitted, "shipped": shipped, "judged": plain(rows)}
    write_text(folder / "expected_error.json", json.dumps(result, indent=4) + "\n")
    write_text(folder / "expected_error.md", f"{title}\n\n{markdown(rows)}")
    print(f"{title}\n\n{markdown(rows)}\ntables: {folder}")
    return result


def _options(weights: str, device: str, spacing_mm: float | None) -> dict[str, Any]:
    """List the keys of ``configs/inference.json`` that the pairs are registered with."""
    options: dict[str, Any] = {"affine": "none", "ckpt": weights, "choose_weights": False, "never_worse": False}
    options |= {"device": f"$torch.device('{device}')", "expected_error": True}
    return options if spacing_mm is None else options | {"spacing_mm": spacing_mm}


def _registration(options: Mapping[str, Any]) -> Register:
    """Make what registers two files by the inference workflow, and returns what it found."""
    return lambda moving, fixed: infer_pair({"name": "pair", "moving": moving, "fixed": fixed}, **options)
