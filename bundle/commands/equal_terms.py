"""``python -m bundle benchmark curve`` and ``networks``: what a comparison on equal terms takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.benchmark.accuracy import compare
from bundle.benchmark.curve import curve_methods, write_curve
from bundle.benchmark.equal_terms import NETWORKS, Terms, equal_terms_markdown, train_all
from bundle.benchmark.measure import Common
from bundle.benchmark.methods import Options
from bundle.benchmark.peers import SYN_ITERATIONS
from bundle.commands.comparing import (
    check_common,
    check_comparison,
    check_finished,
    checked_spacing,
    labelled_pairs,
    three_sides,
    torch_device,
)
from bundle.commands.register import output_folder
from bundle.data import open_dataset, read_split
from bundle.options import check_flags, check_numbers
from bundle.resumption import images_of
from bundle.root import WEIGHTS
from bundle.transforms import read_grid
from bundle.weights import recommended

__all__ = ["curve", "networks"]


def curve(
    dataset: str,
    output_dir: str,
    split: str = "validation",
    pairs: int | None = 20,
    seed: int = 0,
    methods: str | Sequence[str] = ("pan", "greedy", "syn-mi"),
    affine: str = "affine",
    masked: bool = False,
    spacing_mm: float | None = None,
    weights: str | None = None,
    syn_iterations: Sequence[int] = SYN_ITERATIONS,
    device: str = "auto",
    threads: int | None = None,
    remove_folds: bool = True,
) -> list[dict[str, Any]]:
    """Draw accuracy against regularity: each method at several strengths of smoothing, on the same pairs.

    PAN's field is smoothed by a Gaussian after it is found; greedy smooths its field and SyN its velocities in every
    step. Writes curve.csv and curve.png; what is done is kept in cache/, as by accuracy.

    Args:
        dataset: folder with dataset.json; its images need labels.
        output_dir: folder to write.
        split: training, validation or test.
        pairs: how many ordered pairs to draw.
        seed: of the draw.
        methods: some of pan, greedy, syn-mi, syn-cc, with commas.
        affine: pre-alignment of all methods: none, center, rigid or affine.
        masked: blank everything outside the labels in both images, and cut them to what is left.
        spacing_mm: voxel size that all methods work at; by default each its own, see accuracy.
        weights: weights of PAN; models/model.pt by default.
        syn_iterations: of greedy and SyN, at a quarter, half and the whole of the resolution.
        device: auto, cpu or cuda, for the network.
        threads: that each method may use; torch's own choice by default.
        remove_folds: smooth PAN's fields where they fold, as register does; False measures them as they come.

    Returns:
        The rows of curve.csv.
    """
    folder = output_folder(output_dir)
    check_common(device, pairs=pairs, threads=threads)
    check_flags(masked=masked, remove_folds=remove_folds)
    check_comparison(affine, "nearest", syn_iterations)
    spacing_mm = checked_spacing(spacing_mm)
    options = Options(
        weights=str(Path(str(weights)).absolute() if weights else WEIGHTS),
        syn_iterations=tuple(syn_iterations),
        device=torch_device(device),
        remove_folds=remove_folds,
    )
    names = methods.split(",") if isinstance(methods, str) else [str(method) for method in methods]
    chosen = curve_methods(names, options)
    drawn = labelled_pairs(dataset, split, pairs, seed)
    top_mm = recommended(options.weights, "align_top_mm")
    common = Common(affine, masked, spacing_mm, threads or torch.get_num_threads(), align_top_mm=top_mm)
    rows = compare(drawn, chosen, common, folder / "cache")
    points = write_curve(rows, folder)
    for point in points:
        print(
            f"{point['method']:>8} {point['smoothing']:6.4g} voxels: DSC {point['dsc_mean']:.3f}, "
            f"SD log J {point['log_jacobian_sd_mean']:.3f}, NDV {point['ndv_percent_mean']:.4f} %"
        )
    print(f"table and figure: {folder}")
    check_finished(rows, folder)
    return points


def networks(
    dataset: str,
    output_dir: str,
    networks: str | Sequence[str] = tuple(NETWORKS),
    learning_rates: Sequence[float] = (1e-4, 4e-4),
    epochs: int = 10,
    spatial_size: Sequence[int] | None = None,
    roi_size: Sequence[int] | None = None,
    misalignment_probability: float = 0.4,
    mask_probability: float = 0.0,
    val_pairs: int = 30,
    cascades: int = 1,
    seed: int = 0,
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """Train PAN and its peers on equal terms, one after the other, and choose the better learning rate of each.

    Writes equal_terms.csv, equal_terms.md, a folder for each run, and in chosen/ the weights that benchmark accuracy
    takes by --peer_weights. An interrupted call goes on where it stopped; finished runs are looked up.

    Args:
        dataset: folder with dataset.json.
        output_dir: folder to write.
        networks: some of pan, voxelmorph, dual-prnet, vit-v-net, transmorph, with commas.
        learning_rates: to try, with commas.
        epochs: of each run.
        spatial_size: that images are cut or padded to, in voxels; by default the smallest that holds all of them.
        roi_size: of random crops in training; by default the whole.
        misalignment_probability: share of moving images moved by a random affine.
        mask_probability: share of pairs with everything outside the labels blanked: 1 for masked brains.
        val_pairs: pairs that each epoch is validated on.
        cascades: how many of each network register in a row, trained together.
        seed: of weights and pairs.
        threads: that each process may use; torch's own choice by default.

    Returns:
        The rows of equal_terms.csv.
    """
    folder = output_folder(output_dir)
    chosen = networks.split(",") if isinstance(networks, str) else [str(name) for name in networks]
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(NETWORKS):
        raise ValueError(f"--networks takes some of {','.join(NETWORKS)}, each once, not '{','.join(chosen)}'.")
    rates: list[Any] = list(learning_rates) if isinstance(learning_rates, list | tuple) else [learning_rates]
    if not rates or not all(isinstance(rate, float | int) and 0 < rate < 1 for rate in rates):
        raise ValueError(f"--learning_rates takes numbers between 0 and 1, 1e-4,4e-4 say, not '{learning_rates}'.")
    check_common("cpu", epochs=epochs, val_pairs=val_pairs, cascades=cascades, threads=threads)
    shares = {"misalignment_probability": misalignment_probability, "mask_probability": mask_probability}
    check_numbers(**shares)
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"--{name} is a share, from 0 to 1, not {share}.")
    training, validation = open_dataset(dataset, "training"), read_split(Path(dataset), "validation")
    terms = Terms(
        dataset=str(Path(dataset).absolute()),
        epochs=epochs,
        spatial_size=None if spatial_size is None else three_sides("spatial_size", spatial_size),
        roi_size=None if roi_size is None else three_sides("roi_size", roi_size),
        misalignment_probability=float(misalignment_probability),
        mask_probability=float(mask_probability),
        val_pairs=val_pairs,
        spacing_mm=_side_mm([*training, *validation]),
        cascades=cascades,
        seed=seed,
        threads=threads or torch.get_num_threads(),
        images=images_of(training, validation),
    )
    rows = train_all(terms, chosen, [float(rate) for rate in rates], folder)
    print(equal_terms_markdown(rows))
    print(f"tables and weights: {folder}")
    return rows


def _side_mm(items: Sequence[Mapping[str, Any]]) -> float:
    """Find the side of all images' voxels, which the weights are noted to suit: registration brings images to it.

    Raises:
        ValueError: the sides of a voxel, or the voxels of two images, differ by more than 1 %.
    """
    paths = [item[key] for item in items for key in ("image", "moving", "fixed") if key in item]
    sides = {path: read_grid(Path(path), "image")[0].spacing_mm for path in paths}
    side = float(sides[paths[0]].prod() ** (1 / 3))
    for path, own in sides.items():
        if not np.allclose(own, side, rtol=0.01):
            raise ValueError(
                f"{path} has voxels of {'×'.join(f'{s:.4g}' for s in own)} mm, and networks are compared on cubes of "
                "one size: bring the images onto such a grid with 'python -m bundle prepare --spacing_mm', and name "
                "that data set."
            )
    return round(side, 4)
