"""``python -m bundle benchmark``: what the bundle costs, and how it does beside other methods."""

import contextlib
import io
import json
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bundle.benchmark.accuracy import compare
from bundle.benchmark.contrasts import CONTRASTS
from bundle.benchmark.figures import write_figures
from bundle.benchmark.lesions import lesions_markdown, measure_lesions
from bundle.benchmark.measure import Common
from bundle.benchmark.methods import Options, make_methods
from bundle.benchmark.peers import SYN_ITERATIONS
from bundle.benchmark.rescans import measure_rescans, rescans_markdown
from bundle.benchmark.tables import markdown, write_tables
from bundle.benchmark.verdicts import rows_of, split_and_judge
from bundle.commands.comparing import (
    check_common,
    check_comparison,
    check_finished,
    checked_spacing,
    drawn_pairs,
    labelled_images,
    labelled_pairs,
    torch_device,
)
from bundle.commands.equal_terms import curve, networks
from bundle.commands.expected_error import expected_error
from bundle.commands.register import check_affine, output_folder, register
from bundle.commands.speed import speed
from bundle.data import draw_pairs, open_dataset, region_names
from bundle.io.files import write_text
from bundle.io.tables import write_csv
from bundle.options import check_flags
from bundle.root import WEIGHTS
from bundle.weights import recommended

__all__ = ["accuracy", "benchmark", "expected_error", "lesions", "rescans", "speed", "verdicts"]


def accuracy(
    dataset: str,
    output_dir: str,
    split: str = "test",
    pairs: int | None = None,
    seed: int = 0,
    methods: str | Sequence[str] = ("identity", "affine", "pan"),
    affine: str = "affine",
    masked: bool = False,
    spacing_mm: float | None = None,
    label_interpolation: str = "nearest",
    contrasts: str = "real",
    weights: str | None = None,
    voxelmorph_weights: str | None = None,
    peer_weights: str | None = None,
    optimise: int = 5,
    remove_folds: bool = True,
    syn_iterations: Sequence[int] = SYN_ITERATIONS,
    device: str = "auto",
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """Compare methods on the same pairs, from the same pre-alignment, by the same measures.

    Writes pairs.csv, regions.csv, summary.csv, summary.md, boxplot.png, dsc_against_time.png and examples.png. What is
    done is kept in cache/: an interrupted call goes on where it stopped, and further methods or pairs cost only
    themselves.

    Args:
        dataset: folder with dataset.json; its images need labels.
        output_dir: folder to write.
        split: training, validation or test.
        pairs: how many ordered pairs to draw; all by default.
        seed: of the draw.
        methods: some of identity, affine, pan, pan-mind (25 steps across contrasts), pan-optimised, pan-symmetric,
            voxelmorph, dual-prnet, vit-v-net, transmorph, syn-mi, syn-cc, elastix, greedy, greedy-nmi, convexadam,
            with commas.
        affine: pre-alignment of all methods but identity: none, center, rigid or affine.
        masked: blank everything outside the labels in both images, and cut them to what is left.
        spacing_mm: voxel size that all methods work at; by default networks work at the one that suits their weights,
            the others at the fixed image's.
        label_interpolation: of the labels that are scored: nearest, as in most papers, or label_gaussian, as register
            writes them.
        contrasts: real, or synthetic: each image in a contrast of its own, the same whenever the pair is registered.
        weights: weights of PAN; models/model.pt by default.
        voxelmorph_weights: weights of VoxelMorph.
        peer_weights: folder with the weights of networks: chosen/ of what benchmark networks has written.
        optimise: most steps of pan-optimised.
        remove_folds: smooth the networks' fields where they fold, as register does; False measures them as they come.
        syn_iterations: of syn-mi, syn-cc, greedy and greedy-nmi, at a quarter, half and the whole of the resolution.
        device: auto, cpu or cuda, for the networks.
        threads: that each method may use; torch's own choice by default.

    Returns:
        The rows of summary.csv.
    """
    folder = output_folder(output_dir)
    check_common(device, pairs=pairs, optimise=optimise, threads=threads)
    check_flags(masked=masked, remove_folds=remove_folds)
    check_comparison(affine, label_interpolation, syn_iterations)
    spacing_mm = checked_spacing(spacing_mm)
    if contrasts not in CONTRASTS:
        raise ValueError(f"--contrasts is one of {', '.join(CONTRASTS)}, not '{contrasts}'.")
    options = Options(
        weights=str(Path(str(weights)).absolute() if weights else WEIGHTS),
        voxelmorph_weights=str(Path(str(voxelmorph_weights)).absolute()) if voxelmorph_weights else None,
        peer_weights=str(Path(str(peer_weights)).absolute()) if peer_weights else None,
        optimise=optimise,
        syn_iterations=tuple(syn_iterations),
        device=torch_device(device),
        remove_folds=remove_folds,
    )
    chosen = make_methods(methods.split(",") if isinstance(methods, str) else [str(m) for m in methods], options)
    drawn = labelled_pairs(dataset, split, pairs, seed)
    threads = threads or torch.get_num_threads()
    top_mm = recommended(options.weights, "align_top_mm")
    common = Common(affine, masked, spacing_mm, threads, label_interpolation, contrasts, top_mm)
    rows = compare(drawn, chosen, common, folder / "cache")
    title = (
        f"{Path(dataset).name}, {split} split, {len(drawn)} pairs, seed {seed}; pre-alignment {affine}"
        f"{f' by the upper {top_mm:g} mm' if top_mm else ''}; "
        f"{'masked by the labels' if masked else 'whole images'}; {'' if remove_folds else 'networks as they fold; '}"
        f"{'synthetic contrasts; ' if contrasts == 'synthetic' else ''}labels by {label_interpolation}; "
        f"{common.threads} threads, {options.device}, "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}. "
        "Mean ± standard deviation over pairs."
    )
    names = region_names(dataset)
    summary = write_tables(rows, names, title, folder)
    write_figures(rows, summary, names, folder)
    print(markdown(summary))
    print(f"tables and figures: {folder}")
    check_finished(rows, folder)
    return summary


def rescans(
    dataset: str,
    output_dir: str,
    split: str = "validation",
    heads: int = 10,
    seed: int = 0,
    affine: str = "rigid",
    same_person: bool = True,
    weights: str | None = None,
    device: str = "auto",
    change: str = "growth",
) -> list[dict[str, Any]]:
    """Measure the registration of one person's scans on simulated ones, whose true transform is known.

    Each head is scanned twice, with noise, bias field and pose of its own, once without any change in between and once
    with one region grown, shrunk or shifted by 1 to 4 mm. Writes rescans.csv and rescans.md.

    Args:
        dataset: folder with dataset.json; its images need labels, and isotropic voxels.
        output_dir: folder to write.
        split: training, validation or test.
        heads: how many images, the first ones.
        seed: of what is simulated.
        affine: pre-alignment: none, center, rigid or affine.
        same_person: whether register is told so.
        weights: weights of the network; what register takes by default.
        device: auto, cpu or cuda, for the network.
        change: growth (or shrinkage) of the region, or its shift, which takes its surroundings along.

    Returns:
        The rows of rescans.csv: see ``bundle.benchmark.rescans.compare``.
    """
    folder = output_folder(output_dir)
    check_common(device, heads=heads)
    check_affine(affine)
    check_flags(same_person=same_person)
    items = labelled_images(dataset, split, heads)
    options: dict[str, Any] = {"affine": affine, "same_person": same_person, "weights": weights, "device": device}
    rows = measure_rescans(items, seed, partial(_registered, **options), change)
    title = (
        f"{Path(dataset).name}, {split}, the first {len(items)} heads, seed {seed}; {change}; pre-alignment {affine}; "
        f"same_person {same_person}; weights {weights or 'of register'}; torch {torch.__version__}. Means over pairs."
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "rescans.csv", rows)
    write_text(folder / "rescans.md", f"{title}\n\n{rescans_markdown(rows)}")
    print(rescans_markdown(rows))
    print(f"tables: {folder}")
    return rows


def lesions(
    dataset: str,
    output_dir: str,
    split: str = "validation",
    pairs: int | None = 10,
    seed: int = 0,
    affine: str = "affine",
    weights: str | None = None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Measure how far a lesion in one of two images carries the field around it off, with a cost mask and without.

    Each pair is registered as it is, with a bright ball of 14 to 22 mm radius in the fixed and the moving image in
    turn, and once more with that ball left out by a mask. The error is the distance to the transform of the pair as it
    is, where the fixed image shows something, the lesion left out. Writes lesions.csv and lesions.md.

    Args:
        dataset: folder with dataset.json.
        output_dir: folder to write.
        split: training, validation or test.
        pairs: how many ordered pairs to draw.
        seed: of the draw, and of the first lesion.
        affine: pre-alignment: none, center, rigid or affine.
        weights: weights of the network; what register takes by default.
        device: auto, cpu or cuda, for the network.

    Returns:
        The rows of lesions.csv: see ``bundle.benchmark.lesions.measure_lesions``.
    """
    folder = output_folder(output_dir)
    check_common(device, pairs=pairs)
    check_affine(affine)
    drawn = drawn_pairs(dataset, split, pairs, seed)
    rows = measure_lesions(drawn, seed, partial(_registered, affine=affine, weights=weights, device=device))
    title = (
        f"{Path(dataset).name}, {split} split, {len(drawn)} pairs, seed {seed}; pre-alignment {affine}; weights "
        f"{weights or 'of register'}; torch {torch.__version__}."
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "lesions.csv", rows)
    write_text(folder / "lesions.md", f"{title}\n\n{lesions_markdown(rows)}")
    print(lesions_markdown(rows))
    print(f"tables: {folder}")
    return rows


def _registered(moving: Path, fixed: Path, output: Path, **options: Any) -> Path:
    """Register two images without a word, and name the transform."""
    with contextlib.redirect_stdout(io.StringIO()):
        register(str(moving), str(fixed), str(output), report=False, **options)
    return output / "transform.h5"


def verdicts(
    dataset: str,
    foreign: str,
    output_dir: str,
    split: str = "validation",
    pairs: int | None = None,
    spoiled: int = 10,
    seed: int = 0,
    spacing_mm: float | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure how well the judgement of a registration tells good ones from ones that are spoiled on purpose.

    Spoiled are: the alignment, by a shift of 15 mm; the field, its sign turned; the moving image, turned by 90 degrees,
    its voxels shuffled, or another part of the body. Bounds are set on the pairs of one half and tried on the other.
    Writes verdicts.json; what is done is kept in cache/, so that an interrupted call goes on where it stopped.

    Args:
        dataset: folder with dataset.json; its images need labels.
        foreign: folder with dataset.json, of another part of the body.
        output_dir: folder to write.
        split: training, validation or test.
        pairs: how many ordered pairs to draw; all by default.
        spoiled: how many of them are spoiled, too.
        seed: of the draw.
        spacing_mm: voxel size that the network works at; by default the one that suits the weights.
        device: auto, cpu or cuda.

    Returns:
        What verdicts.json holds.
    """
    folder = output_folder(output_dir)
    check_common(device, pairs=pairs, spoiled=spoiled)
    spacing_mm = checked_spacing(spacing_mm)
    drawn = drawn_pairs(dataset, split, pairs, seed)
    others = sorted({pair["moving"] for pair in draw_pairs(open_dataset(foreign, split), split=split)})
    options: dict[str, Any] = {"device": f"$torch.device('{torch_device(device)}')", "never_worse": True}
    options |= {} if spacing_mm is None else {"spacing_mm": spacing_mm}
    rows = rows_of(drawn, others, min(spoiled, len(drawn)), folder / "cache", options)
    result = split_and_judge(rows)
    write_text(folder / "verdicts.json", json.dumps(result, indent=4) + "\n")
    print(json.dumps(result, indent=4))
    return result


benchmark = {
    "speed": speed,
    "accuracy": accuracy,
    "curve": curve,
    "networks": networks,
    "rescans": rescans,
    "lesions": lesions,
    "verdicts": verdicts,
    "expected_error": expected_error,
}
