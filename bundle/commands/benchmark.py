"""``python -m bundle benchmark``: what the bundle costs, and how it does beside other methods."""

import contextlib
import io
import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bundle.benchmark.accuracy import compare
from bundle.benchmark.figures import write_figures
from bundle.benchmark.measure import Common
from bundle.benchmark.methods import Options, make_methods
from bundle.benchmark.peers import SYN_ITERATIONS
from bundle.benchmark.rescans import measure_rescans, rescans_markdown
from bundle.benchmark.speed import PEERS, measure_speed, span, speed_markdown, write_pair, write_scaling
from bundle.benchmark.tables import markdown, write_tables
from bundle.benchmark.verdicts import rows_of, split_and_judge
from bundle.benchmark.whole import check_installed, measure_whole, whole_markdown, whole_rows
from bundle.commands.register import check_affine, check_device, output_folder, register
from bundle.data import draw_pairs, open_dataset, region_names
from bundle.io.files import check_file
from bundle.io.tables import write_csv
from bundle.options import check_flags
from bundle.root import WEIGHTS
from bundle.spatial import LABEL_MODES

__all__ = ["accuracy", "benchmark", "rescans", "speed", "verdicts"]


def speed(
    output_dir: str = "output/speed",
    size: Sequence[int] = (160, 192, 160),
    training_size: Sequence[int] = (80, 96, 80),
    against: str | Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    repeats: int = 3,
    scaling: bool = False,
    whole: bool = False,
    moving: str | None = None,
    fixed: str | None = None,
) -> dict[str, Any]:
    """Time the network, its training step and the whole register command, with the largest memory of each.

    Writes speed.json, speed.md and, if asked, scaling.png; with whole, whole.json, whole.csv and whole.md instead.

    Args:
        output_dir: folder to write.
        size: sides of the volume in voxels, for example 160,192,160.
        training_size: those of the volume that a training step takes.
        against: some of voxelmorph, syn, elastix, with commas: they register the same pair; with whole some of greedy,
            syn, syn-cc.
        device: auto, cpu or cuda, for what torch runs.
        threads: that each process may use; torch's own choice by default.
        repeats: turns.
        scaling: also time forward passes of cubes from 64³ to 192³.
        whole: time whole commands alone, register and those of other engines in turns: CPU-seconds, too.
        moving: with whole, the image to align; by default one of two synthetic heads.
        fixed: with whole, the image to align to.

    Returns:
        What speed.json, or whole.json, holds.
    """
    folder = output_folder(output_dir)
    peers = against.split(",") if isinstance(against, str) else [str(peer) for peer in against]
    check_flags(scaling=scaling, whole=whole)
    if whole or moving is not None or fixed is not None:
        _check_common("cpu", repeats=repeats, threads=threads)
        if not whole or (moving is None) != (fixed is None):
            raise ValueError("--moving and --fixed go together, and with --whole.")
        return _whole(folder, _sides("size", size), peers, threads or torch.get_num_threads(), repeats, moving, fixed)
    sides, training_sides = _sides("size", size), _sides("training_size", training_size)
    _check_common(device, repeats=repeats, threads=threads)
    if not set(peers) <= set(PEERS):
        raise ValueError(f"--against takes some of {','.join(PEERS)}, not '{','.join(peers)}'.")
    make_methods([PEERS[peer] for peer in peers if peer != "voxelmorph"] or ["affine"], Options(weights=""))
    threads = threads or torch.get_num_threads()
    result = measure_speed(sides, training_sides, peers, _torch_device(device), threads, repeats, scaling)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.json").write_text(json.dumps(result, indent=4) + "\n")
    (folder / "speed.md").write_text(speed_markdown(result))
    if result["scaling"]:
        write_scaling(result["scaling"], folder / "scaling.png")
    print(speed_markdown(result))
    print(f"tables: {folder}")
    return result


def _whole(
    folder: Path,
    size: tuple[int, int, int],
    against: Sequence[str],
    threads: int,
    repeats: int,
    moving: str | None,
    fixed: str | None,
) -> dict[str, Any]:
    """Time whole commands, and write their tables."""
    names = list(dict.fromkeys(["register", *against]))
    check_installed(names)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        if moving is None or fixed is None:
            pair = write_pair(Path(place), size)
            moving, fixed = str(pair["moving"]), str(pair["fixed"])
        for role, path in (("moving", moving), ("fixed", fixed)):
            check_file(path, f"{role} image", "do")
        turns = measure_whole(Path(moving).absolute(), Path(fixed).absolute(), Path(place), names, threads, repeats)
    result = {"threads": threads, "moving": Path(moving).name, "fixed": Path(fixed).name, "commands": turns}
    (folder / "whole.json").write_text(json.dumps(result, indent=4) + "\n")
    write_csv(folder / "whole.csv", whole_rows(turns))
    table = whole_markdown(turns, span)
    (folder / "whole.md").write_text(table)
    print(f"{table}tables: {folder}")
    return result


def _sides(option: str, value: Sequence[int]) -> tuple[int, int, int]:
    sides = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sides) != 3 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ValueError(f"--{option} takes three sides in voxels, 160,192,160 say, not '{value}'.")
    return sides


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
    weights: str | None = None,
    voxelmorph_weights: str | None = None,
    optimise: int = 5,
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
        methods: some of identity, affine, pan, pan-mind (25 steps across contrasts), pan-optimised, voxelmorph, syn-mi,
            syn-cc, elastix, with commas.
        affine: pre-alignment of all methods but identity: none, center, rigid or affine.
        masked: blank everything outside the labels in both images, and cut them to what is left.
        spacing_mm: voxel size that all methods work at; by default networks work at the one that suits their weights,
            the others at the fixed image's.
        label_interpolation: of the labels that are scored: nearest, as in most papers, or label_gaussian, as register
            writes them.
        weights: weights of PAN; models/model.pt by default.
        voxelmorph_weights: weights of VoxelMorph.
        optimise: most steps of pan-optimised.
        syn_iterations: of syn-mi and syn-cc, at a quarter, half and the whole of the resolution.
        device: auto, cpu or cuda, for the networks.
        threads: that each method may use; torch's own choice by default.

    Returns:
        The rows of summary.csv.
    """
    folder = output_folder(output_dir)
    _check_common(device, pairs=pairs, optimise=optimise, threads=threads)
    check_flags(masked=masked)
    _check(affine, label_interpolation, syn_iterations)
    options = Options(
        weights=str(Path(str(weights)).absolute() if weights else WEIGHTS),
        voxelmorph_weights=str(Path(str(voxelmorph_weights)).absolute()) if voxelmorph_weights else None,
        optimise=optimise,
        syn_iterations=tuple(syn_iterations),
        device=_torch_device(device),
    )
    chosen = make_methods(methods.split(",") if isinstance(methods, str) else [str(m) for m in methods], options)
    drawn = draw_pairs(open_dataset(dataset, split), pairs, seed)
    if any(f"{role}_label" not in pair for pair in drawn for role in ("moving", "fixed")):
        raise ValueError(f"The benchmark needs a label map for every image, but {dataset} lists images without one.")
    threads = threads or torch.get_num_threads()
    spacing_mm = None if spacing_mm is None else float(spacing_mm)
    common = Common(affine, masked, spacing_mm, threads, label_interpolation)
    rows = compare(drawn, chosen, common, folder / "cache")
    title = (
        f"{Path(dataset).name}, {split} split, {len(drawn)} pairs, seed {seed}; pre-alignment {affine}; "
        f"{'masked by the labels' if masked else 'whole images'}; labels by {label_interpolation}; "
        f"{common.threads} threads, {options.device}, "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}. "
        "Mean ± standard deviation over pairs."
    )
    names = region_names(dataset)
    summary = write_tables(rows, names, title, folder)
    write_figures(rows, summary, names, folder)
    print(markdown(summary))
    print(f"tables and figures: {folder}")
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
) -> list[dict[str, Any]]:
    """Measure the registration of one person's scans on simulated ones, whose true transform is known.

    Each head is scanned twice, with noise, bias field and pose of its own, once without any change in between and once
    with one region grown or shrunk by 1 to 4 mm. Writes rescans.csv and rescans.md.

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

    Returns:
        The rows of rescans.csv: see ``bundle.benchmark.rescans.judge``.
    """
    folder = output_folder(output_dir)
    _check_common(device, heads=heads)
    check_affine(affine)
    check_flags(same_person=same_person)
    items = open_dataset(dataset, split)[:heads]
    if any("label" not in item for item in items):
        raise ValueError(f"The benchmark needs a label map for every image, but {dataset} lists images without one.")
    options: dict[str, Any] = {"affine": affine, "same_person": same_person, "weights": weights, "device": device}

    def run(moving: Path, fixed: Path, output: Path) -> Path:
        with contextlib.redirect_stdout(io.StringIO()):
            register(str(moving), str(fixed), str(output), **options)
        return output / "transform.h5"

    rows = measure_rescans(items, seed, run)
    title = (
        f"{Path(dataset).name}, {split} split, the first {len(items)} heads, seed {seed}; pre-alignment {affine}; "
        f"same_person {same_person}; weights {weights or 'of register'}; torch {torch.__version__}. Means over pairs."
    )
    folder.mkdir(parents=True, exist_ok=True)
    columns = dict.fromkeys(key for row in rows for key in row)
    write_csv(folder / "rescans.csv", [{key: row.get(key, "") for key in columns} for row in rows])
    (folder / "rescans.md").write_text(f"{title}\n\n{rescans_markdown(rows)}")
    print(rescans_markdown(rows))
    print(f"tables: {folder}")
    return rows


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
    _check_common(device, pairs=pairs, spoiled=spoiled)
    drawn = draw_pairs(open_dataset(dataset, split), pairs, seed)
    others = sorted({pair["moving"] for pair in draw_pairs(open_dataset(foreign, split))})
    options: dict[str, Any] = {"device": f"$torch.device('{_torch_device(device)}')", "never_worse": True}
    options |= {} if spacing_mm is None else {"spacing_mm": float(spacing_mm)}
    rows = rows_of(drawn, others, min(spoiled, len(drawn)), folder / "cache", options)
    result = split_and_judge(rows)
    (folder / "verdicts.json").write_text(json.dumps(result, indent=4) + "\n")
    print(json.dumps(result, indent=4))
    return result


def _check_common(device: str, **counts: int | None) -> None:
    """Refuse bad values before any work."""
    check_device(device)
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"--{name} takes a whole number from 1 up, not '{value}'.")


def _check(affine: str, label_interpolation: str, syn_iterations: Sequence[int]) -> None:
    check_affine(affine)
    if label_interpolation not in LABEL_MODES:
        raise ValueError(f"--label_interpolation is one of {', '.join(LABEL_MODES)}, not '{label_interpolation}'.")
    steps = syn_iterations if isinstance(syn_iterations, list | tuple) else []
    if len(steps) != 3 or not all(isinstance(n, int) and n >= 0 for n in steps):
        raise ValueError(f"--syn_iterations takes three whole numbers, 100,70,20 say, not '{syn_iterations}'.")


def _torch_device(device: str) -> str:
    return "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"


benchmark = {"speed": speed, "accuracy": accuracy, "rescans": rescans, "verdicts": verdicts}
