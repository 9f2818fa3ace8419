"""``python -m bundle benchmark speed``: what the network, its training and whole commands cost."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bundle.benchmark.methods import Options, make_methods
from bundle.benchmark.speed import AGAINST, measure_speed, span, speed_markdown, write_pair, write_scaling
from bundle.benchmark.whole import check_installed, measure_whole, whole_markdown, whole_rows
from bundle.commands.comparing import check_common, three_sides, torch_device
from bundle.commands.register import output_folder
from bundle.io.files import check_file, write_text
from bundle.io.tables import write_csv
from bundle.options import check_flags

__all__ = ["speed"]

TRAINING_SIZE = (80, 96, 80)


def speed(
    output_dir: str = "output/speed",
    size: Sequence[int] = (160, 192, 160),
    training_size: Sequence[int] | None = None,
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
        training_size: those of the volume that a training step takes, 80,96,80 by default.
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
        check_common("cpu", repeats=repeats, threads=threads)
        if not whole or (moving is None) != (fixed is None):
            raise ValueError("--moving and --fixed go together, and with --whole.")
        unread = {"scaling": scaling, "training_size": training_size is not None, "device": device != "auto"}
        for option in (name for name, given in unread.items() if given):
            raise ValueError(
                f"--{option} is of the network's own times: leave it out with --whole, which times commands."
            )
        return _whole(
            folder, three_sides("size", size), peers, threads or torch.get_num_threads(), repeats, moving, fixed
        )
    training_size = TRAINING_SIZE if training_size is None else training_size
    sides, training_sides = three_sides("size", size), three_sides("training_size", training_size)
    check_common(device, repeats=repeats, threads=threads)
    if not set(peers) <= set(AGAINST):
        raise ValueError(f"--against takes some of {','.join(AGAINST)}, not '{','.join(peers)}'.")
    make_methods([AGAINST[peer] for peer in peers if peer != "voxelmorph"] or ["affine"], Options(weights=""))
    threads = threads or torch.get_num_threads()
    result = measure_speed(sides, training_sides, peers, torch_device(device), threads, repeats, scaling)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "speed.json", json.dumps(result, indent=4) + "\n")
    write_text(folder / "speed.md", speed_markdown(result))
    (folder / "scaling.png").unlink(missing_ok=True)  # an earlier call's
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
    write_text(folder / "whole.json", json.dumps(result, indent=4) + "\n")
    write_csv(folder / "whole.csv", whole_rows(turns))
    table = whole_markdown(turns, span)
    write_text(folder / "whole.md", table)
    print(f"{table}tables: {folder}")
    return result
